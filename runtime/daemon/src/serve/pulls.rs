//! Models that come, go and get names over HTTP: the library's calls with the HTTP layer's words.

use std::sync::Arc;

use futures::{
    FutureExt,
    stream::{BoxStream, StreamExt},
};
use locara_api::{PullProgress, Refusal};
use locara_manifest::Unresolved;
use locara_models::{Hub, HubOptions, Library, LibraryError, Progress, PullError, PullSpec, Stage};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failure::one_line;

/// Pulls a model. The stream tells the newest state, not every one; dropping it stops the pull, and what came is kept.
pub(super) fn pull(
    library: Arc<Library>,
    hub: String,
    name: String,
) -> BoxStream<'static, Result<PullProgress, Refusal>> {
    let (tell, told) = watch::channel(None::<Progress>);
    let pulling = async move {
        let spec: PullSpec = name.parse().map_err(|error: PullError| Refusal::Invalid(error.to_string()))?;
        let hub = Hub::new(HubOptions::usual(|variable| std::env::var_os(variable), &hub))
            .map_err(|error| Refusal::Failed(one_line(&error)))?;
        let on_progress = |progress: Progress| _ = tell.send_replace(Some(progress));
        library.pull(&hub, &spec, &on_progress, &CancellationToken::new()).await.map_err(refused)
    };
    let state = Pulling { work: pulling.boxed(), told, ended: false };
    futures::stream::unfold(state, |mut state| async move {
        if state.ended {
            return None;
        }
        let item = tokio::select! {
            biased;
            outcome = &mut state.work => {
                state.ended = true;
                outcome.map(|pulled| PullProgress {
                    status: "success".to_owned(),
                    digest: Some(format!("sha256:{}", pulled.digest)),
                    total: Some(pulled.bytes),
                    completed: Some(pulled.bytes),
                })
            }
            Ok(()) = state.told.changed() => Ok(shown(state.told.borrow_and_update().as_ref())),
        };
        Some((item, state))
    })
    .boxed()
}

struct Pulling {
    work: futures::future::BoxFuture<'static, Result<locara_models::Pulled, Refusal>>,
    told: watch::Receiver<Option<Progress>>,
    ended: bool,
}

fn shown(progress: Option<&Progress>) -> PullProgress {
    let status = match progress.map(|progress| progress.stage) {
        Some(Stage::Verifying) => "verifying sha256 digest",
        Some(Stage::Downloading) => "pulling",
        _ => "pulling manifest",
    };
    let bytes = progress.filter(|progress| progress.total > 0);
    PullProgress {
        status: status.to_owned(),
        digest: None,
        total: bytes.map(|progress| progress.total),
        completed: bytes.map(|progress| progress.done),
    }
}

fn refused(error: PullError) -> Refusal {
    match error {
        PullError::Spec(_) => Refusal::Invalid(error.to_string()),
        PullError::NotFound { .. } => Refusal::Unknown(error.to_string()),
        PullError::Wait { seconds, .. } => Refusal::Unavailable {
            reason: error.to_string(),
            retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX),
        },
        other => Refusal::Failed(one_line(&other)),
    }
}

/// Removes a model that nobody uses.
pub(super) fn delete(library: &Library, name: &str) -> Result<(), Refusal> {
    library.remove(name, false).map(drop).map_err(|error| unchanged(name, error))
}

/// A second name for a model.
pub(super) fn copy(library: &Library, source: &str, destination: &str) -> Result<(), Refusal> {
    let alias = destination.parse().map_err(|_| {
        Refusal::Invalid(format!("{destination:?} is no name for a model: letters, digits, `-`, `.`, `_`, `:` and `/`"))
    })?;
    library.set_alias(&alias, source).map_err(|error| unchanged(source, error))
}

fn unchanged(name: &str, error: LibraryError) -> Refusal {
    match error {
        LibraryError::Unresolved(Unresolved::Unknown { .. } | Unresolved::Unassigned { .. }) => {
            Refusal::Unknown(name.to_owned())
        }
        LibraryError::Unresolved(_) | LibraryError::BuiltIn => Refusal::Invalid(error.to_string()),
        LibraryError::InUse { .. } => Refusal::Busy { reason: error.to_string(), retry_after_s: 60 },
        other => Refusal::Failed(one_line(&other)),
    }
}

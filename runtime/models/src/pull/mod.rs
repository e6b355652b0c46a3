//! Models from a hub of Hugging Face's kind, or from any server with https.
//!
//! What a server says is believed only as far as it is checked: sizes before and after, the SHA-256 of every file, and
//! whether it is a model at all. The token goes to the hub and to nobody else.

mod download;
mod error;
mod http;
mod hub;
mod quant;
mod spec;

use std::{path::Path, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _};
use locara_manifest::{Digest, ModelName, ModelPart};
use tokio_util::sync::CancellationToken;

use crate::{
    digest::digest_of_model,
    error::LibraryError,
    library::{Library, ModelState},
    progress::{Meter, OnProgress, Stage},
};

pub use error::PullError;
pub use http::{Patience, Token};
pub use hub::{Hub, HubOptions, PlannedPart, PullPlan};
pub(crate) use quant::model_name;
pub use spec::{Pick, PullSpec};

use download::{Partial, there_already};

/// Parts of a split model that are downloaded at a time.
const AT_A_TIME: usize = 3;
/// Bytes of the disk that a download leaves free: a full disk stops everything else on the machine.
const RESERVE: u64 = 1 << 30;

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The digest of the model.
    pub digest: Digest,
    /// What answers call it.
    pub name: ModelName,
    /// Bytes of all files.
    pub bytes: u64,
    /// Whether it was there already, and nothing was downloaded.
    pub known: bool,
}

impl Library {
    /// Downloads a model into the store and enters it into the registry. What an earlier try brought is gone on with. Two
    /// that pull the same at the same time, in one process or in two, download it once.
    ///
    /// Dropping the future stops it like `cancel`; what came is kept either way.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn pull(
        self: &Arc<Self>,
        hub: &Hub,
        spec: &PullSpec,
        on_progress: &OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Pulled, PullError> {
        let pull = async {
            let plan = hub.plan(spec).await?;
            self.bring(hub, &plan, on_progress, cancel).await
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(PullError::Cancelled),
            outcome = pull => outcome,
        }
    }

    async fn bring(
        self: &Arc<Self>,
        hub: &Hub,
        plan: &PullPlan,
        on_progress: &OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Pulled, PullError> {
        let announced: Option<Vec<Digest>> = plan.parts.iter().map(|part| part.sha256.clone()).collect();
        let announced = announced.map(|parts| digest_of_model(&parts));
        if let Some(digest) = &announced
            && let Some(pulled) = self.ready(digest)?
        {
            return Ok(pulled);
        }
        self.room_for(plan, announced.as_ref())?;
        let meter = Meter::new(plan.bytes(), Stage::Downloading, on_progress);
        // None of them begins before it is polled. Collected first: a closure among them would tie the whole to one thread.
        let fetches: Vec<_> = (1..)
            .zip(&plan.parts)
            .map(|(number, part)| self.fetch(hub, part, number, plan, announced.as_ref(), &meter, cancel))
            .collect();
        // In order, however they come in.
        let parts: Vec<Digest> = futures::stream::iter(fetches).buffered(AT_A_TIME).try_collect().await?;
        meter.finish();
        let (library, plan) = (Arc::clone(self), plan.clone());
        let entered = tokio::task::spawn_blocking(move || library.keep(&plan, parts)).await;
        entered.unwrap_or(Err(PullError::Cancelled)) // the runtime shuts down
    }

    /// A model of this digest that may be used as it is.
    fn ready(&self, digest: &Digest) -> Result<Option<Pulled>, PullError> {
        let registry = self.registry().load().map_err(LibraryError::from)?;
        let Some(model) = registry.models.get(digest) else { return Ok(None) };
        let ready = self.state(digest, model) == ModelState::Ready;
        let pulled = || Pulled { digest: digest.clone(), name: model.name.clone(), bytes: model.bytes(), known: true };
        Ok(ready.then(pulled))
    }

    fn room_for(&self, plan: &PullPlan, announced: Option<&Digest>) -> Result<(), PullError> {
        let folder = self.store().blobs().partial();
        let missing = (1..).zip(&plan.parts).filter(|(number, part)| !self.is_there(plan, announced, *number, part));
        let needed = missing
            .map(|(_, part)| part.bytes - there_already(folder, part).min(part.bytes))
            .fold(0, u64::saturating_add);
        let free = free_bytes(folder)?;
        if needed > 0 && free < needed.saturating_add(RESERVE) {
            return Err(PullError::NoSpace { folder: folder.to_owned(), needed, free, reserve: RESERVE });
        }
        Ok(())
    }

    /// Whether a part lies in the store under its final name.
    fn is_there(&self, plan: &PullPlan, announced: Option<&Digest>, number: u32, part: &PlannedPart) -> bool {
        let count = plan.parts.len() as u32; // at most 1024
        let path = announced.map(|digest| self.store().blobs().path(digest, number, count));
        path.and_then(|path| fs_err::metadata(path).ok()).is_some_and(|metadata| metadata.len() == part.bytes)
    }

    #[expect(clippy::too_many_arguments, reason = "one call, and each is another thing")]
    async fn fetch(
        self: &Arc<Self>,
        hub: &Hub,
        part: &PlannedPart,
        number: u32,
        plan: &PullPlan,
        announced: Option<&Digest>,
        meter: &Meter<'_>,
        cancel: &CancellationToken,
    ) -> Result<Digest, PullError> {
        let done = || self.is_there(plan, announced, number, part);
        let blobs = self.store().blobs();
        let partial = match (Partial::take(blobs.partial(), part, meter, done).await?, &part.sha256) {
            (None, Some(digest)) => {
                meter.found(part.bytes);
                return Ok(digest.clone());
            }
            (None, None) => return Err(PullError::Cancelled), // `done` needs a digest
            (Some(partial), _) => partial,
        };
        let found = partial.fetch(hub, part, meter, cancel).await?;
        let target = match announced {
            Some(model) => blobs.path(model, number, plan.parts.len() as u32),
            None => blobs.place(&found),
        };
        // Short: a rename and two syncs.
        partial.place(&target)?;
        meter.stage(Stage::Downloading);
        Ok(found)
    }

    /// Checks what was downloaded, and enters it.
    fn keep(&self, plan: &PullPlan, parts: Vec<Digest>) -> Result<Pulled, PullError> {
        let digest = digest_of_model(&parts);
        let blobs = self.store().blobs();
        let count = parts.len() as u32; // at most 1024
        let files: Vec<_> = (1..=count).map(|number| blobs.path(&digest, number, count)).collect();
        if let Err(useless) = crate::import::check(&files) {
            let _ = blobs.remove(&digest); // what stays is listed as nobody's
            return Err(PullError::Useless(useless));
        }
        let parts = parts.into_iter().zip(&plan.parts);
        let parts = parts.map(|(sha256, part)| ModelPart { sha256, bytes: part.bytes, path: None }).collect();
        let name = self.enter(&digest, &plan.name, parts, plan.source.clone())?;
        Ok(Pulled { digest, name, bytes: plan.bytes(), known: false })
    }
}

/// Bytes that somebody without special rights can still write below a folder.
fn free_bytes(folder: &Path) -> Result<u64, PullError> {
    let failed = |source: rustix::io::Errno| PullError::Io {
        what: "find out how much space is free in",
        path: folder.to_owned(),
        source: source.into(),
    };
    let found = rustix::fs::statvfs(folder).map_err(failed)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

//! What the HTTP layer asks of the host, answered by the host.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, unfold},
};
use locara_api::{Ask, Check, ModelEntry, ModelState, PullProgress, Refusal, Served as ServedModel};
use locara_engine::Class;
use locara_manifest::{Role, Unresolved};
use locara_models::{EMBEDDED_DIGEST, Library, LibraryError, Listed, ModelState as FileState};
use locara_policy::{
    governor::{self, Level, Recovery},
    ledger::ModelDigest,
};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{facts::Known, pulls};
use crate::{
    failure::one_line,
    host::{Asker, Host, Loaded, NoModel, Wanted},
};

/// A model that is being unloaded is asked for again after this, seconds.
const LEAVING_RETRY_S: u32 = 1;
/// Answers in flight may hold up an unload that the owner asks for, so long.
const UNLOAD_WAITS: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Served {
    host: Arc<Host>,
    facts: Arc<Known>,
    /// Where models are pulled from.
    hub: String,
    stop: CancellationToken,
}

impl Served {
    /// `stop` ends the streams that would never end by themselves.
    pub(super) fn new(host: Arc<Host>, hub: String, stop: CancellationToken) -> Self {
        Self { host, facts: Arc::default(), hub, stop }
    }

    /// A call of the library, which blocks.
    fn change(
        &self,
        call: impl FnOnce(&Library) -> Result<(), Refusal> + Send + 'static,
    ) -> BoxFuture<'static, Result<(), Refusal>> {
        let library = self.host.library().clone();
        async move {
            let changed = tokio::task::spawn_blocking(move || call(&library)).await;
            changed.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())))
        }
        .boxed()
    }
}

fn served(loaded: &Loaded) -> ServedModel {
    ServedModel { model: loaded.file.name.clone(), engine: loaded.engine.clone() }
}

impl locara_api::Host for Served {
    fn models(&self) -> BoxFuture<'_, Vec<ModelEntry>> {
        let (host, facts) = (self.host.clone(), self.facts.clone());
        async move {
            let listed = tokio::task::spawn_blocking(move || {
                let loaded: Vec<String> = host.loaded().iter().map(|loaded| loaded.file.digest.clone()).collect();
                let all = host.library().list().unwrap_or_else(|error| {
                    tracing::error!(error = one_line(&error), "the models cannot be listed");
                    Vec::new()
                });
                let nobody = !all.iter().any(|model| model.words.iter().any(|word| word == Role::DEFAULT));
                let mut entries: Vec<_> = all.into_iter().map(|model| entry(&host, &facts, model, &loaded)).collect();
                // The embedded model stands in until somebody is named.
                if let Some(entry) = entries.iter_mut().find(|entry| nobody && entry.digest == EMBEDDED_DIGEST) {
                    entry.roles.push(Role::DEFAULT.to_owned());
                }
                entries
            });
            listed.await.unwrap_or_default()
        }
        .boxed()
    }

    fn engine(&self, ask: Ask) -> BoxFuture<'_, Result<ServedModel, Refusal>> {
        async move {
            let class = match ask.class {
                Class::Interactive => governor::Class::Interactive,
                Class::Background => governor::Class::Background,
            };
            let asker = Asker { app: String::new(), class };
            match self.host.engine(Wanted::named(&ask.model), asker).await {
                Ok(loaded) => Ok(served(&loaded)),
                Err(error) => Err(refusal(&ask.model, &error)),
            }
        }
        .boxed()
    }

    fn loaded(&self) -> Vec<ServedModel> {
        self.host.loaded().iter().map(served).collect()
    }

    fn unload(&self, model: String) -> BoxFuture<'_, Result<(), Refusal>> {
        async move {
            let (host, word) = (self.host.clone(), model.clone());
            let located = tokio::task::spawn_blocking(move || host.locate(&Wanted::named(&word))).await;
            let located = located
                .map_err(|error| Refusal::Failed(error.to_string()))?
                .map_err(|error| refusal(&model, &NoModel::Library(Arc::new(error))))?;
            self.host.release(&ModelDigest(located.file.digest), UNLOAD_WAITS).await;
            Ok(())
        }
        .boxed()
    }

    fn memory(&self) -> BoxFuture<'_, Value> {
        let report = serde_json::to_value(self.host.report());
        async move { report.unwrap_or_else(|error| json!({"error": error.to_string()})) }.boxed()
    }

    fn events(&self) -> BoxStream<'static, Value> {
        let actions = self.host.governed().listen();
        let decided = unfold(actions, |mut actions| async move {
            match actions.recv().await {
                Ok(event) => Some((event, actions)),
                // Too slow: it misses some, and is told.
                Err(RecvError::Lagged(missed)) => Some((json!({"event": "missed", "count": missed}), actions)),
                Err(RecvError::Closed) => None,
            }
        });
        decided.take_until(self.stop.clone().cancelled_owned()).boxed()
    }

    fn pull(&self, name: String) -> BoxStream<'static, Result<PullProgress, Refusal>> {
        let stop = self.stop.clone().cancelled_owned();
        pulls::pull(self.host.library().clone(), self.hub.clone(), name).take_until(stop).boxed()
    }

    fn delete(&self, name: String) -> BoxFuture<'_, Result<(), Refusal>> {
        self.change(move |library| pulls::delete(library, &name))
    }

    fn copy(&self, source: String, destination: String) -> BoxFuture<'_, Result<(), Refusal>> {
        self.change(move |library| pulls::copy(library, &source, &destination))
    }

    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        let (host, stopping) = (self.host.clone(), self.stop.is_cancelled());
        async move {
            let level = host.governed().level();
            let files = tokio::task::spawn_blocking(move || {
                let registry = host.library().registry().load().err().map(|error| one_line(&error));
                let default = host.locate(&Wanted::named("default")).err().map(|error| one_line(&error));
                (registry, default)
            });
            let (registry, default) = files.await.unwrap_or_else(|error| (Some(error.to_string()), None));
            let check = |name: &str, failure: Option<String>| Check { name: name.to_owned(), failure };
            vec![
                check("registry", registry),
                check("default-model", default),
                check(
                    "memory",
                    (level == Level::Critical)
                        .then(|| "memory is critically short; `locara memory` shows who holds it".to_owned()),
                ),
                check("running", stopping.then(|| "the host is going down".to_owned())),
            ]
        }
        .boxed()
    }
}

fn entry(host: &Host, facts: &Known, model: Listed, loaded: &[String]) -> ModelEntry {
    let digest = model.digest.to_string();
    let there = matches!(model.state, FileState::Ready | FileState::Unverified { .. });
    let facts = model.files.first().filter(|_| there).map(|path| facts.of(&digest, path, host.machine()));
    let facts = facts.unwrap_or_default();
    let state = if model.disabled || !there {
        ModelState::Disabled
    } else if loaded.contains(&digest) {
        ModelState::Loaded
    } else {
        ModelState::Ready
    };
    ModelEntry {
        name: model.name.to_string(),
        digest,
        size_bytes: model.bytes,
        created: facts.created,
        architecture: facts.architecture,
        parameters: facts.parameters,
        quantization: facts.quantization,
        n_ctx: model.settings.context.unwrap_or(facts.n_ctx),
        n_embd: facts.n_embd,
        roles: model.words,
        state,
        capabilities: facts.capabilities,
    }
}

/// Why not, in the HTTP layer's words.
fn refusal(asked: &str, error: &NoModel) -> Refusal {
    match error {
        NoModel::Library(error) => match &**error {
            LibraryError::Unresolved(Unresolved::Unknown { .. } | Unresolved::Unassigned { .. }) => {
                Refusal::Unknown(asked.to_owned())
            }
            LibraryError::Unresolved(Unresolved::Disabled { .. }) => Refusal::Disabled(asked.to_owned()),
            LibraryError::Unresolved(unresolved) => Refusal::Invalid(unresolved.to_string()),
            LibraryError::Unavailable { .. } => Refusal::Unavailable {
                reason: error.to_string(),
                // Somebody has to attach a volume; asking every minute costs nothing.
                retry_after_s: 60,
            },
            other => Refusal::Failed(one_line(other)),
        },
        NoModel::Refused { name, refusal } => {
            let seconds = |ms: u32| ms.div_ceil(1000).max(1);
            match refusal.recovery {
                Recovery::Retry { after_ms } => {
                    Refusal::Unavailable { reason: format!("{name}: {refusal}"), retry_after_s: seconds(after_ms) }
                }
                Recovery::Free { .. } | Recovery::Smaller { .. } => Refusal::DoesNotFit {
                    model: name.clone(),
                    needed_bytes: refusal.needs.get(),
                    available_bytes: refusal.room.get(),
                    way_out: refusal.recovery.to_string(),
                },
            }
        }
        NoModel::Leaving { .. } => Refusal::Unavailable { reason: error.to_string(), retry_after_s: LEAVING_RETRY_S },
        NoModel::Failed { name, detail } => Refusal::LoadFailed { model: name.clone(), reason: detail.clone() },
    }
}

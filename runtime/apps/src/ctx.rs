//! What one instance holds: the data of its store, and the linkers that give guests access to it.

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::allow::{Allowed, Interface};
use crate::bindings::{
    budget, budget_sync, files, http, inference, inference_sync, io_sync, log, output, progress, storage, system,
};
use crate::capability::budget::{BudgetAccess, BudgetHeld, BudgetPolicy, HasBudget};
use crate::capability::files::{FilesAccess, FilesPolicy, FilesState, HasFiles};
use crate::capability::http::{HasHttp, HttpAccess, HttpPolicy, HttpState};
use crate::capability::inference::{HasInference, InferenceAccess, InferencePolicy, InferenceState};
use crate::capability::input::{HasIo, IoAccess, IoPolicy, IoState};
use crate::capability::log::{HasLog, LogAccess, LogPolicy, LogState};
use crate::capability::output::{HasOutput, OutputAccess, OutputPolicy, OutputState};
use crate::capability::progress::{HasProgress, ProgressAccess, ProgressPolicy, ProgressState};
use crate::capability::storage::{HasStorage, StorageAccess, StoragePolicy, StorageState};
use crate::capability::system::{HasSystem, SystemAccess, SystemPolicy, SystemState};
use crate::capability::{Capability, Shared};
use crate::imports::World;
use crate::limiter::GuestMemory;

/// The data of one store.
pub(crate) struct Ctx {
    pub(crate) memory: GuestMemory,
    pub(crate) shared: Shared,
    pub(crate) inference: Capability<InferenceState, InferencePolicy>,
    pub(crate) budget: Capability<BudgetHeld, BudgetPolicy>,
    pub(crate) storage: Capability<StorageState, StoragePolicy>,
    pub(crate) files: Capability<FilesState, FilesPolicy>,
    pub(crate) http: Capability<HttpState, HttpPolicy>,
    pub(crate) log: Capability<LogState, LogPolicy>,
    pub(crate) progress: Capability<ProgressState, ProgressPolicy>,
    pub(crate) system: Capability<SystemState, SystemPolicy>,
    pub(crate) output: Capability<OutputState, OutputPolicy>,
    pub(crate) io: Capability<Option<IoState>, IoPolicy>,
}

impl Ctx {
    fn inference(&mut self) -> InferenceAccess<'_> {
        self.inference.access(&mut self.shared)
    }
    fn budget(&mut self) -> BudgetAccess<'_> {
        self.budget.access(&mut self.shared)
    }
    fn storage(&mut self) -> StorageAccess<'_> {
        self.storage.access(&mut self.shared)
    }
    fn files(&mut self) -> FilesAccess<'_> {
        self.files.access(&mut self.shared)
    }
    fn http(&mut self) -> HttpAccess<'_> {
        self.http.access(&mut self.shared)
    }
    fn log(&mut self) -> LogAccess<'_> {
        self.log.access(&mut self.shared)
    }
    fn progress(&mut self) -> ProgressAccess<'_> {
        self.progress.access(&mut self.shared)
    }
    fn system(&mut self) -> SystemAccess<'_> {
        self.system.access(&mut self.shared)
    }
    fn output(&mut self) -> OutputAccess<'_> {
        self.output.access(&mut self.shared)
    }
    fn io(&mut self) -> IoAccess<'_> {
        self.io.access(&mut self.shared)
    }
}

/// Links what the app may have, and nothing else. Built once for a prepared app: a linker for each instance would cost
/// ten times the instance.
pub(crate) fn linker(engine: &Engine, allowed: &Allowed, world: World) -> wasmtime::Result<Linker<Ctx>> {
    let mut linker = Linker::new(engine);
    let may = |interface| allowed.check_interface(interface).is_ok();
    log::add_to_linker::<_, HasLog>(&mut linker, Ctx::log)?;
    progress::add_to_linker::<_, HasProgress>(&mut linker, Ctx::progress)?;
    system::add_to_linker::<_, HasSystem>(&mut linker, Ctx::system)?;
    if may(Interface::Storage) {
        storage::add_to_linker::<_, HasStorage>(&mut linker, Ctx::storage)?;
    }
    match world {
        World::Async => {
            budget::add_to_linker::<_, HasBudget>(&mut linker, Ctx::budget)?;
            output::add_to_linker::<_, HasOutput>(&mut linker, Ctx::output)?;
            if may(Interface::Inference) {
                inference::add_to_linker::<_, HasInference>(&mut linker, Ctx::inference)?;
            }
            if may(Interface::Files) {
                files::add_to_linker::<_, HasFiles>(&mut linker, Ctx::files)?;
            }
            if may(Interface::Http) {
                http::add_to_linker::<_, HasHttp>(&mut linker, Ctx::http)?;
            }
        }
        World::Sync => {
            budget_sync::add_to_linker::<_, HasBudget>(&mut linker, Ctx::budget)?;
            io_sync::add_to_linker::<_, HasIo>(&mut linker, Ctx::io)?;
            if may(Interface::Inference) {
                inference_sync::add_to_linker::<_, HasInference>(&mut linker, Ctx::inference)?;
            }
        }
    }
    Ok(linker)
}

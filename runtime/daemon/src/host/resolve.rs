//! From what somebody asks for to the files of one model, and what is to be known of them before they are loaded.

use locara_engine::shape::model_shape;
use locara_gguf::Gguf;
use locara_manifest::{KvCacheType, ModelSettings, Role, Unresolved};
use locara_models::{LibraryError, Located, ModelFile};
use locara_policy::{
    KvType, Plan, PlanRequest,
    defaults::{Defaults, defaults},
    plan::plan,
    shape::ModelShape,
};

use super::Host;

/// How somebody asks for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// A role, a name, an alias or the beginning of a digest.
    pub(crate) word: String,
    /// Apps name roles that the owner may never have heard of; they get what plays `default` then. Whoever names a model
    /// gets that model or an error.
    pub(crate) or_default: bool,
}

impl Wanted {
    /// What an app asks for.
    pub(crate) fn role(role: &str) -> Self {
        Self { word: role.to_owned(), or_default: true }
    }

    /// What a person or an HTTP client asks for.
    pub(crate) fn named(word: &str) -> Self {
        Self { word: word.to_owned(), or_default: false }
    }
}

/// Chat roles that whoever plays `default` can play too, for better or worse. Vectors and rankings it cannot make.
const LIKE_DEFAULT: [&str; 4] = [Role::DEFAULT, Role::CODING, Role::QUICKEST, Role::TOOL_CALLING];

/// A model that was found, read and planned; nothing of it is in memory.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) file: ModelFile,
    pub(crate) settings: ModelSettings,
    pub(crate) shape: ModelShape,
    pub(crate) derived: Defaults,
    pub(crate) request: PlanRequest,
    pub(crate) plan: Plan,
}

/// Why a model cannot be planned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(transparent)]
    Gguf(#[from] locara_gguf::GgufError),
    #[error(transparent)]
    Shape(#[from] locara_engine::shape::ShapeError),
    #[error(transparent)]
    Plan(#[from] locara_policy::plan::PlanError),
}

impl Host {
    /// The files that are meant. Blocks: a file that was touched is hashed again.
    pub(crate) fn locate(&self, wanted: &Wanted) -> Result<Located, LibraryError> {
        if let Some(path) = &self.chosen {
            let file = self.library.store().adopt(path)?;
            return Ok(Located { parts: vec![file.path.clone()], file, settings: ModelSettings::default() });
        }
        match self.library.resolve(&wanted.word) {
            Err(LibraryError::Unresolved(Unresolved::Unassigned { role })) if LIKE_DEFAULT.contains(&&*role) => {
                self.locate_default()
            }
            Err(LibraryError::Unresolved(Unresolved::Unknown { .. })) if wanted.or_default => self.locate_default(),
            other => other,
        }
    }

    /// What plays `default`: what the owner said, or the embedded model.
    fn locate_default(&self) -> Result<Located, LibraryError> {
        match self.library.resolve(Role::DEFAULT) {
            Err(LibraryError::Unresolved(Unresolved::Unassigned { .. } | Unresolved::Unknown { .. })) => {
                self.library.resolve(locara_models::EMBEDDED_NAME)
            }
            other => other,
        }
    }

    /// Reads the header of a model and plans it for this machine, as its owner set it. Blocks.
    pub(crate) fn plan(&self, located: Located) -> Result<Found, FindError> {
        let Located { file, settings, .. } = located;
        let shape = model_shape(&Gguf::open(&file.path)?)?;
        let derived = defaults(&self.machine, Some(&shape));
        let request = set(derived.request(), &settings, self.max_sequences);
        let plan = plan(&shape, &request)?;
        Ok(Found { file, settings, shape, derived, request, plan })
    }
}

/// The derived request with what the owner wants otherwise.
fn set(mut request: PlanRequest, settings: &ModelSettings, max_sequences: Option<u32>) -> PlanRequest {
    request.n_ctx = settings.context.unwrap_or(request.n_ctx);
    if let Some(n) = settings.max_sequences.or(max_sequences) {
        request.n_seq_max = n;
        request.n_outputs_max = n;
    }
    if let Some(kv) = &settings.kv {
        (request.type_k, request.type_v) = (kv_type(kv.keys), kv_type(kv.values));
        request.flash_attention |= request.type_v.is_quantised();
    }
    request
}

fn kv_type(kv: KvCacheType) -> KvType {
    // The registry knows the names of the types that the engine has; both lists are tested against each other.
    kv.as_str().parse().unwrap_or(KvType::F16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kv_type_of_the_registry_is_one_of_the_engine() {
        for kv in KvCacheType::ALL {
            assert_eq!(kv.as_str().parse::<KvType>().map(|parsed| parsed.to_string()), Ok(kv.as_str().to_owned()));
        }
    }
}

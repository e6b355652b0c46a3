//! Model files that other programs or a person put on this machine: found without reading them, used where they are.

mod gguf;
mod hugging_face;
mod llama_cpp;
mod ollama;
mod places;
mod walk;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use locara_gguf::GgufError;
use locara_manifest::{Digest, ModelName, ModelPart, Source, SourceKind};
use tokio_util::sync::CancellationToken;

use crate::{
    digest::digest_of_model,
    error::LibraryError,
    library::{Library, ModelState},
    progress::{Meter, OnProgress, Stage},
    split::parts_of,
};

pub(crate) use gguf::check;
pub use ollama::OllamaLayers;
pub use places::Places;
pub(crate) use walk::is_model_name;

/// A model on this machine that may be imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Whose it is, and how it is called there.
    pub source: Source,
    /// What it would be called here.
    pub name: ModelName,
    /// Its files, in order.
    pub files: Vec<PathBuf>,
    /// Bytes of those that are there.
    pub bytes: u64,
    /// What the registry calls it, if it knows a file of this path or of the digest that its owner claims.
    pub known: Option<ModelName>,
    /// Parts that are not there. It cannot be imported then.
    pub missing: Vec<PathBuf>,
    /// The digest that its owner claims. It is not believed: importing hashes the file.
    pub claimed: Option<Digest>,
    /// What Ollama knows beside the weights.
    pub ollama: Option<OllamaLayers>,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The digest of the model.
    pub digest: Digest,
    /// What answers call it.
    pub name: ModelName,
    /// Bytes of all files.
    pub bytes: u64,
    /// Whether the registry knew it already.
    pub known: bool,
}

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nothing is there.
    #[error("there is nothing at {}; is the volume attached?", .0.display())]
    Missing(PathBuf),
    /// A folder without models.
    #[error("there is no GGUF file in {} or the folders below it, {} levels deep", .0.display(), walk::MAX_DEPTH)]
    Empty(PathBuf),
    /// Parts of a split model are missing.
    #[error("{} of {} parts of {name} are missing, the first is {}; download them, or import the folder that has them all", .missing.len(), .parts, .missing.first().map(|path| path.display().to_string()).unwrap_or_default())]
    Incomplete {
        /// The model.
        name: ModelName,
        /// How many parts it has.
        parts: usize,
        /// Those that are not there.
        missing: Vec<PathBuf>,
    },
    /// Not a GGUF file that the engine may see.
    #[error("{} is no model that can be used", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// A part that belongs to another model.
    #[error("{} calls itself part {found} and its name says part {expected}; the parts are of different models or misnamed", path.display())]
    WrongPart {
        /// The file.
        path: PathBuf,
        /// What its metadata says, as `2 of 3`.
        found: String,
        /// What its name says.
        expected: String,
    },
    /// A part of something else that no text comes from.
    #[error("{} is no language model but a {what}; import the model that it belongs to", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A path that a registry, which is text, cannot hold.
    #[error("the path {} is not UTF-8, and the registry is; rename the file or its folder", .0.display())]
    PathNotText(PathBuf),
    /// The OS says no.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The registry or the store.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

impl Library {
    /// Every model that other programs have on this machine, and those in the owner's folders, by name. Nothing is hashed;
    /// what cannot be read is left out.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn discover(&self, places: &Places) -> Result<Vec<Found>, LibraryError> {
        let mut all = Vec::new();
        all.extend(places.ollama.iter().flat_map(|folder| ollama::scan(folder)));
        all.extend(places.lm_studio.iter().flat_map(|folder| walk::scan(folder, SourceKind::LmStudio)));
        all.extend(places.hugging_face.iter().flat_map(|folder| hugging_face::scan(folder, SourceKind::HuggingFace)));
        all.extend(places.llama_cpp.iter().flat_map(|folder| llama_cpp::scan(folder)));
        all.extend(places.folders.iter().flat_map(|folder| walk::scan(folder, SourceKind::File)));
        self.mark_known(&mut all)?;
        // A file may have several names, and a folder of the owner may hold that of another program: the first name counts.
        let mut seen = BTreeSet::new();
        all.retain(|found| seen.insert(found.files.clone()));
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// The models at a path: a file, all parts of the model that a file is a part of, or everything below a folder.
    ///
    /// # Errors
    /// Nothing is there, or no model.
    pub fn look_at(&self, path: &Path) -> Result<Vec<Found>, ImportError> {
        let path = std::path::absolute(path).map_err(|source| ImportError::Io { path: path.to_owned(), source })?;
        let metadata = match fs_err::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ImportError::Missing(path)),
            Err(source) => return Err(ImportError::Io { path, source }),
        };
        let mut found = if metadata.is_dir() {
            walk::scan(&path, SourceKind::File)
        } else {
            vec![at_file(&path, SourceKind::File, None)]
        };
        if found.is_empty() {
            return Err(ImportError::Empty(path));
        }
        self.mark_known(&mut found)?;
        Ok(found)
    }

    fn mark_known(&self, all: &mut [Found]) -> Result<(), LibraryError> {
        let registry = self.registry().load()?;
        for found in all {
            let by_path = registry.models.values().find(|model| {
                let paths = model.files.iter().map(|part| part.path.as_deref().map(Path::new));
                paths.eq(found.files.iter().map(|file| Some(file.as_path())))
            });
            let by_digest = found.claimed.as_ref().and_then(|digest| registry.models.get(digest));
            found.known = by_path.or(by_digest).map(|model| model.name.clone());
        }
        Ok(())
    }

    /// Enters a model into the registry. Its files stay where they are and are hashed, a gigabyte in about a second, unless
    /// they were before.
    ///
    /// # Errors
    /// [`ImportError`]. Nothing was changed then.
    pub fn import(
        &self,
        found: &Found,
        on_progress: &OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Imported, ImportError> {
        if !found.missing.is_empty() {
            let (name, parts, missing) = (found.name.clone(), found.files.len(), found.missing.clone());
            return Err(ImportError::Incomplete { name, parts, missing });
        }
        gguf::check(&found.files)?;
        let meter = Meter::new(found.bytes, Stage::Verifying, on_progress);
        let mut parts = Vec::with_capacity(found.files.len());
        for path in &found.files {
            let text = path.to_str().ok_or_else(|| ImportError::PathNotText(path.clone()))?;
            let hashed = self.store().digest_of_file(path, &mut |bytes| meter.advance(bytes), cancel);
            let (digest, bytes) = match hashed {
                Err(_) if cancel.is_cancelled() => return Err(LibraryError::Cancelled.into()),
                Err(source) => return Err(ImportError::Io { path: path.clone(), source }),
                Ok(hashed) => hashed,
            };
            let sha256 = digest.parse().expect("what was computed is a digest");
            parts.push(ModelPart { sha256, bytes, path: Some(text.to_owned()) });
        }
        meter.finish();
        let digest = digest_of_model(&parts.iter().map(|part| part.sha256.clone()).collect::<Vec<_>>());
        let bytes = parts.iter().map(|part| part.bytes).sum();
        let known = self.registry().load().map_err(LibraryError::from)?.models.get(&digest).cloned();
        // The store's own copy is the safer one: nobody else deletes it.
        let owned = known.as_ref().is_some_and(|model| {
            model.files.iter().all(|part| part.path.is_none()) && self.state(&digest, model) == ModelState::Ready
        });
        let name = match &known {
            Some(model) if owned => model.name.clone(),
            _ => self.enter(&digest, &found.name, parts, found.source.clone())?,
        };
        Ok(Imported { digest, name, bytes, known: known.is_some() })
    }
}

/// The model that a file is, or is a part of. `name` is what its owner calls it; otherwise the file's.
pub(super) fn at_file(path: &Path, kind: SourceKind, name: Option<&str>) -> Found {
    let files = parts_of(path);
    let stem = |path: &Path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match crate::split::PartName::parse(&file) {
            Some(part) => part.prefix,
            None => file.strip_suffix(".gguf").unwrap_or(&file).to_owned(),
        }
    };
    let name = name.map_or_else(|| stem(path), str::to_owned);
    let (mut bytes, mut missing) = (0, Vec::new());
    for file in &files {
        match fs_err::metadata(file) {
            Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
            _ => missing.push(file.clone()),
        }
    }
    let source_name = if kind == SourceKind::File { path.display().to_string() } else { name.clone() };
    Found {
        source: Source { kind, name: printable(&source_name), revision: None },
        name: ModelName::from_text(&name),
        files,
        bytes,
        known: None,
        missing,
        claimed: None,
        ollama: None,
    }
}

/// A name as a registry takes it: on one line, of at most 2048 characters.
pub(crate) fn printable(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).take(2048).collect();
    if name.trim().is_empty() { "?".to_owned() } else { name }
}

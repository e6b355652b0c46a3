//! Where other programs keep their models.

use std::{ffi::OsString, path::PathBuf};

/// Folders that are looked into. They need not be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Ollama's: `manifests` and `blobs`.
    pub ollama: Vec<PathBuf>,
    /// LM Studio's: `publisher/repository/file.gguf`.
    pub lm_studio: Vec<PathBuf>,
    /// Caches of Hugging Face's libraries.
    pub hugging_face: Vec<PathBuf>,
    /// Caches of llama.cpp.
    pub llama_cpp: Vec<PathBuf>,
    /// The owner's own, from the configuration.
    pub folders: Vec<PathBuf>,
}

impl Places {
    /// Where the programs look themselves: in the folders that their environment variables name, or else in their usual
    /// ones. `variable` reads an environment variable, `folders` are the owner's own.
    #[must_use]
    pub fn usual(variable: impl Fn(&str) -> Option<OsString>, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = named("HOME");
        let at_home = |below: &str| home.as_ref().map(|home| home.join(below));
        let caches = named("XDG_CACHE_HOME").or_else(|| at_home(".cache"));

        let ollama = match named("OLLAMA_MODELS") {
            Some(folder) => vec![folder],
            // The second one is that of the Linux service, which runs as a user of its own.
            None => [at_home(".ollama/models"), Some("/usr/share/ollama/.ollama/models".into())]
                .into_iter()
                .flatten()
                .collect(),
        };
        // LM Studio notes in a file where its home was moved to.
        let pointer = at_home(".lmstudio-home-pointer").and_then(|file| fs_err::read_to_string(file).ok());
        let moved = pointer.map(|text| PathBuf::from(text.trim())).filter(|path| path.is_absolute());
        let lm_studio =
            [moved.map(|path| path.join("models")), at_home(".lmstudio/models"), at_home(".cache/lm-studio/models")];
        let hugging_face = named("HF_HUB_CACHE")
            .or_else(|| named("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| named("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| caches.as_ref().map(|caches| caches.join("huggingface/hub")));
        let llama_cpp = named("LLAMA_CACHE").map_or_else(
            || vec![caches.map(|caches| caches.join("llama.cpp")), at_home("Library/Caches/llama.cpp")],
            |folder| vec![Some(folder)],
        );
        let mut places = Self {
            ollama,
            lm_studio: lm_studio.into_iter().flatten().collect(),
            hugging_face: hugging_face.into_iter().collect(),
            llama_cpp: llama_cpp.into_iter().flatten().collect(),
            folders: folders.into_iter().collect(),
        };
        places.lm_studio.dedup();
        places
    }
}

//! The kinds of files that this crate reads, and what their reports say differently.

/// What a text is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// `locara.json` of an app: written by strangers.
    Manifest,
    /// `registry.json`: which model plays which role. Written by the host, read and mended by its owner.
    Registry,
    /// `locara.toml`: the settings of the host, written by its owner.
    Config,
}

impl Document {
    /// How a sentence calls it, without the article.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Registry => "registry",
            Self::Config => "configuration",
        }
    }

    /// Its part of the codes: `locara::registry::unknown_key`.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Registry => "registry",
            Self::Config => "config",
        }
    }

    /// Largest file that is read, in bytes.
    pub(crate) fn max_bytes(self) -> usize {
        match self {
            Self::Manifest => crate::MAX_BYTES,
            Self::Registry => crate::registry::MAX_BYTES,
            Self::Config => crate::config::MAX_BYTES,
        }
    }

    /// What such a file really has, as the reason for the largest size.
    pub(crate) fn why_max_bytes(self) -> &'static str {
        match self {
            Self::Manifest => "a real manifest has a few thousand bytes, and the host reads strangers' files with care",
            Self::Registry => "a model takes less than a thousand bytes of it, so this is some other file",
            Self::Config => "a real configuration has a few thousand bytes, so this is some other file",
        }
    }

    /// What to do about a file that is too large.
    pub(crate) fn fix_max_bytes(self) -> &'static str {
        match self {
            Self::Manifest => "move data out of the manifest into files of the app",
            Self::Registry | Self::Config => "put the right file here, or remove it; the host starts without one",
        }
    }

    /// What to do about an empty file.
    pub(crate) fn fix_empty(self) -> &'static str {
        match self {
            Self::Manifest => {
                "start from an example: `{\"$schema\": …, \"manifestVersion\": 1, …}`; manifests/examples has some"
            }
            // An empty configuration is a good one, so this is about registries only.
            Self::Registry | Self::Config => "remove the file, or write `{\"registryVersion\": 1, \"models\": {}}`",
        }
    }

    /// The language that reports are coloured in.
    pub(crate) fn language(self) -> &'static str {
        if self.is_toml() { "toml" } else { "json" }
    }

    pub(crate) fn is_toml(self) -> bool {
        self == Self::Config
    }

    /// What a key's value is called that holds keys itself, with its article.
    pub(crate) fn object(self) -> &'static str {
        if self.is_toml() { "a table" } else { "an object" }
    }

    /// `key` and the example of its value as the language writes them.
    pub(crate) fn pair(self, key: &str, example: &str) -> String {
        if self.is_toml() { format!("{key} = {example}") } else { format!("\"{key}\": {example}") }
    }
}

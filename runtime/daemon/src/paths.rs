//! Where the host keeps its state.
//!
//! `LOCARA_HOME` puts everything under one folder; otherwise the platform's own places: XDG on Linux, `~/Library` on macOS.

use std::path::{Path, PathBuf};

use crate::{exit::Exit, failure::Failure};

/// The host's folders. They are made when something is written.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
}

impl Paths {
    /// From the environment.
    pub(crate) fn find() -> Result<Self, Failure> {
        if let Some(home) = std::env::var_os("LOCARA_HOME").filter(|home| !home.is_empty()) {
            let home = PathBuf::from(home);
            return Ok(Self { config: home.clone(), cache: home.join("cache"), data: home });
        }
        directories::ProjectDirs::from("org", "locara", "locara")
            .map(|dirs| Self {
                config: dirs.config_dir().to_owned(),
                data: dirs.data_dir().to_owned(),
                cache: dirs.cache_dir().to_owned(),
            })
            .ok_or_else(|| {
                Failure::new(Exit::Failure, "there is no home folder to keep state in")
                    .help("set HOME, or LOCARA_HOME to a folder of your choice")
            })
    }

    /// What the owner writes: `locara.toml`.
    pub(crate) fn config(&self) -> PathBuf {
        self.config.join(locara_manifest::CONFIG_FILE_NAME)
    }

    /// API keys, as digests.
    pub(crate) fn keys(&self) -> PathBuf {
        self.data.join("keys.json")
    }

    /// All state.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Installed apps, one folder each.
    pub(crate) fn apps(&self) -> PathBuf {
        self.data.join("apps")
    }

    /// What apps keep for themselves.
    pub(crate) fn storage(&self) -> PathBuf {
        self.data.join("storage")
    }

    /// Model files.
    pub(crate) fn models(&self) -> PathBuf {
        self.data.join("models")
    }

    /// Which models there are, and which of them plays which role.
    pub(crate) fn registry(&self) -> PathBuf {
        self.data.join("registry.json")
    }

    /// Sockets of running hosts.
    pub(crate) fn hosts(&self) -> PathBuf {
        self.data.join("hosts")
    }

    /// States of sessions that gave their memory back; worthless once their host has ended.
    pub(crate) fn spill(&self) -> PathBuf {
        self.cache.join("sessions")
    }

    /// What was learned about predictions.
    pub(crate) fn corrections(&self) -> PathBuf {
        self.data.join("corrections.json")
    }

    /// Compiled components: may be deleted at any time.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.cache.join("compiled")
    }
}

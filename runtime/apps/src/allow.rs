//! What one app may do: its manifest ∧ the owner's grants, and the words of a refusal.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use locara_manifest::{Access, Class, Grant, Grants, HostPattern, Limits, Manifest};
use url::Url;

use crate::report::Denied;

/// A granted folder, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    /// As the manifest spells it, e.g. `~/Documents`.
    pub(crate) name: String,
    /// On this machine.
    pub(crate) path: PathBuf,
    pub(crate) write: bool,
}

/// The rights of one app. Fixed while it is prepared; a change of grants prepares it anew.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    pub(crate) app: Arc<str>,
    pub(crate) class: Class,
    pub(crate) limits: Limits,
    pub(crate) folders: Vec<Folder>,
    pub(crate) storage_quota: Option<u64>,
    asked: Grants,
    granted: Grants,
    max_tokens: HashMap<String, u32>,
}

impl Allowed {
    /// `home` is what `~` stands for.
    pub(crate) fn new(manifest: &Manifest, grants: &Grants, home: &std::path::Path) -> Self {
        let granted = grants.within(manifest);
        let mut limits = manifest.limits();
        limits.memory_bytes = limits.memory_bytes.min(granted.memory_bytes());
        let folders = granted.folders.iter().map(|folder| Folder {
            name: folder.path.as_str().to_owned(),
            path: folder.path.resolve(home),
            write: folder.access == Access::Write,
        });
        let max_tokens =
            manifest.models.iter().filter_map(|model| Some((model.role.as_str().to_owned(), model.max_tokens?)));
        Self {
            app: manifest.id.as_str().into(),
            class: manifest.class,
            limits,
            folders: folders.collect(),
            storage_quota: manifest.capabilities.storage.filter(|_| granted.storage).map(|ask| ask.quota_bytes()),
            max_tokens: max_tokens.collect(),
            asked: Grants::ask(manifest),
            granted,
        }
    }

    /// The manifest's bound on answers of a role, tokens.
    pub(crate) fn max_tokens(&self, role: &str) -> Option<u32> {
        self.max_tokens.get(role).copied()
    }

    /// Whether the app may hold any memory at all.
    pub(crate) fn check_memory(&self) -> Result<(), Denied> {
        match self.asked.list().into_iter().find(|grant| matches!(grant, Grant::Memory(_))) {
            Some(asked) if self.granted.memory_mb == 0 => Err(self.not_granted(&asked)),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_role(&self, role: &str) -> Result<(), Denied> {
        if self.granted.models.iter().any(|granted| granted.as_str() == role) {
            return Ok(());
        }
        match self.asked.models.iter().find(|asked| asked.as_str() == role) {
            Some(asked) => Err(self.not_granted(&Grant::Model(asked.clone()))),
            None => Err(not_asked("models", format!("the role `{}`", bounded(role)), r#"`{"role": "…"}`"#)),
        }
    }

    pub(crate) fn check_tool(&self, tool: &str) -> Result<(), Denied> {
        if self.granted.tools.iter().any(|granted| granted.as_str() == tool) {
            return Ok(());
        }
        match self.asked.tools.iter().find(|asked| asked.as_str() == tool) {
            Some(asked) => Err(self.not_granted(&Grant::Tool(asked.clone()))),
            None => Err(not_asked("capabilities.tools", format!("the tool `{}`", bounded(tool)), "its name")),
        }
    }

    /// The pattern that allows a request, for what it says about private addresses.
    pub(crate) fn check_url(&self, url: &Url) -> Result<&HostPattern, Denied> {
        if let Some(pattern) = self.granted.http.iter().find(|pattern| pattern.matches(url)) {
            return Ok(pattern);
        }
        let origin = bounded(&url.origin().ascii_serialization());
        match self.asked.http.iter().find(|pattern| pattern.matches(url)) {
            Some(asked) => Err(self.not_granted(&Grant::Http(asked.clone()))),
            None => Err(not_asked(
                "capabilities.http",
                format!("requests to `{origin}`"),
                &format!("`\"{origin}\"` to its `hosts`"),
            )),
        }
    }

    /// A folder that nobody granted, or granted for reading only.
    pub(crate) fn folder_denied(&self, path: &str, write: bool) -> Denied {
        let act = if write { "writing" } else { "reading" };
        let asked = self.asked.folders.iter().find(|asked| {
            let asked_for_this = path == asked.path.as_str() || path.starts_with(&format!("{}/", asked.path.as_str()));
            asked_for_this && (!write || asked.access == Access::Write)
        });
        match asked {
            Some(asked) => self.not_granted(&Grant::Folder(asked.clone())),
            None => {
                not_asked("capabilities.folders", format!("{act} `{}`", bounded(path)), "the folder and its `access`")
            }
        }
    }

    /// Whether an interface of the WIT may be linked: whether anything of it is granted.
    pub(crate) fn check_interface(&self, interface: Interface) -> Result<(), Denied> {
        let of = |grants: &Grants| {
            grants.list().into_iter().find(|grant| match interface {
                Interface::Inference => matches!(grant, Grant::Model(_)),
                Interface::Storage => matches!(grant, Grant::Storage),
                Interface::Files => matches!(grant, Grant::Folder(_)),
                Interface::Http => matches!(grant, Grant::Http(_)),
                Interface::Free => true,
            })
        };
        if interface == Interface::Free || of(&self.granted).is_some() {
            return Ok(());
        }
        match of(&self.asked) {
            Some(asked) => Err(self.not_granted(&asked)),
            None => Err(match interface {
                Interface::Inference => not_asked("models", "any model".to_owned(), r#"`{"role": "default"}`"#),
                Interface::Storage => not_asked("capabilities.storage", "storage".to_owned(), r#"`{"quotaMB": 10}`"#),
                Interface::Files => {
                    not_asked("capabilities.folders", "any folder".to_owned(), "the folders and their `access`")
                }
                Interface::Http | Interface::Free => {
                    not_asked("capabilities.http", "any host".to_owned(), "the `hosts`")
                }
            }),
        }
    }

    fn not_granted(&self, grant: &Grant) -> Denied {
        Denied {
            capability: grant.manifest_key().to_owned(),
            reason: format!("the manifest asks for `{grant}`, the owner of this machine did not grant it"),
            remedy: format!("Grant it: `locara grants {} --add '{grant}'`", self.app),
        }
    }
}

/// An interface of the WIT, by what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    /// Needs a role.
    Inference,
    /// Needs storage.
    Storage,
    /// Needs a folder.
    Files,
    /// Needs a host.
    Http,
    /// Every app may have it: budget, log, progress, clock, randomness, its own input and output.
    Free,
}

fn not_asked(key: &str, what: String, add: &str) -> Denied {
    Denied {
        capability: key.to_owned(),
        reason: format!("the manifest does not ask for {what}"),
        remedy: format!("Add {add} to `{key}` in locara.json, then install the app again"),
    }
}

/// A guest's text in a message of ours.
fn bounded(text: &str) -> String {
    crate::report::presentable(text, 200).replace('\n', " ")
}

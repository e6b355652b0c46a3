//! What the owner of the machine allowed an app, next to what its manifest asks.
//!
//! An app can do what the manifest asks *and* the owner granted: [`Grants::within`]. The default is nothing. This module
//! never decides whether to ask the owner and never stores anything.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::limits::MB;
use crate::text::{grouped, quoted};
use crate::{Access, FolderAsk, FolderPath, HostPattern, Invalid, Manifest, Role, ToolName};

/// One thing that an owner can allow, in the spelling of the command line:
///
/// | spelling | allows |
/// | --- | --- |
/// | `model:default` | to talk to the model of a role |
/// | `memory:4GB`, `memory:500MB` | to hold that much memory |
/// | `storage` | to keep data of its own, inside the manifest's quota |
/// | `http:https://api.example.com` | to send requests to the hosts of a [`HostPattern`] |
/// | `folder:~/Documents:read` | to read, or with `write` also to write, below a folder |
/// | `tool:get_weather` | to offer a tool to a model |
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grant {
    /// The model of a role.
    Model(Role),
    /// Memory, in MB (10⁶ bytes).
    Memory(u32),
    /// A store of the app's own.
    Storage,
    /// Hosts.
    Http(HostPattern),
    /// A folder.
    Folder(FolderAsk),
    /// A tool.
    Tool(ToolName),
}

impl Grant {
    /// The manifest key that asks for it.
    #[must_use]
    pub fn manifest_key(&self) -> &'static str {
        match self {
            Self::Model(_) => "models",
            Self::Memory(_) => "requires.memoryGB",
            Self::Storage => "capabilities.storage",
            Self::Http(_) => "capabilities.http",
            Self::Folder(_) => "capabilities.folders",
            Self::Tool(_) => "capabilities.tools",
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(role) => write!(f, "model:{role}"),
            Self::Memory(mb) if mb % 1000 == 0 => write!(f, "memory:{}GB", mb / 1000),
            Self::Memory(mb) => write!(f, "memory:{mb}MB"),
            Self::Storage => f.write_str("storage"),
            Self::Http(hosts) => write!(f, "http:{hosts}"),
            Self::Folder(folder) => write!(f, "folder:{}:{}", folder.path, folder.access.as_str()),
            Self::Tool(name) => write!(f, "tool:{name}"),
        }
    }
}

impl FromStr for Grant {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const FORMS: &str = "write `model:ROLE`, `memory:4GB`, `storage`, `http:HOST`, `folder:PATH:read`, `folder:PATH:write` or `tool:NAME`";
        let bad = || Invalid::new(format!("{} is not a grant", quoted(text)), "", FORMS);
        if text == "storage" {
            return Ok(Self::Storage);
        }
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        Ok(match kind {
            "model" => Self::Model(rest.parse()?),
            "memory" => Self::Memory(memory_mb(rest)?),
            "http" => Self::Http(rest.parse()?),
            "tool" => Self::Tool(rest.parse()?),
            "folder" => {
                let (path, access) = match rest.rsplit_once(':') {
                    Some((path, "read")) => (path, Access::Read),
                    Some((path, "write")) => (path, Access::Write),
                    _ => {
                        let message = format!("{} does not say what may be done there", quoted(text));
                        return Err(Invalid::new(message, "", "end it with `:read` or `:write`"));
                    }
                };
                Self::Folder(FolderAsk { path: path.parse::<FolderPath>()?, access })
            }
            _ => return Err(bad()),
        })
    }
}

/// Reads `4GB`, `2.5GB` or `500MB`; fractions of a MB are rounded up.
fn memory_mb(text: &str) -> Result<u32, Invalid> {
    let (digits, scale) = match (text.strip_suffix("GB"), text.strip_suffix("MB")) {
        (Some(digits), _) => (digits, 1000.0),
        (None, Some(digits)) => (digits, 1.0),
        (None, None) => ("", 1.0),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match digits.parse::<f64>().map(|figure| (figure * scale).ceil()) {
        Ok(mb) if plain && (1.0..=MAX_MEMORY_MB).contains(&mb) => Ok(mb as u32), // in range: checked in this line
        _ => Err(Invalid::new(
            format!("{} is not an amount of memory", quoted(text)),
            "",
            "write a number and its unit, from `1MB` to `1024GB`",
        )),
    }
}

/// The most memory that a manifest can ask or an owner grant.
const MAX_MEMORY_MB: f64 = 1_024_000.0;

/// One thing that a manifest asks for, as a prompt or a refusal shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// What would have to be granted.
    pub grant: Grant,
    /// The manifest key that asks.
    pub key: &'static str,
    /// What the app could do with it: a sentence for a person, without a full stop, about "the app".
    pub sentence: String,
}

/// What the owner allowed one app. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Grants {
    /// Roles whose models the app may talk to.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub models: BTreeSet<Role>,
    /// Memory that the app may hold, in MB (10⁶ bytes).
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    /// Whether the app may keep data of its own.
    pub storage: bool,
    /// Hosts that the app may reach.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<HostPattern>,
    /// Folders that the app may read or write.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub folders: BTreeSet<FolderAsk>,
    /// Tools that the app may offer a model.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<ToolName>,
}

impl Grants {
    /// Everything that a manifest asks, as if all of it were granted.
    #[must_use]
    pub fn ask(manifest: &Manifest) -> Self {
        let capabilities = &manifest.capabilities;
        Self {
            models: manifest.models.iter().map(|model| model.role.clone()).collect(),
            memory_mb: asked_mb(manifest),
            storage: capabilities.storage.is_some(),
            http: capabilities.http.iter().flat_map(|http| &http.hosts).cloned().collect(),
            folders: capabilities.folders.iter().cloned().collect(),
            tools: capabilities.tools.iter().cloned().collect(),
        }
    }

    /// What is asked but not granted, in the order of [`Self::list`].
    #[must_use]
    pub fn missing(&self, manifest: &Manifest) -> Vec<Ask> {
        Self::asks(manifest).into_iter().filter(|ask| !self.allows(&ask.grant)).collect()
    }

    /// Everything that a manifest asks, each with its key and a sentence: what an installer shows.
    #[must_use]
    pub fn asks(manifest: &Manifest) -> Vec<Ask> {
        let ask = |grant: Grant| Ask { key: grant.manifest_key(), sentence: sentence(&grant, manifest), grant };
        Self::ask(manifest).list().into_iter().map(ask).collect()
    }

    /// What the app can do: asked by the manifest and granted by the owner. Where one side is narrower, it wins.
    #[must_use]
    pub fn within(&self, manifest: &Manifest) -> Self {
        let asked = Self::ask(manifest);
        let narrow = |own: &Self, other: &Self| {
            let list = own.list().into_iter().filter(|grant| other.allows(grant));
            list.collect::<Vec<_>>()
        };
        let mut both = Self::default();
        for grant in narrow(&asked, self).into_iter().chain(narrow(self, &asked)) {
            both.allow(grant);
        }
        both.memory_mb = self.memory_mb.min(asked.memory_mb);
        both
    }

    /// Whether everything that `grant` stands for is granted; a wider grant covers a narrower one.
    #[must_use]
    pub fn allows(&self, grant: &Grant) -> bool {
        match grant {
            Grant::Model(role) => self.models.contains(role),
            Grant::Memory(mb) => *mb <= self.memory_mb,
            Grant::Storage => self.storage,
            Grant::Http(hosts) => self.http.iter().any(|granted| granted.covers(hosts)),
            Grant::Folder(folder) => {
                self.folders.iter().any(|own| own.access >= folder.access && own.path.covers(&folder.path))
            }
            Grant::Tool(name) => self.tools.contains(name),
        }
    }

    /// Whether a request to `url` is granted.
    #[must_use]
    pub fn allows_url(&self, url: &Url) -> bool {
        self.http.iter().any(|granted| granted.matches(url))
    }

    /// Memory that the app may hold, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mb) * MB
    }

    /// Adds one grant; memory is set to the new figure. Returns whether anything changed.
    pub fn allow(&mut self, grant: Grant) -> bool {
        match grant {
            Grant::Model(role) => self.models.insert(role),
            Grant::Memory(mb) => std::mem::replace(&mut self.memory_mb, mb) != mb,
            Grant::Storage => !std::mem::replace(&mut self.storage, true),
            Grant::Http(hosts) => self.http.insert(hosts),
            Grant::Folder(folder) => self.folders.insert(folder),
            Grant::Tool(name) => self.tools.insert(name),
        }
    }

    /// Takes back one grant as it was given; any figure of memory takes back all memory. Returns whether anything changed.
    pub fn revoke(&mut self, grant: &Grant) -> bool {
        match grant {
            Grant::Model(role) => self.models.remove(role),
            Grant::Memory(_) => std::mem::take(&mut self.memory_mb) != 0,
            Grant::Storage => std::mem::take(&mut self.storage),
            Grant::Http(hosts) => self.http.remove(hosts),
            Grant::Folder(folder) => self.folders.remove(folder),
            Grant::Tool(name) => self.tools.remove(name),
        }
    }

    /// The grants one by one: models, memory, storage, hosts, folders, tools; each kind sorted.
    #[must_use]
    pub fn list(&self) -> Vec<Grant> {
        let models = self.models.iter().cloned().map(Grant::Model);
        let memory = (self.memory_mb > 0).then_some(Grant::Memory(self.memory_mb));
        let storage = self.storage.then_some(Grant::Storage);
        let http = self.http.iter().cloned().map(Grant::Http);
        let folders = self.folders.iter().cloned().map(Grant::Folder);
        let tools = self.tools.iter().cloned().map(Grant::Tool);
        models.chain(memory).chain(storage).chain(http).chain(folders).chain(tools).collect()
    }
}

/// The ceiling of a manifest in MB, rounded up so that the grant never lies below it.
fn asked_mb(manifest: &Manifest) -> u32 {
    u32::try_from(manifest.requires.memory_bytes().div_ceil(MB)).unwrap_or(u32::MAX)
}

/// What the app could do with a grant.
fn sentence(grant: &Grant, manifest: &Manifest) -> String {
    match grant {
        Grant::Model(role) => {
            let model = manifest.model(role.as_str());
            let context =
                model.map(|model| format!(", with {} tokens of context", grouped(model.context_tokens().into())));
            let mut text = format!("talk to the model of the role `{role}`{}", context.unwrap_or_default());
            if let Some(draft) = model.and_then(|model| model.draft.as_ref()) {
                text += &format!(", sped up by the model of `{draft}`");
            }
            text
        }
        Grant::Memory(mb) if mb % 1000 == 0 => format!("hold up to {} GB of memory", grouped(u64::from(mb / 1000))),
        Grant::Memory(mb) => format!("hold up to {} MB of memory", grouped(u64::from(*mb))),
        Grant::Storage => match manifest.capabilities.storage {
            Some(storage) => format!("keep up to {} MB of its own data on disk", grouped(storage.quota_mb.into())),
            None => "keep data of its own on disk".to_owned(),
        },
        Grant::Http(hosts) => format!("send requests to {hosts} and read the answers"),
        Grant::Folder(FolderAsk { path, access: Access::Read }) => format!("read everything in {path}"),
        Grant::Folder(FolderAsk { path, access: Access::Write }) => format!("read, create and replace files in {path}"),
        Grant::Tool(name) => format!("offer the tool `{name}` to a model"),
    }
}

//! Checked names: once one of these exists, nobody needs to look at the text again.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

use crate::Invalid;
use crate::text::{grouped, nearest, quoted};

/// A newtype over checked text: made by `FromStr` only, so that reading it from JSON checks it as well.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $schema:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        text_serde!($name, $schema);
    };
}

/// Serde and JSON Schema of a type whose text form is `Display` and `FromStr`.
macro_rules! text_serde {
    ($name:ident, $schema:expr) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}
pub(crate) use text_serde;

checked_text! {
    /// Identity of an app for good: a reverse domain name in lower case, such as `org.example.summarize`.
    ///
    /// At least three parts of letters, digits and inner hyphens; at most 100 bytes. So it is safe as a file name.
    AppId,
    json_schema!({
        "type": "string",
        "minLength": 5,
        "maxLength": AppId::MAX_BYTES,
        "pattern": "^[a-z][a-z0-9]*(-+[a-z0-9]+)*(\\.[a-z0-9]+(-+[a-z0-9]+)*){2,}$"
    })
}

impl AppId {
    /// Longest id, in bytes.
    pub const MAX_BYTES: usize = 100;
}

impl FromStr for AppId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const WHY: &str =
            "the id names the app for good: its grants and its storage belong to it, and it is a folder name";
        let fix = || "write a domain of yours in reverse and the app's name, like `org.example.summarize`".to_owned();
        let bad = |message: String| Err(Invalid::new(message, WHY, fix()));
        if text.len() > Self::MAX_BYTES {
            return bad(format!(
                "the id is {} bytes long; at most {} are allowed",
                grouped(text.len() as u64),
                Self::MAX_BYTES
            ));
        }
        if let Some(c) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.')) {
            let lower = text.to_lowercase().replace('_', "-");
            // Only if it changed, or this would call itself for ever.
            let fix = if lower != text && lower.parse::<Self>().is_ok() {
                format!("write {}", quoted(&lower))
            } else {
                fix()
            };
            return Err(Invalid::new(
                format!("{} holds {}; an id holds only a–z, 0–9, `-` and `.`", quoted(text), quoted(&c.to_string())),
                WHY,
                fix,
            ));
        }
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() < 3 {
            return bad(format!("{} has {} of the three or more parts of an id", quoted(text), parts.len()));
        }
        if let Some(part) = parts.iter().find(|part| part.is_empty() || part.starts_with('-') || part.ends_with('-')) {
            return bad(format!(
                "the part {} of {} is empty or begins or ends with a hyphen",
                quoted(part),
                quoted(text)
            ));
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return bad(format!("{} does not begin with a letter", quoted(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

checked_text! {
    /// A capability alias that the registry resolves to a model: one of [`Role::BUILT_IN`] or a name that the owner made.
    ///
    /// A lower-case letter, then lower-case letters, digits and hyphens; at most 32 bytes.
    Role,
    json_schema!({
        "type": "string",
        "pattern": "^[a-z][a-z0-9-]{0,31}$",
        "anyOf": [
            {"enum": Role::BUILT_IN},
            {"description": "A role that the owner of the machine made."}
        ]
    })
}

impl Role {
    /// What apps use that do not care which model it is.
    pub const DEFAULT: &'static str = "default";
    /// For programming.
    pub const CODING: &'static str = "coding";
    /// For the shortest wait, at the price of quality.
    pub const QUICKEST: &'static str = "quickest";
    /// For calling tools reliably.
    pub const TOOL_CALLING: &'static str = "tool-calling";
    /// For vectors instead of text.
    pub const EMBEDDING: &'static str = "embedding";
    /// For ordering texts by how well they answer a question.
    pub const RERANK: &'static str = "rerank";
    /// The roles that every host knows.
    pub const BUILT_IN: [&'static str; 6] =
        [Self::DEFAULT, Self::CODING, Self::QUICKEST, Self::TOOL_CALLING, Self::EMBEDDING, Self::RERANK];

    /// Whether it is the role of vectors, which generates no text.
    #[must_use]
    pub fn is_embedding(&self) -> bool {
        self.0 == Self::EMBEDDING
    }

    /// Whether every host knows the role.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        Self::BUILT_IN.contains(&self.as_str())
    }
}

impl FromStr for Role {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = "`default`, `coding`, `quickest`, `tool-calling`, `embedding` or `rerank`";
        if Self::BUILT_IN.contains(&text) {
            return Ok(Self(text.to_owned()));
        }
        if text.contains(['/', ':', '@']) || text.to_ascii_lowercase().ends_with(".gguf") {
            return Err(Invalid::new(
                format!("{} names a model, not a role", quoted(text)),
                "apps name what they need, and the owner of the machine decides which model that is",
                format!("write a role: {known}"),
            ));
        }
        if let Some(role) = nearest(text, Self::BUILT_IN) {
            return Err(Invalid::new(
                format!("{} is not a role, but almost `{role}`", quoted(text)),
                "a made-up name so near to a built-in role is a typing error more often than a role",
                format!("write `{role}`"),
            ));
        }
        let mut chars = text.chars();
        let well_formed = chars.next().is_some_and(|c| c.is_ascii_lowercase())
            && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && text.len() <= 32;
        if !well_formed {
            return Err(Invalid::new(
                format!("{} is not a role", quoted(text)),
                "a role is a lower-case letter, then lower-case letters, digits and hyphens, 32 at most",
                format!("write {known}, or a role that the owner made"),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

checked_text! {
    /// Name of a tool that an app may offer a model: 1 to 64 letters, digits, `_` and `-`.
    ToolName,
    json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"})
}

impl FromStr for ToolName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
            return Err(Invalid::new(
                format!("{} is not a name of a tool", quoted(text)),
                "chat templates and their parsers agree only on letters, digits, `_` and `-`, 64 at most",
                "write a name like `get_weather`",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

checked_text! {
    /// SHA-256 of a file: 64 lower-case hexadecimal digits.
    Digest,
    json_schema!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
}

impl FromStr for Digest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(text.to_owned()));
        }
        let fault = match text.chars().find(|c| !c.is_ascii_hexdigit()) {
            Some(c) => format!("{} is no hexadecimal digit", quoted(&c.to_string())),
            None if text.len() != 64 => format!("it has {} digits", grouped(text.len() as u64)),
            None => "it has capital letters".to_owned(),
        };
        Err(Invalid::new(
            format!("this is not a SHA-256: {fault}"),
            "a digest is 64 lower-case hexadecimal digits; anything else matches no file",
            "run `locara pack`, which writes it, or remove the key until then",
        ))
    }
}

checked_text! {
    /// How people and programs call a model: 1 to 200 letters, digits and `.`, `_`, `-`, `:`, `/`, `@`, `+`, beginning
    /// with a letter or digit, such as `bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M`.
    ModelName,
    json_schema!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$"})
}

impl ModelName {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// The nearest good name: other characters become hyphens. `model` if nothing is left.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let good = |c: char| c.is_ascii_alphanumeric() || "._:/@+-".contains(c);
        let mut name: String = text.chars().map(|c| if good(c) { c } else { '-' }).collect();
        name.truncate(Self::MAX_BYTES); // ASCII only by now
        let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        Self(if name.is_empty() { "model".to_owned() } else { name.to_owned() })
    }

    /// The same name with `suffix` of good characters behind it, cut so that both fit.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let keep = self.0.len().min(Self::MAX_BYTES.saturating_sub(suffix.len()));
        Self::from_text(&format!("{}{suffix}", &self.0[..keep]))
    }
}

impl From<&Digest> for ModelName {
    fn from(digest: &Digest) -> Self {
        Self(digest.as_str().to_owned()) // 64 hexadecimal digits
    }
}

impl FromStr for ModelName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |message: String| {
            Err(Invalid::new(
                message,
                "clients send it, shells take it as a word, and it stands in addresses",
                format!("write {}", quoted(Self::from_text(text).as_str())),
            ))
        };
        if text.len() > Self::MAX_BYTES {
            let long = grouped(text.len() as u64);
            return bad(format!("the name is {long} bytes long; at most {} are allowed", Self::MAX_BYTES));
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"._:/@+-".contains(*c)) {
            return bad(format!("{} holds {}, which no name has", quoted(text), quoted(&c.to_string())));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return bad(format!("{} does not begin with a letter or digit", quoted(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

checked_text! {
    /// Path of a component, relative to the folder of its manifest: forward slashes, no `..`, ends in `.wasm`.
    ComponentPath,
    json_schema!({
        "type": "string",
        "maxLength": ComponentPath::MAX_BYTES,
        "pattern": "^(?!/)(?!([^/]*/)*\\.{0,2}/)[^\\\\:]*[^/\\\\:]\\.wasm$"
    })
}

impl ComponentPath {
    /// Longest path, in bytes.
    pub const MAX_BYTES: usize = 255;
}

impl FromStr for ComponentPath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fix = "write the path below the manifest's folder, like `app.wasm` or `dist/app.wasm`";
        let why = "an app is one folder: its manifest must not reach out of it";
        let bad = |message: String, why: &str| Err(Invalid::new(message, why, fix));
        if text.len() > Self::MAX_BYTES {
            let len = grouped(text.len() as u64);
            return bad(format!("the path is {len} bytes long; at most {} are allowed", Self::MAX_BYTES), "");
        }
        if text.starts_with('/') || text.contains(':') {
            return bad(format!("{} is not a relative path", quoted(text)), why);
        }
        if text.contains('\\') {
            return bad(format!("{} holds a backslash", quoted(text)), "a manifest means the same on every system");
        }
        if text.split('/').any(|part| part == "..") {
            return bad(format!("{} leaves the folder of the manifest with `..`", quoted(text)), why);
        }
        if text.split('/').any(|part| part.is_empty() || part == ".") {
            return bad(format!("{} has an empty part or `.`", quoted(text)), "one file has one spelling");
        }
        let stem = text.strip_suffix(".wasm").filter(|stem| !stem.is_empty() && !stem.ends_with('/'));
        if stem.is_none() {
            return bad(format!("{} does not end in `.wasm`", quoted(text)), "a component is a `.wasm` file");
        }
        if text.chars().any(crate::text::is_unprintable) {
            return bad(format!("{} holds a character that nobody can see", quoted(text)), "");
        }
        Ok(Self(text.to_owned()))
    }
}

/// The interface that a component was built for, such as `locara:app@0.1.0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WitPackage(semver::Version);

impl WitPackage {
    /// The package that apps are built for.
    pub const NAME: &'static str = "locara:app";
    /// The newest version that this host speaks. Older ones of the same `major.minor` are served as well.
    pub const NEWEST: semver::Version = semver::Version::new(0, 1, 0);

    /// The version.
    #[must_use]
    pub fn version(&self) -> &semver::Version {
        &self.0
    }
}

impl fmt::Display for WitPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", Self::NAME, self.0)
    }
}

impl FromStr for WitPackage {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let newest = Self::NEWEST;
        let fix = format!("write `{}@{newest}`", Self::NAME);
        let parsed = text.split_once('@').map(|(name, version)| (name, semver::Version::parse(version)));
        let Some((name, Ok(version))) = parsed else {
            let message = format!("{} is not a WIT package with a version", quoted(text));
            return Err(Invalid::new(message, "the host must know which interface the component speaks", fix));
        };
        if name != Self::NAME {
            let message = format!("{} is not the package of Locara apps", quoted(name));
            return Err(Invalid::new(message, format!("apps are built for `{}`", Self::NAME), fix));
        }
        // Drafts of a version (0.1.0-rc.1) were never frozen, so nobody can serve them.
        let frozen = version.pre.is_empty() && version.build.is_empty();
        if frozen && (version.major, version.minor) == (newest.major, newest.minor) && version <= newest {
            return Ok(Self(version));
        }
        let message =
            format!("this host does not speak `{}@{}`", Self::NAME, quoted(&version.to_string()).trim_matches('`'));
        if version > newest {
            let why = format!("it is newer than {newest}, the newest that this host knows");
            return Err(Invalid::new(
                message,
                why,
                format!("update Locara, or build the app for `{}@{newest}`", Self::NAME),
            ));
        }
        let why = format!("it serves the published versions of {}.{}", newest.major, newest.minor);
        Err(Invalid::new(message, why, format!("build the app for `{}@{newest}`", Self::NAME)))
    }
}

text_serde!(
    WitPackage,
    json_schema!({"type": "string", "pattern": "^locara:app@0\\.1\\.0$", "examples": ["locara:app@0.1.0"]})
);

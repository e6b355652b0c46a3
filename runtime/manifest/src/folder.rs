//! Folders of the user that an app asks for.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

use crate::Invalid;
use crate::names::text_serde;
use crate::text::{grouped, is_unprintable, quoted};

/// What an app may do in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Read files and list folders.
    Read,
    /// Read, and create or replace files.
    Write,
}

impl Access {
    /// The spellings, in the order of the variants.
    pub(crate) const NAMES: [&str; 2] = ["read", "write"];

    /// The spelling in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// One folder of the user, and what the app wants to do there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
pub struct FolderAsk {
    /// The folder: `~/Documents`, or an absolute path.
    pub path: FolderPath,
    /// `read`, or `write`, which includes reading.
    pub access: Access,
}

/// A folder in the spelling of a manifest: below the home folder (`~/Documents`) or absolute (`/srv/data`). It never has
/// `.`, `..`, an empty part or a slash at the end, and is never the whole home or disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FolderPath(String);

impl FolderPath {
    /// Longest path, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// The spelling of the manifest.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path on a machine whose user lives in `home`. Symlinks are not followed: who opens it must do that.
    #[must_use]
    pub fn resolve(&self, home: &Path) -> PathBuf {
        match self.0.strip_prefix("~/") {
            Some(below) => home.join(below),
            None => PathBuf::from(&self.0),
        }
    }

    /// Whether `other` is this folder or lies below it, by the text alone.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for FolderPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for FolderPath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fix = "write a folder like `~/Documents/invoices` or `/srv/data`";
        let bad = |message: String, why: &str| Err(Invalid::new(message, why, fix));
        if text.len() > Self::MAX_BYTES {
            let len = grouped(text.len() as u64);
            return bad(format!("the path is {len} bytes long; at most {} are allowed", Self::MAX_BYTES), "");
        }
        if matches!(text.trim_end_matches('/'), "" | "~") && !text.is_empty() {
            return bad(
                format!("{} is everything the user has", quoted(text)),
                "keys, mail and browser profiles lie there; a grant must be narrow enough to be understood",
            );
        }
        let Some(below) = text.strip_prefix("~/").or_else(|| text.strip_prefix('/')) else {
            return bad(
                format!("{} begins neither with `~/` nor with `/`", quoted(text)),
                "the owner must see which folder it is, wherever the host was started",
            );
        };
        if text.contains('\\') {
            return bad(format!("{} holds a backslash", quoted(text)), "a manifest means the same on every system");
        }
        if let Some(c) = text.chars().find(|c| matches!(c, '*' | '?' | '[' | ']' | '{' | '}')) {
            return bad(
                format!("{} holds {}: a folder is not a pattern", quoted(text), quoted(&c.to_string())),
                "a grant covers the folder with everything below it",
            );
        }
        if text.chars().any(is_unprintable) {
            return bad(format!("{} holds a character that nobody can see", quoted(text)), "");
        }
        if below.split('/').any(|part| matches!(part, "." | "..")) {
            return bad(
                format!("{} holds `.` or `..`", quoted(text)),
                "the folder that is granted must be the folder that is read",
            );
        }
        let below = below.trim_end_matches('/');
        if below.split('/').any(str::is_empty) {
            return bad(format!("{} has an empty part", quoted(text)), "one folder has one spelling");
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

text_serde!(
    FolderPath,
    json_schema!({
        "type": "string",
        "maxLength": FolderPath::MAX_BYTES,
        "pattern": "^~?(/(?!\\.{1,2}(/|$))[^/\\\\*?\\[\\]{}]+)+/*$",
        "examples": ["~/Documents", "/srv/data"]
    })
);

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FolderPath {
        text.parse().unwrap()
    }

    #[test]
    fn a_slash_at_the_end_changes_nothing() {
        assert_eq!(path("~/Documents/"), path("~/Documents"));
    }

    #[test]
    fn resolves_below_home_or_absolute() {
        let home = Path::new("/home/ada");
        assert_eq!(path("~/Documents/in").resolve(home), Path::new("/home/ada/Documents/in"));
        assert_eq!(path("/srv/data").resolve(home), Path::new("/srv/data"));
    }

    #[test]
    fn covers_itself_and_what_is_below_but_no_sibling() {
        assert!(path("~/Docs").covers(&path("~/Docs")));
        assert!(path("~/Docs").covers(&path("~/Docs/tax")));
        assert!(!path("~/Docs").covers(&path("~/Docs2")));
        assert!(!path("~/Docs/tax").covers(&path("~/Docs")));
    }

    #[test]
    fn refuses_what_is_too_wide_or_has_two_spellings() {
        for text in
            ["/", "~", "~/", "//", "", "Documents", "~ada/x", "~/a/../b", "~/a//b", "~/*.txt", "C:\\x", "~/a\u{0}"]
        {
            assert!(text.parse::<FolderPath>().is_err(), "{text:?} was accepted");
        }
    }
}

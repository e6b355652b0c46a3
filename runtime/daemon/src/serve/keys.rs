//! API keys as they are kept: a name, a digest and what it opens. The secret is shown once, when it is made.

use std::{fmt::Write as _, path::PathBuf};

use locara_api::{Key, Scope};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    exit::Exit,
    failure::{Failure, io},
    paths::Paths,
};

/// Bytes of randomness in a key.
const SECRET_BYTES: usize = 32;

/// One key in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    name: String,
    /// SHA-256 of the secret, lower-case hex.
    sha256: String,
    scopes: Vec<String>,
}

/// The keys of this host.
#[derive(Debug)]
pub(crate) struct Keys {
    path: PathBuf,
    keys: Vec<Kept>,
}

/// A key for people to read.
#[derive(Debug, Serialize)]
pub(crate) struct ShownKey<'a> {
    pub(crate) name: &'a str,
    pub(crate) scopes: &'a [String],
}

impl Keys {
    /// Reads the file; no file is no keys.
    pub(crate) fn open(paths: &Paths) -> Result<Self, Failure> {
        let path = paths.keys();
        let keys = match fs_err::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                Failure::new(Exit::Failure, format!("the keys in {} cannot be read", path.display()))
                    .because(error)
                    .help("restore the file, or delete it and make new keys with `locara key add NAME`")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io("read the keys", error)),
        };
        Ok(Self { path, keys })
    }

    /// Makes a key and returns its secret, which is not kept.
    pub(crate) fn add(&mut self, name: &str, scopes: &[Scope]) -> Result<String, Failure> {
        if self.keys.iter().any(|key| key.name == name) {
            return Err(Failure::new(Exit::Failure, format!("there is a key `{name}` already"))
                .help(format!("`locara key rm {name}` removes it")));
        }
        let mut random = [0; SECRET_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::new(Exit::Failure, "the system gives no random numbers").because(error))?;
        let secret = format!("sk-locara-{}", hex(&random));
        let scopes = scopes.iter().map(|scope| scope.word().to_owned()).collect();
        self.keys.push(Kept { name: name.to_owned(), sha256: hex(&Sha256::digest(secret.as_bytes())), scopes });
        self.write()?;
        Ok(secret)
    }

    /// Removes a key. False if there is none of this name.
    pub(crate) fn remove(&mut self, name: &str) -> Result<bool, Failure> {
        let before = self.keys.len();
        self.keys.retain(|key| key.name != name);
        if self.keys.len() == before {
            return Ok(false);
        }
        self.write()?;
        Ok(true)
    }

    /// Names and scopes.
    pub(crate) fn shown(&self) -> impl Iterator<Item = ShownKey<'_>> {
        self.keys.iter().map(|key| ShownKey { name: &key.name, scopes: &key.scopes })
    }

    /// As the HTTP layer wants them. A damaged entry opens nothing.
    pub(super) fn for_http(&self) -> Vec<Key> {
        self.keys
            .iter()
            .filter_map(|key| {
                let scopes = key.scopes.iter().filter_map(|word| scope(word)).collect();
                Some(Key { name: key.name.clone(), sha256: unhex(&key.sha256)?, scopes })
            })
            .collect()
    }

    fn write(&self) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(&self.keys)
            .map_err(|error| Failure::new(Exit::Internal, "the keys cannot be written").because(error))?;
        if let Some(folder) = self.path.parent() {
            fs_err::create_dir_all(folder).map_err(|error| io("write the keys", error))?;
        }
        locara_models::write_whole(&self.path, &text).map_err(|error| io("write the keys", error))
    }
}

/// A scope by its word.
pub(crate) fn scope(word: &str) -> Option<Scope> {
    [Scope::Inference, Scope::Models, Scope::Admin].into_iter().find(|scope| scope.word() == word)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // A String takes all.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways_and_nonsense_opens_nothing() {
        let bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7 % 256).unwrap());
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        assert_eq!(unhex("00"), None);
        assert_eq!(unhex(&"zz".repeat(32)), None);
        assert_eq!(unhex(&"é".repeat(32)), None);
    }
}

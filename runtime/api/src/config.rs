//! What the owner of the machine decides about the HTTP layer.
//!
//! Plain data. It must never hold a key in the clear: [`Key`] keeps digests.

use std::{net::SocketAddr, time::Duration};

use locara_engine::Sampling;
use sha2::{Digest, Sha256};

/// Settings of the HTTP layer.
#[derive(Debug, Clone)]
pub struct Config {
    /// What holds where a request says nothing, for every dialect alike.
    pub defaults: Defaults,
    /// Who may come in.
    pub access: Access,
    /// Bytes of a request body. Default 32 MiB.
    pub max_body_bytes: usize,
    /// A stream that has nothing to say says so after this time. Default 10 s: proxies tend to give up after 30 to 60 s.
    pub keep_alive: Duration,
    /// A client that reads nothing of its stream for this long is let go: its place in the batch is needed. Default 60 s.
    pub write_timeout: Duration,
    /// An engine that does not answer a question for this long, or computes no step for requests that wait, makes
    /// `/health` fail. Default 60 s: one batch of a large model on a slow processor takes several seconds.
    pub stall_after: Duration,
    /// Write request bodies into the log, at level `debug`. Default off: prompts are private.
    pub log_prompts: bool,
    /// Version of the host, for the `Server` header and `/api/version`.
    pub version: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            defaults: Defaults::default(),
            access: Access::default(),
            max_body_bytes: 32 << 20,
            keep_alive: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            stall_after: Duration::from_secs(60),
            log_prompts: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What holds where a request says nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// Sampler settings.
    pub sampling: Sampling,
    /// Length of an answer, tokens. Default 2048.
    pub max_tokens: u32,
    /// No answer becomes longer, whatever the request says, tokens. Default 8192.
    pub max_tokens_cap: u32,
    /// Reasoning of an answer, tokens; 0 switches it off. `None` leaves it to the model. Default `None`.
    pub thinking_tokens: Option<u32>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { sampling: Sampling::default(), max_tokens: 2048, max_tokens_cap: 8192, thinking_tokens: None }
    }
}

/// Who may come in.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Names in the `Host` header that are served beside `localhost` and plain addresses; any port. Against DNS rebinding.
    pub hosts: Vec<String>,
    /// Web origins that are served beside those on this machine, e.g. `https://chat.example`. Against drive-by pages.
    pub origins: Vec<String>,
    /// API keys. With any of them, every request but `/health` and `/ready` needs one.
    pub keys: Vec<Key>,
}

impl Access {
    /// Whether an address may be bound with these settings.
    ///
    /// # Errors
    /// [`BindRefused`] for an address that others can reach while there is no key.
    pub fn check_bind(&self, address: SocketAddr) -> Result<(), BindRefused> {
        if address.ip().is_loopback() || !self.keys.is_empty() { Ok(()) } else { Err(BindRefused(address)) }
    }
}

/// Others could use the models of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} can be reached from other machines, and no API key is set; add a key, or bind to 127.0.0.1")]
pub struct BindRefused(pub SocketAddr);

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Asking models.
    Inference,
    /// Fetching, removing and naming models.
    Models,
    /// Loading and unloading, memory, events, metrics.
    Admin,
}

impl Scope {
    /// The word in messages and files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Models => "models",
            Self::Admin => "admin",
        }
    }
}

/// An API key, as it is kept: its digest. Keys are long and random, so a plain digest is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Names the client in the host's accounts.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// What it opens.
    pub scopes: Vec<Scope>,
}

impl Key {
    /// The form that is kept of a secret.
    #[must_use]
    pub fn new(name: impl Into<String>, secret: &str, scopes: Vec<Scope>) -> Self {
        Self { name: name.into(), sha256: digest(secret), scopes }
    }
}

pub(crate) fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_needs_a_key() {
        let open = Access::default();
        let all: SocketAddr = "0.0.0.0:11434".parse().unwrap();
        assert_eq!(open.check_bind("127.0.0.1:1".parse().unwrap()), Ok(()));
        assert_eq!(open.check_bind("[::1]:1".parse().unwrap()), Ok(()));
        assert_eq!(open.check_bind(all), Err(BindRefused(all)));
        let keyed = Access { keys: vec![Key::new("laptop", "s3cret", vec![Scope::Inference])], ..Access::default() };
        assert_eq!(keyed.check_bind(all), Ok(()));
        assert!(!format!("{keyed:?}").contains("s3cret"));
    }
}

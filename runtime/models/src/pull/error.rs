//! Why a model cannot be pulled.

use std::{io, path::PathBuf};

use locara_manifest::Digest;

use crate::{LibraryError, import::ImportError};

/// Why a model cannot be pulled. What was downloaded by then is kept, and the next try goes on from there, unless it was
/// wrong.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Nobody can tell what is meant.
    #[error(
        "{0:?} names no model of a hub; write `org/name`, `org/name:Q4_K_M`, `org/name/file.gguf` or a full https address"
    )]
    Spec(String),
    /// The address of the hub is none.
    #[error("{address:?} is no address of a hub: {why}; correct `hub` in locara.toml or HF_ENDPOINT")]
    Endpoint {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The HTTP client does not start.
    #[error("the HTTP client does not start: {0}")]
    Client(String),
    /// The hub wants to know who asks, or does not let them.
    #[error("{host} refuses {what} with status {status}: {}", token_advice(*.with_token))]
    Forbidden {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The status of the answer: 401 or 403.
        status: u16,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// There is no such thing.
    #[error("{host} has no {what}; check the spelling, and whether it is private: the hub hides that without HF_TOKEN")]
    NotFound {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// Any other status.
    #[error("{host} answers {what} with status {status}, which is no download; try again later or name another source")]
    Status {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
    },
    /// The hub asks for more patience than there is.
    #[error(
        "{host} asks to wait {seconds} s before the next request; try again then, or with HF_TOKEN for a higher limit"
    )]
    Wait {
        /// The host.
        host: String,
        /// How long.
        seconds: u64,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects {what}, and that is not followed: {why}")]
    Redirect {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// Why not.
        why: String,
    },
    /// The hub speaks another language.
    #[error("the answer of {host} about {what} is not to be understood: {why}; is it a hub of Hugging Face's kind?")]
    Answer {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too many tries in a row brought nothing.
    #[error(
        "gave up on {what} of {host} after {attempts} tries in a row without progress, the last: {last}; run it again to go on where it stopped"
    )]
    GaveUp {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// How many tries.
        attempts: u32,
        /// What the last one failed of.
        last: String,
    },
    /// The repository has no model that can be used.
    #[error("{repository} has no GGUF file; look for a repository of the same name that ends with -GGUF")]
    NoModel {
        /// The repository.
        repository: String,
    },
    /// It has others.
    #[error("{repository} has no {asked}; there are: {}", .there.join(", "))]
    NoSuchFile {
        /// The repository.
        repository: String,
        /// What was asked for.
        asked: String,
        /// What there is, with sizes.
        there: Vec<String>,
    },
    /// Several files are meant.
    #[error("{asked} means {} files of {repository}; name one of them: {}", .files.len(), .files.join(", "))]
    Ambiguous {
        /// The repository.
        repository: String,
        /// What was asked for.
        asked: String,
        /// The files.
        files: Vec<String>,
    },
    /// The repository lacks parts of a split model, or says too little of them.
    #[error("{repository} does not have all of {file}: {why}")]
    Incomplete {
        /// The repository.
        repository: String,
        /// The model.
        file: String,
        /// What is missing.
        why: String,
    },
    /// It does not fit on the disk.
    #[error(
        "{} more bytes are needed in {} and {free} are free, of which {reserve} are kept; free {} bytes or move the model folder",
        .needed, folder.display(), (.needed + .reserve).saturating_sub(*.free)
    )]
    NoSpace {
        /// Where it would go.
        folder: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// The server sends another file than the hub announced.
    #[error(
        "{what}: the server sends {found} bytes and the hub announced {expected}; the file changed or the server errs, run it again"
    )]
    Size {
        /// The file.
        what: String,
        /// What the hub said.
        expected: u64,
        /// What the server said or sent.
        found: u64,
    },
    /// The bytes are not those that the hub announced. They were deleted.
    #[error(
        "{what} was downloaded twice and is not what the hub announced: its SHA-256 is {found}, expected {expected}; it was deleted"
    )]
    Content {
        /// The file.
        what: String,
        /// What the hub said.
        expected: Digest,
        /// What was computed.
        found: Digest,
    },
    /// It is whole, and no model. It was deleted.
    #[error("what was downloaded is of no use and was deleted")]
    Useless(#[source] ImportError),
    /// The OS says no.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The registry or the store.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The person stopped it. What was downloaded is kept.
    #[error("stopped; run it again to go on where it stopped")]
    Cancelled,
}

fn token_advice(with_token: bool) -> &'static str {
    if with_token {
        "the token does not open it; accept the model's terms on its page, and check what the token may read"
    } else {
        "check the spelling; if it is private or asks for consent, accept its terms on its page and set HF_TOKEN"
    }
}

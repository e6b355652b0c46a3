//! SHA-256 of files, in lower-case hex.

use std::{
    io::{self, Read},
    path::Path,
};

use locara_manifest::Digest as Checked;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// The SHA-256 of a file, 64 lower-case hex digits.
pub type Digest = String;

/// Bytes that are read and hashed at a time.
const CHUNK: usize = 1 << 20;

/// Reads the file once and returns its digest. About a second for a gigabyte on a CPU with SHA instructions.
///
/// # Errors
/// The file cannot be read.
pub fn digest_of(path: &Path) -> io::Result<Digest> {
    let never = CancellationToken::new();
    let found = hash(path, &mut |_| {}, &never)?;
    Ok(found.to_string())
}

/// Like [`digest_of`], telling `done` how many bytes more were hashed, about every megabyte.
///
/// # Errors
/// The file cannot be read, or [`io::ErrorKind::Interrupted`] after cancellation.
pub(crate) fn hash(path: &Path, done: &mut dyn FnMut(u64), cancel: &CancellationToken) -> io::Result<Checked> {
    let mut file = fs_err::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        if cancel.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "cancelled"));
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok(checked(&hasher.finalize())),
            Ok(n) => {
                hasher.update(&chunk[..n]);
                done(n as u64);
            }
            // The other meaning of this kind: a signal came. Nothing was read.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The digest of bytes in memory.
pub(crate) fn digest_of_bytes(bytes: &[u8]) -> Digest {
    hex(&Sha256::digest(bytes))
}

/// The digest of a model in several files: of the digests of its parts, in order, one to a line.
pub(crate) fn digest_of_parts<'a>(parts: impl IntoIterator<Item = &'a Checked>) -> Checked {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_str());
        hasher.update(b"\n");
    }
    checked(&hasher.finalize())
}

/// The digest of a model: of its only file, or of its parts together.
pub(crate) fn digest_of_model(parts: &[Checked]) -> Checked {
    match parts {
        [only] => only.clone(),
        several => digest_of_parts(several),
    }
}

fn checked(bytes: &[u8]) -> Checked {
    hex(bytes).parse().expect("32 bytes are 64 lower-case hexadecimal digits")
}

fn hex(bytes: &[u8]) -> Digest {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

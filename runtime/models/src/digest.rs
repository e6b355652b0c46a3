//! SHA-256 of files, in lower-case hex.

use std::{
    io::{self, Read},
    path::Path,
};

use sha2::{Digest as _, Sha256};

/// The SHA-256 of a file, 64 lower-case hex digits.
pub type Digest = String;

/// Reads the file once and returns its digest. About a second for a gigabyte on a CPU with SHA instructions.
///
/// # Errors
/// The file cannot be read.
pub fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = fs_err::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&chunk[..n]),
        }
    }
}

/// The digest of bytes in memory.
pub(crate) fn digest_of_bytes(bytes: &[u8]) -> Digest {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> Digest {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

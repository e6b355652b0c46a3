//! Files inside the folders that the manifest asks for (`capabilities.folders`) and the owner granted.

use crate::{Error, Input, host};

/// What an entry of a folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// Something else, by name.
    Other(String),
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
}

/// A folder that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folder {
    /// Its path, as the manifest names it.
    pub path: String,
    /// Whether the app may write in it.
    pub writable: bool,
}

/// The folders that were granted.
#[must_use]
pub fn folders() -> Vec<Folder> {
    host::files::folders().into_iter().map(|(path, writable)| Folder { path, writable }).collect()
}

/// Opens a file for reading. A refusal comes with the first read.
#[must_use]
pub fn open(path: &str) -> Input {
    let (reader, done) = host::files::read(path);
    Input::with_end(reader, done)
}

/// The whole file as text.
///
/// # Errors
/// [`Error::Denied`] outside the granted folders, [`Error::NotFound`], [`Error::Malformed`] when it is no UTF-8.
pub async fn read_text(path: &str) -> Result<String, Error> {
    open(path).text().await
}

/// The whole file.
///
/// # Errors
/// [`Error::Denied`] outside the granted folders, [`Error::NotFound`].
pub async fn read(path: &str) -> Result<Vec<u8>, Error> {
    open(path).bytes().await
}

/// Replaces a file as a whole; a failure leaves the old one.
///
/// # Errors
/// [`Error::Denied`] outside the granted folders or in a folder that is only to be read, [`Error::QuotaExceeded`].
pub async fn write(path: &str, content: impl Into<Vec<u8>>) -> Result<(), Error> {
    let (mut writer, done) = host::files::write(path);
    // What the host does not take, its outcome explains.
    let _taken = writer.write(content.into()).await;
    drop(writer);
    done.wait().await
}

/// The entries of a folder.
///
/// # Errors
/// [`Error::Denied`] outside the granted folders, [`Error::NotFound`].
pub fn entries(path: &str) -> Result<Vec<Entry>, Error> {
    host::files::entries(path)
}

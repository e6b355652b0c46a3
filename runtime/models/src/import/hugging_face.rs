//! The cache of Hugging Face's libraries: `models--org--name/snapshots/COMMIT/FILE`, links to `blobs/DIGEST`.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use locara_manifest::SourceKind;

use super::{Found, at_file, walk::gguf_files};
use crate::split::{PartName, parts_of};

/// The models in a cache: of each repository those of its newest snapshot.
pub(super) fn scan(cache: &Path, kind: SourceKind) -> Vec<Found> {
    let Ok(entries) = fs_err::read_dir(cache) else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        let folder = entry.file_name().to_string_lossy().into_owned();
        let Some(repository) = folder.strip_prefix("models--").map(|name| name.replacen("--", "/", 1)) else {
            continue;
        };
        let Some(snapshot) = newest_snapshot(&entry.path()) else { continue };
        let commit = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for path in gguf_files(&snapshot) {
            if parts_of(&path).first() != Some(&path) {
                continue; // found with its first part
            }
            all.push(model(&path, &repository, &commit, kind));
        }
    }
    all
}

fn model(path: &Path, repository: &str, commit: &str, kind: SourceKind) -> Found {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = PartName::parse(&file).map_or_else(|| file.trim_end_matches(".gguf").to_owned(), |part| part.prefix);
    let mut found = at_file(path, kind, Some(&crate::pull::model_name(repository, &stem)));
    found.source.name = super::printable(&format!("{repository}/{file}"));
    found.source.revision = commit.bytes().all(|b| b.is_ascii_hexdigit()).then(|| commit.to_owned());
    // The file behind the link is called like its SHA-256.
    if let [only] = found.files.as_slice() {
        let target = fs_err::read_link(only).ok();
        found.claimed = target.and_then(|target| target.file_name()?.to_str()?.parse().ok());
    }
    found
}

/// The snapshot that `refs/main` names, or the one that was written last.
fn newest_snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let main = fs_err::read_to_string(repository.join("refs/main")).ok();
    let named =
        main.map(|commit| commit.trim().to_owned()).filter(|commit| !commit.is_empty() && !commit.contains('/'));
    if let Some(path) = named.map(|commit| snapshots.join(commit)).filter(|path| path.is_dir()) {
        return Some(path);
    }
    let folders = fs_err::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let written = |path: &PathBuf| fs_err::metadata(path).and_then(|metadata| metadata.modified());
    folders.max_by_key(|path| (written(path).unwrap_or(SystemTime::UNIX_EPOCH), path.clone()))
}

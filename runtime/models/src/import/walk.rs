//! GGUF files below a folder.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use locara_manifest::SourceKind;

use super::{Found, at_file};
use crate::split::{PartName, parts_of};

/// Levels of folders that are looked into.
pub(super) const MAX_DEPTH: usize = 6;
/// Entries of folders that are looked at: somebody may name `/`.
const MAX_ENTRIES: usize = 50_000;

/// The models below a folder, each once however many parts it has. What cannot be read is left out. Models are named
/// after their file and the folders between, as far as these are a publisher and a repository.
pub(super) fn scan(folder: &Path, kind: SourceKind) -> Vec<Found> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for path in gguf_files(folder) {
        let first = parts_of(&path).swap_remove(0);
        if seen.insert(first.clone()) {
            let name = (kind == SourceKind::LmStudio).then(|| published_name(folder, &first)).flatten();
            found.push(at_file(&first, kind, name.as_deref()));
        }
    }
    found
}

/// Paths of all files below a folder that are called like models, in order.
pub(super) fn gguf_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut left = MAX_ENTRIES;
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs_err::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            left = match left.checked_sub(1) {
                Some(left) => left,
                None => return sorted(files),
            };
            let path = entry.path();
            // Links are followed: caches consist of them. The depth bounds circles.
            let Ok(metadata) = fs_err::metadata(&path) else {
                // A link to a file that is gone: a model that is there by name only.
                continue;
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if metadata.is_dir() && depth + 1 < MAX_DEPTH {
                folders.push((path, depth + 1));
            } else if metadata.is_file() && is_model_name(&name) {
                files.push(path);
            }
        }
    }
    sorted(files)
}

fn sorted(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort();
    files
}

/// Whether a file is called like a model, and not like the part of one that sees.
pub(crate) fn is_model_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.ends_with(".gguf") && !lower.contains("mmproj") && !lower.contains("imatrix") && !name.starts_with('.')
}

/// `publisher/repository/file` from the folders below `root`.
fn published_name(root: &Path, file: &Path) -> Option<String> {
    let below = file.strip_prefix(root).ok()?;
    let words: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let [publisher, repository, .., file] = words.as_slice() else { return None };
    let stem =
        PartName::parse(file).map_or_else(|| file.strip_suffix(".gguf").unwrap_or(file).to_owned(), |part| part.prefix);
    Some(crate::pull::model_name(&format!("{publisher}/{repository}"), &stem))
}

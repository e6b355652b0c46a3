//! The cache of llama.cpp. Formerly flat: `ORG_REPO_FILE.gguf` beside `manifest=ORG=REPO=TAG.json`. Now it has the form of
//! Hugging Face's cache.

use std::path::Path;

use locara_manifest::SourceKind;
use serde::Deserialize;

use super::{Found, at_file, hugging_face, walk::is_model_name};
use crate::split::parts_of;

/// Largest manifest that is read, in bytes. Real ones have a few thousand.
const MAX_MANIFEST: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    gguf_file: ManifestFile,
}

#[derive(Deserialize)]
struct ManifestFile {
    rfilename: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

/// The models in a cache of either form.
pub(super) fn scan(cache: &Path) -> Vec<Found> {
    let mut all = hugging_face::scan(cache, SourceKind::LlamaCpp);
    let Ok(entries) = fs_err::read_dir(cache) else { return all };
    let names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let named: Vec<(String, Found)> = names.iter().filter_map(|name| by_manifest(cache, name)).collect();
    for name in names.iter().filter(|name| is_model_name(name)) {
        let path = cache.join(name);
        if parts_of(&path).first() != Some(&path) || !path.is_file() {
            continue; // found with its first part, or no file
        }
        match named.iter().find(|(file, _)| file == name) {
            Some((_, found)) => all.push(found.clone()),
            None => all.push(at_file(&path, SourceKind::LlamaCpp, None)),
        }
    }
    all
}

/// The file that a manifest of the flat form is about, and the model in it.
fn by_manifest(cache: &Path, name: &str) -> Option<(String, Found)> {
    let mut words = name.strip_prefix("manifest=")?.strip_suffix(".json")?.splitn(3, '=');
    let (org, repo, tag) = (words.next()?, words.next()?, words.next()?);
    let path = cache.join(name);
    if fs_err::metadata(&path).ok()?.len() > MAX_MANIFEST {
        return None;
    }
    let manifest: Manifest = serde_json::from_slice(&fs_err::read(&path).ok()?).ok()?;
    let file = format!("{org}_{repo}_{}", manifest.gguf_file.rfilename.replace('/', "_"));
    let mut found = at_file(&cache.join(&file), SourceKind::LlamaCpp, Some(&format!("{org}/{repo}:{tag}")));
    found.source.name = super::printable(&format!("{org}/{repo}/{}", manifest.gguf_file.rfilename));
    if found.files.len() == 1 {
        found.claimed = manifest.gguf_file.lfs.and_then(|lfs| lfs.sha256.parse().ok());
    }
    Some((file, found))
}

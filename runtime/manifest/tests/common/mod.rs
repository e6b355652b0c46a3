//! The files of `manifests/`.

use std::path::PathBuf;

use fs_err as fs;

/// `manifests/<folder>` of the repository.
pub(crate) fn folder(folder: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../manifests", folder].iter().collect()
}

/// Stem and bytes of every file of a folder with this ending, sorted.
pub(crate) fn files(name: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let stem = path.file_name()?.to_str()?.strip_suffix(ending)?.to_owned();
            Some((stem, fs::read(&path).unwrap()))
        })
        .collect();
    files.sort();
    files
}

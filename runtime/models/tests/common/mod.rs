//! Small real model files, and a library in a folder that goes with the test.

#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod server;

use std::path::{Path, PathBuf};

use locara_manifest::Digest;
use locara_models::{Library, ModelStore, RegistryFile};
use locara_zoo::{Arch, Draft, Fill, Meta, Spec, TensorDraft};
use tokio_util::sync::CancellationToken;

/// The bytes of a model of a few kilobytes; another seed, another model.
pub(crate) fn gguf(seed: u32) -> Vec<u8> {
    draft(seed).to_bytes().unwrap()
}

/// The bytes of a model of about `megabytes`.
pub(crate) fn large(seed: u32, megabytes: u64) -> Vec<u8> {
    let mut draft = draft(seed);
    let kind = locara_gguf::GgmlType::F32;
    draft.tensors.push(TensorDraft {
        name: "test.large".into(),
        dims: vec![megabytes << 18],
        kind,
        fill: Fill::Random(0.02),
    });
    draft.to_bytes().unwrap()
}

fn draft(seed: u32) -> Draft {
    let mut draft = locara_zoo::draft(&Spec::tiny(Arch::Llama)).unwrap();
    draft.key("test.seed", seed);
    draft
}

/// The bytes of one part of a split model; `number` counts from 1.
pub(crate) fn part(seed: u32, number: u16, count: u16) -> Vec<u8> {
    let mut draft = draft(seed);
    draft.key("split.no", Meta::U16(number - 1));
    draft.key("split.count", Meta::U16(count));
    draft.to_bytes().unwrap()
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
    fs_err::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs_err::write(path.as_ref(), content).unwrap();
    path.as_ref().to_owned()
}

/// The digest of bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let folder = tempfile::tempdir().unwrap();
    locara_models::digest_of(&write(folder.path().join("file"), bytes)).unwrap().parse().unwrap()
}

/// A library in `folder`.
pub(crate) fn library(folder: &Path) -> Library {
    Library::new(ModelStore::open(folder.join("models")).unwrap(), RegistryFile::new(folder.join("registry.json")))
}

/// Imports the only model at a path, and returns its name.
pub(crate) fn import(library: &Library, path: &Path) -> String {
    let found = library.look_at(path).unwrap();
    let [found] = found.as_slice() else { panic!("{found:?}") };
    library.import(found, &|_| {}, &CancellationToken::new()).unwrap().name.to_string()
}

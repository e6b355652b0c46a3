//! Installing and preparing: digests, the cache, components that can never run.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::engine::Scripted;
use common::{World, component, host, manifest};
use locara_apps::PrepareError;
use sha2::{Digest, Sha256};

fn cached(world: &World) -> Vec<std::path::PathBuf> {
    let entries = fs_err::read_dir(world.dir.path().join("cache")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The manifest of the neighbour with another component.
fn of(bytes: &[u8]) -> locara_manifest::Manifest {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    manifest("neighbour", |manifest| manifest["component"]["sha256"] = digest.into())
}

#[tokio::test]
async fn installing_compiles_once_and_a_damaged_cache_is_made_anew() {
    let world = World::new(Scripted::new());
    world.host.install(component("neighbour"), &manifest("neighbour", |_| {})).await.unwrap();
    let files = cached(&world);
    assert_eq!(files.len(), 2, "the code and its digest: {files:?}");
    let before = fs_err::read(&files[0]).unwrap();

    // Another host of the same build finds it.
    let again = host(world.dir.path(), world.models.clone(), world.ledger.clone());
    again.install(component("neighbour"), &manifest("neighbour", |_| {})).await.unwrap();
    assert_eq!(cached(&world), files);

    fs_err::write(&files[0], &before[..before.len() / 2]).unwrap();
    let (output, ended) = world.run_guest("neighbour", &["echo"], "works").await;
    ended.unwrap();
    assert_eq!(output, "works");
    assert_eq!(fs_err::read(&files[0]).unwrap().len(), before.len());

    world.host.forget(manifest("neighbour", |_| {}).require_digest().unwrap().as_str()).unwrap();
    assert!(cached(&world).is_empty());
}

#[tokio::test]
async fn bytes_that_are_not_the_manifests_are_refused() {
    let world = World::new(Scripted::new());
    let mut bytes = component("neighbour");
    *bytes.last_mut().unwrap() ^= 1;
    let error = world.host.install(bytes, &manifest("neighbour", |_| {})).await.unwrap_err();
    assert!(matches!(error, PrepareError::Digest { .. }), "{error:?}");
    let unpacked = manifest("neighbour", |manifest| {
        manifest["component"].as_object_mut().unwrap().remove("sha256");
    });
    let error = world.host.install(component("neighbour"), &unpacked).await.unwrap_err();
    assert!(matches!(error, PrepareError::NoDigest { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_app_is_refused_with_the_reason() {
    let world = World::new(Scripted::new());
    for (bytes, expected) in [
        (&b"no wasm at all"[..], "does not compile"),
        (&b"\0asm\x01\0\0\0"[..], "does not compile"),   // a core module
        (&b"\0asm\x0d\0\x01\0"[..], "exports no `run`"), // an empty component
    ] {
        let error = world.host.install(bytes.to_vec(), &of(bytes)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let huge = vec![0; (64 << 20) + 1];
    let error = world.host.install(huge, &manifest("neighbour", |_| {})).await.unwrap_err();
    assert!(matches!(error, PrepareError::TooLarge { max: 67_108_864, .. }), "{error:?}");
}

#[tokio::test]
async fn a_granted_folder_that_is_not_there_is_named() {
    let world = World::new(Scripted::new());
    let error = world.prepare_with("neighbour", |manifest| {
        manifest["capabilities"]["folders"][0]["path"] = "~/nowhere".into();
    });
    let error = error.await.unwrap_err();
    assert!(matches!(&error, PrepareError::Grant { grant, .. } if grant == "folder:~/nowhere"), "{error:?}");
}

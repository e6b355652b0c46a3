//! Models that are listed, resolved, checked and removed, whatever happens to their files.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use common::{digest, gguf, import, library, part, write};
use locara_manifest::{ModelPart, RegisteredModel};
use locara_models::{EMBEDDED_NAME, ImportError, Library, LibraryError, ModelState};
use tokio_util::sync::CancellationToken;

/// Puts a model into the store as a download would, and into the registry.
fn put(library: &Library, name: &str, bytes: &[u8]) -> locara_manifest::Digest {
    let digest = digest(bytes);
    write(library.store().root().join(format!("blobs/sha256-{digest}")), bytes);
    let files = vec![ModelPart { sha256: digest.clone(), bytes: bytes.len() as u64, path: None }];
    let name = name.parse().unwrap();
    let model = RegisteredModel { name, files, source: None, disabled: false, settings: Default::default() };
    library
        .registry()
        .update(|registry| {
            registry.models.insert(digest.clone(), model);
            Ok::<_, LibraryError>(())
        })
        .unwrap();
    digest
}

fn state(library: &Library, name: &str) -> ModelState {
    library.list().unwrap().into_iter().find(|listed| listed.name.as_str() == name).unwrap().state
}

fn verify(library: &Library, name: &str) -> Result<(), LibraryError> {
    library.verify(name, &|_| {}, &CancellationToken::new()).map(|_| ())
}

#[test]
fn an_imported_file_is_used_where_it_is_and_found_by_every_word() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let path = write(folder.path().join("mine/qwen.gguf"), gguf(1));
    assert_eq!(import(&library, &path), "qwen");
    library.set_role(&"coding".parse().unwrap(), "qwen").unwrap();
    library.set_role(&"default".parse().unwrap(), "coding").unwrap();
    library.set_alias(&"gpt-4o".parse().unwrap(), "coding").unwrap();
    let whole = digest(&gguf(1)).to_string();
    for word in ["qwen", "coding", "default", "gpt-4o", &whole, &whole[..8]] {
        let located = library.resolve(word).unwrap();
        assert_eq!((&located.file.path, located.file.name.as_str(), &located.file.digest), (&path, "qwen", &whole));
        assert_eq!(located.file.bytes, gguf(1).len() as u64);
    }
    let listed = &library.list().unwrap()[1];
    assert_eq!(listed.words, ["coding", "default", "gpt-4o"]);
    assert!(!listed.owned && listed.state == ModelState::Ready);
    let registry = library.registry().load().unwrap();
    assert_eq!(registry.roles[&"default".parse().unwrap()].as_str(), "coding", "the role follows the other one");
    assert_eq!(fs_err::read_dir(library.store().root().join("blobs")).unwrap().count(), 0, "nothing was copied");
}

#[test]
fn the_embedded_model_is_always_there_and_cannot_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    assert!(library.resolve(EMBEDDED_NAME).unwrap().file.path.exists());
    assert_eq!(library.list().unwrap()[0].name.as_str(), EMBEDDED_NAME);
    assert!(matches!(library.remove(EMBEDDED_NAME, true), Err(LibraryError::BuiltIn)));
}

#[test]
fn a_volume_that_is_not_attached_is_a_state_of_its_models_and_of_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let volume = folder.path().join("Volumes/ssd");
    import(&library, &write(volume.join("llm/away.gguf"), gguf(1)));
    import(&library, &write(folder.path().join("here.gguf"), gguf(2)));

    let detached = folder.path().join("Volumes/.detached");
    fs_err::rename(&volume, &detached).unwrap();
    let before = SystemTime::now();
    let ModelState::Unavailable { path, folder: missing, since } = state(&library, "away") else { panic!() };
    assert_eq!((path, missing.as_deref()), (volume.join("llm/away.gguf"), Some(volume.as_path())));
    assert!(since <= SystemTime::now() && since >= before - Duration::from_secs(60));
    assert_eq!(state(&library, "here"), ModelState::Ready);
    library.resolve("here").unwrap();
    let error = library.resolve("away").unwrap_err();
    let LibraryError::Unavailable { since: again, .. } = error else { panic!("{error}") };
    assert_eq!(again, since, "the time of the first notice stays");
    assert!(error.to_string().contains("attach the volume"), "{error}");
    assert!(library.registry().load().unwrap().resolve("away").is_ok(), "the registry forgets nothing");

    fs_err::rename(&detached, &volume).unwrap();
    assert_eq!(state(&library, "away"), ModelState::Ready);
    library.resolve("away").unwrap();
}

#[test]
fn a_file_that_was_touched_is_hashed_again_and_one_that_was_replaced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let path = write(folder.path().join("mine.gguf"), gguf(1));
    import(&library, &path);
    let touch = |seconds| {
        let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
        file.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    touch(1_000_000);
    assert_eq!(state(&library, "mine"), ModelState::Unverified { path: path.clone() });
    library.resolve("mine").unwrap();
    assert_eq!(state(&library, "mine"), ModelState::Ready);

    assert_eq!(gguf(1).len(), gguf(2).len(), "only the content tells them apart");
    write(&path, gguf(2));
    touch(2_000_000);
    let error = library.resolve("mine").unwrap_err();
    assert!(matches!(error, LibraryError::Changed { .. }), "{error}");
    assert!(error.to_string().contains(digest(&gguf(2)).as_str()), "{error}");

    write(&path, b"short");
    let ModelState::Changed { difference, .. } = state(&library, "mine") else { panic!() };
    assert!(difference.contains("5 bytes"), "{difference}");
}

#[test]
fn verification_reads_the_bytes_and_takes_a_damaged_file_out_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let good = put(&library, "good", &gguf(1));
    let bad = put(&library, "bad", &gguf(2));
    let mut damaged = gguf(2);
    *damaged.last_mut().unwrap() ^= 1;
    let blob = write(library.store().root().join(format!("blobs/sha256-{bad}")), damaged);
    assert_eq!(state(&library, "bad"), ModelState::Ready, "its size is right");
    verify(&library, "good").unwrap();
    let error = verify(&library, "bad").unwrap_err();
    assert!(matches!(error, LibraryError::Damaged { .. }), "{error}");
    assert!(!blob.exists());
    assert!(matches!(library.resolve("bad"), Err(LibraryError::Unavailable { .. })));
    library.resolve(good.as_str()).unwrap();
}

#[test]
fn removing_needs_force_while_a_role_leads_there_and_deletes_only_what_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let ours = put(&library, "ours", &gguf(1));
    let path = write(folder.path().join("theirs.gguf"), gguf(2));
    import(&library, &path);
    for (role, word) in [("default", "ours"), ("coding", "theirs")] {
        library.set_role(&role.parse().unwrap(), word).unwrap();
    }
    let error = library.remove("default", false).unwrap_err();
    assert!(error.to_string().contains("in use as default"), "{error}");
    assert_eq!(state(&library, "ours"), ModelState::Ready);

    let removed = library.remove("ours", true).unwrap();
    assert_eq!((removed.freed_bytes, removed.left.len()), (gguf(1).len() as u64, 0));
    assert!(!library.store().root().join(format!("blobs/sha256-{ours}")).exists());
    let removed = library.remove("theirs", true).unwrap();
    assert_eq!((removed.freed_bytes, removed.left.as_slice()), (0, [path.clone()].as_slice()));
    assert!(path.exists());
    let registry = library.registry().load().unwrap();
    assert!(registry.models.is_empty() && registry.roles.is_empty());
}

#[test]
fn a_file_that_a_killed_download_left_is_listed_apart_and_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let digest = put(&library, "lost", &gguf(1));
    fs_err::remove_file(library.registry().path()).unwrap();
    assert_eq!(library.unregistered().unwrap(), [(digest.clone(), gguf(1).len() as u64)]);
    assert_eq!(library.list().unwrap().len(), 1, "only the embedded one");
    assert!(library.resolve(digest.as_str()).is_err());
    let removed = library.remove(digest.as_str(), false).unwrap();
    assert_eq!((removed.name, removed.freed_bytes), (None, gguf(1).len() as u64));
    assert!(library.unregistered().unwrap().is_empty());
}

#[test]
fn all_parts_of_a_split_model_are_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let file = |n| folder.path().join(format!("big-0000{n}-of-00003.gguf"));
    for n in 1..=3 {
        write(file(n), part(7, n, 3));
    }
    assert_eq!(import(&library, &file(2)), "big", "any part leads to the model");
    let located = library.resolve("big").unwrap();
    assert_eq!((located.file.path, located.parts), (file(1), vec![file(1), file(2), file(3)]));
    assert_eq!(located.file.bytes, (1..=3).map(|n| part(7, n, 3).len() as u64).sum::<u64>());
    let found = library.look_at(folder.path()).unwrap();
    assert_eq!((found.len(), found[0].known.as_ref().unwrap().as_str()), (1, "big"));

    fs_err::remove_file(file(3)).unwrap();
    let ModelState::Unavailable { path, folder: None, .. } = state(&library, "big") else { panic!() };
    assert_eq!(path, file(3));
    let found = library.look_at(&file(1)).unwrap();
    let error = library.import(&found[0], &|_| {}, &CancellationToken::new()).unwrap_err();
    assert!(matches!(&error, ImportError::Incomplete { missing, .. } if missing == &[file(3)]), "{error}");

    write(file(3), part(7, 2, 3));
    let found = library.look_at(&file(1)).unwrap();
    let error = library.import(&found[0], &|_| {}, &CancellationToken::new()).unwrap_err();
    assert!(error.to_string().contains("calls itself part 2 of 3 and its name says part 3 of 3"), "{error}");
}

#[test]
fn what_the_owner_sets_for_a_model_arrives_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let path = write(folder.path().join("mine.gguf"), gguf(1));
    import(&library, &path);
    library.change("mine", |model| model.settings.context = Some(4096)).unwrap();
    assert_eq!(library.resolve("mine").unwrap().settings.context, Some(4096));
    assert_eq!(import(&library, &path), "mine");
    assert_eq!(library.resolve("mine").unwrap().settings.context, Some(4096), "importing again keeps it");
    library.change("mine", |model| model.disabled = true).unwrap();
    let error = library.resolve("mine").unwrap_err();
    assert!(error.to_string().contains("disabled"), "{error}");
    assert!(library.change("mine", |model| model.settings.context = Some(1)).is_err(), "out of range");
    library.remove("mine", false).unwrap();
}

/// What the next test kills: it changes a registry for longer than that test takes.
#[test]
fn child_that_writes() {
    let Some(home) = std::env::var_os("LOCARA_TEST_HOME") else { return };
    let library = library(Path::new(&home));
    let end = Instant::now() + Duration::from_secs(60); // in case nobody is left to kill it
    for n in 1..600_000 {
        library.change("mine", |model| model.settings.ttl_seconds = Some(n)).unwrap();
        if Instant::now() > end {
            break;
        }
    }
}

#[test]
fn a_writer_that_is_killed_leaves_a_whole_registry_and_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    import(&library, &write(folder.path().join("mine.gguf"), gguf(1)));
    let written = || library.registry().load().unwrap().resolve("mine").unwrap().model.settings.ttl_seconds;
    for round in 0..20_u64 {
        let before = written();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes", "--test-threads=1"])
            .env("LOCARA_TEST_HOME", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while written() == before {
            assert!(Instant::now() < deadline, "the writer of round {round} stands still");
        }
        // At another instruction each time.
        let moment = Instant::now() + Duration::from_micros(round * 137);
        while Instant::now() < moment {}
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        assert!(written().is_some());
        library.change("mine", |model| model.settings.context = Some(4096)).unwrap();
    }
    let reopened = common::library(folder.path());
    assert_eq!(reopened.list().unwrap().len(), 2);
}

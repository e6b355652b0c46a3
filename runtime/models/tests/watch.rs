//! Edits that count, edits that do not, and edits that change nothing.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use common::write;
use locara_manifest::{Config, Registry};
use locara_models::{RegistryError, RegistryFile, Rejection, Update, Watcher};

/// A configuration in which one value tells versions apart.
fn config(seconds: u32) -> String {
    format!("[idle]\nttl_seconds = {seconds}\n")
}

struct Setup {
    folder: tempfile::TempDir,
    config: PathBuf,
    registry: PathBuf,
    watcher: Watcher,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path().join("locara.toml"), config(1));
    watched(folder, &path)
}

fn watched(folder: tempfile::TempDir, config: &Path) -> Setup {
    let registry = folder.path().join("registry.json");
    let current = (Config::parse("x", fs_err::read(config).unwrap()).unwrap(), Registry::default());
    let watcher = Watcher::new(config, &registry, current).unwrap();
    Setup { folder, config: config.to_owned(), registry, watcher }
}

impl Setup {
    async fn next(&mut self) -> Update {
        tokio::time::timeout(Duration::from_secs(30), self.watcher.next()).await.expect("no update came").unwrap()
    }

    async fn next_seconds(&mut self) -> u32 {
        match self.next().await {
            Update::Config(config) => config.idle.ttl_seconds,
            other => panic!("{other:?}"),
        }
    }

    async fn next_rejection(&mut self) -> (PathBuf, Rejection) {
        match self.next().await {
            Update::Rejected { path, why } => (path, why),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_edit_counts_however_the_editor_writes() {
    let mut setup = setup();
    fs_err::write(&setup.config, config(2)).unwrap();
    assert_eq!(setup.next_seconds().await, 2);
    // Beside it and renamed.
    let beside = write(setup.folder.path().join(".locara.toml.swp"), config(3));
    fs_err::rename(beside, &setup.config).unwrap();
    assert_eq!(setup.next_seconds().await, 3);
    // Moved away, written anew, the old one deleted.
    let backup = setup.folder.path().join("locara.toml~");
    fs_err::rename(&setup.config, &backup).unwrap();
    fs_err::write(&setup.config, config(4)).unwrap();
    fs_err::remove_file(backup).unwrap();
    assert_eq!(setup.next_seconds().await, 4);
}

#[tokio::test]
async fn a_bad_edit_is_told_once_and_what_held_holds_on() {
    let mut setup = setup();
    fs_err::write(&setup.config, "[idle]\nttl_seconds = -1\n").unwrap();
    let (path, why) = setup.next_rejection().await;
    assert_eq!(path, setup.config);
    let Rejection::Invalid(diagnosis) = why else { panic!("{why}") };
    assert_eq!(diagnosis.position(diagnosis.problems()[0].span.start), (2, 15));
    // Back to what held: that is no change, so the next one comes alone.
    fs_err::write(&setup.config, config(1)).unwrap();
    fs_err::write(setup.folder.path().join("other.txt"), "x").unwrap();
    fs_err::write(&setup.config, config(1) + "# a comment\n").unwrap();
    fs_err::write(&setup.config, config(5)).unwrap();
    assert_eq!(setup.next_seconds().await, 5);
}

#[tokio::test]
async fn a_file_that_vanishes_changes_nothing_until_it_is_back() {
    let mut setup = setup();
    fs_err::remove_file(&setup.config).unwrap();
    let (_, why) = setup.next_rejection().await;
    assert!(matches!(why, Rejection::Gone), "{why}");
    fs_err::write(&setup.config, "").unwrap();
    assert_eq!(setup.next_seconds().await, Config::default().idle.ttl_seconds);
}

#[tokio::test]
async fn the_registry_is_watched_too_and_need_not_be_there_at_first() {
    let mut setup = setup();
    let file = RegistryFile::new(&setup.registry);
    file.update(|registry| {
        registry.aliases.insert("gpt-4o".parse().unwrap(), "coding".parse().unwrap());
        Ok::<_, RegistryError>(())
    })
    .unwrap();
    let Update::Registry(registry) = setup.next().await else { panic!() };
    assert_eq!(*registry, file.load().unwrap());
    fs_err::write(&setup.registry, "{").unwrap();
    let (path, why) = setup.next_rejection().await;
    assert_eq!(path, setup.registry);
    assert!(matches!(why, Rejection::Invalid(_)), "{why}");
}

#[tokio::test]
async fn what_a_link_leads_to_is_watched() {
    let (home, dotfiles) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let real = write(dotfiles.path().join("real.toml"), config(1));
    let link = home.path().join("locara.toml");
    symlink(&real, &link).unwrap();
    let mut setup = watched(home, &link);
    fs_err::write(&real, config(2)).unwrap();
    assert_eq!(setup.next_seconds().await, 2);
}

#[tokio::test]
async fn an_edit_before_the_watch_began_is_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path().join("locara.toml"), config(7));
    let registry = folder.path().join("registry.json");
    let mut watcher = Watcher::new(&path, &registry, (Config::default(), Registry::default())).unwrap();
    let update = tokio::time::timeout(Duration::from_secs(30), watcher.next()).await.unwrap().unwrap();
    let Update::Config(config) = update else { panic!("{update:?}") };
    assert_eq!(config.idle.ttl_seconds, 7);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_with_its_name() {
    let nowhere = Path::new("/nonexistent/locara.toml");
    let error = Watcher::new(nowhere, nowhere, Default::default()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

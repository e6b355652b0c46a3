//! The disk as it should not be.

use std::path::{Path, PathBuf};

use locara_engine::Reclaim;

use super::*;

fn files(dir: &Path) -> Vec<PathBuf> {
    let folders = fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let entries = folders.flat_map(|folder| fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "kv")).collect()
}

/// A session whose state is on disk.
struct Spilled {
    engine: LlamaEngine,
    session: SessionId,
    prompt: Vec<Token>,
    expected: Vec<Token>,
}

impl Spilled {
    async fn new(dir: &Path) -> Self {
        let engine = engine_with(options(), &on_disk(dir));
        let mut prompt = words(1, 60);
        let session = open(&engine).await;
        answer(&engine, of(session, request(prompt.clone(), 2))).await;
        prompt.extend(words(2, 3));
        let expected = answer(&engine, request(prompt.clone(), 8)).await.tokens;
        Self { engine, session, prompt, expected }
    }

    async fn spill(&self) {
        self.engine.reclaim(Reclaim::IdleSessions { spill: true }).await.unwrap().unwrap();
    }

    /// The next turn; returns the cached tokens.
    async fn ask(&self) -> u32 {
        let completion = answer(&self.engine, of(self.session, request(self.prompt.clone(), 8))).await;
        assert_eq!(completion.tokens, self.expected);
        completion.usage.cached_tokens
    }
}

#[tokio::test]
async fn a_file_that_was_changed_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let spilled = Spilled::new(folder.path()).await;
    spilled.spill().await;
    assert!(spilled.ask().await > 0, "the whole file is used");
    spilled.spill().await;
    let len = fs_err::metadata(&files(folder.path())[0]).unwrap().len() as usize;

    let flipped = (0..150).chain((150..len).step_by(len / 40)).chain(len - 40..len);
    let cut = [0, 1, 7, 8, 12, 100, len / 2, len - 33, len - 32, len - 1];
    let damages = flipped.map(|at| (Some(at), len)).chain(cut.map(|n| (None, n)));
    for (flip, n) in damages {
        let path = files(folder.path()).pop().unwrap();
        let mut bytes = fs_err::read(&path).unwrap();
        assert_eq!(bytes.len(), len);
        if let Some(at) = flip {
            bytes[at] ^= 1u8 << (at % 8);
        }
        bytes.truncate(n);
        fs_err::write(&path, bytes).unwrap();
        assert_eq!(spilled.ask().await, 0, "byte {flip:?} flipped, {n} of {len} bytes left");
        assert_eq!(files(folder.path()), Vec::<PathBuf>::new(), "a bad file is removed");
        spilled.spill().await;
    }
}

#[tokio::test]
async fn a_file_of_somebody_else_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let spilled = Spilled::new(folder.path()).await;
    spilled.spill().await;
    let own = files(folder.path()).pop().unwrap();
    let other = open(&spilled.engine).await;
    answer(&spilled.engine, of(other, request(words(7, 60), 2))).await;
    spilled.spill().await;
    let theirs = files(folder.path()).into_iter().find(|path| *path != own).unwrap();
    // Whole files, of the same length, each with a digest that is right: only not what was written there.
    let (a, b) = (fs_err::read(&own).unwrap(), fs_err::read(&theirs).unwrap());
    assert_eq!(a.len(), b.len());
    fs_err::write(&own, b).unwrap();
    fs_err::write(&theirs, a).unwrap();
    assert_eq!(spilled.ask().await, 0);
}

#[tokio::test]
async fn a_folder_that_vanishes_costs_only_time() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("states");
    let spilled = Spilled::new(&dir).await;
    spilled.spill().await;
    fs_err::remove_dir_all(&dir).unwrap();
    assert_eq!(spilled.ask().await, 0, "it vanished with the state in it");
    spilled.spill().await;
    assert_eq!(stats(&spilled.engine).await.spilled_bytes, 0);
    assert_eq!(spilled.ask().await, 0, "it was not there to write to");
    drop(spilled);

    // A folder that cannot be made at all.
    let file = folder.path().join("file");
    fs_err::write(&file, "in the way").unwrap();
    let spilled = Spilled::new(&file.join("states")).await;
    spilled.spill().await;
    assert_eq!(spilled.ask().await, 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_costs_only_time() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "none"])
        .arg(folder.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("SKIPPED: a full disk needs the right to mount a tmpfs");
        return;
    }
    let spilled = Spilled::new(folder.path()).await;
    spilled.spill().await;
    let (left, spilled_bytes) = (files(folder.path()).len(), stats(&spilled.engine).await.spilled_bytes);
    let cached = spilled.ask().await;
    drop(spilled);
    let unmounted = std::process::Command::new("umount").arg(folder.path()).status().unwrap();
    assert!(unmounted.success(), "nothing is held open on the full disk");
    assert_eq!((left, spilled_bytes, cached), (0, 0, 0));
}

#[tokio::test]
async fn what_a_dead_process_left_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("0123456789abcdef0123456789abcdef");
    fs_err::create_dir(&left).unwrap();
    fs_err::write(left.join("00.kv"), "a state").unwrap();
    fs_err::create_dir(folder.path().join("photos")).unwrap();
    fs_err::write(folder.path().join("notes"), "mine").unwrap();

    let first = Spilled::new(folder.path()).await;
    assert!(!left.exists());
    first.spill().await;
    let state = files(folder.path());
    let second = Spilled::new(folder.path()).await;
    assert_eq!(files(folder.path()), state, "the first engine lives");
    assert!(first.ask().await > 0);
    first.spill().await;
    drop((first, second));
    let mut names: Vec<_> = fs_err::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["lock", "notes", "photos"], "the engines took their states with them");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_a_state() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let spilled = Spilled::new(folder.path()).await;
    spilled.spill().await;
    let path = files(folder.path()).pop().unwrap();
    let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

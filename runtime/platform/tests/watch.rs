//! Listening for memory pressure: on fixture files, FIFOs and sockets, and on the kernel of the machine the test runs on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod common;

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use common::{at, laptop_with};
use fs_err as fs;
use locara_platform::{Platform, PressureEvent, PressureWatch, host, sys::linux::Linux};
use tempfile::TempDir;

/// Long enough to fail a test that waits for something that never comes.
const LONG: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::ZERO;
const HEARD: Option<PressureEvent> = Some(PressureEvent { level: None });
const STALLS: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

fn told(linux: Linux, path: &Path, write: Option<&[u8]>) -> Box<dyn PressureWatch> {
    let write = write.map(|bytes| BASE64_STANDARD.encode(bytes).into());
    linux.with_pressure_watch(Some(path.into()), write).watch_pressure().unwrap()
}

fn fifo(folder: &TempDir) -> std::path::PathBuf {
    let path = folder.path().join("pressure");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    path
}

#[test]
fn a_fifo_wakes_the_watch_and_is_emptied() {
    let root = laptop_with(&[]);
    let path = fifo(&root);
    let mut watch = told(at(&root), &path, None);
    assert!(watch.describe().contains(path.to_str().unwrap()), "{}", watch.describe());
    assert_eq!(watch.wait(NOW).unwrap(), None);

    let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
    writer.write_all(b"one two three").unwrap();
    assert_eq!(watch.wait(LONG).unwrap(), HEARD);
    assert_eq!(watch.wait(NOW).unwrap(), None, "all words of one event are one event");
    writer.write_all(b"x").unwrap();
    assert_eq!(watch.wait(LONG).unwrap(), HEARD);

    // Writers come and go.
    drop(writer);
    assert_eq!(watch.wait(NOW).unwrap(), None);
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert_eq!(watch.wait(LONG).unwrap(), HEARD);
    assert!(watch.describe().contains("FIFO"), "{}", watch.describe());
}

#[test]
fn a_fifo_is_heard_from_another_thread_while_it_is_waited_for() {
    let root = laptop_with(&[]);
    let path = fifo(&root);
    let mut watch = told(at(&root), &path, None);
    let waiter = std::thread::spawn(move || watch.wait(LONG).unwrap());
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert_eq!(waiter.join().unwrap(), HEARD);
}

#[test]
fn a_writer_that_never_stops_does_not_hold_the_watch() {
    let root = laptop_with(&[]);
    let path = fifo(&root);
    let mut watch = told(at(&root), &path, None);
    let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let flood = std::thread::spawn(move || while writer.write_all(&[0; 65536]).is_ok() {});
    for _ in 0..50 {
        assert_eq!(watch.wait(LONG).unwrap(), HEARD);
    }
    drop(watch);
    // Nobody reads any more: the writer is told so and ends.
    flood.join().unwrap();
}

#[test]
fn a_socket_hears_what_it_was_told_to_say_and_wakes_the_watch() {
    let root = laptop_with(&[]);
    let path = root.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let said = b"some 200000 2000000\0";
    let mut watch = told(at(&root), &path, Some(said));
    let (mut manager, _) = listener.accept().unwrap();
    let hello = |manager: &mut UnixStream| {
        let mut heard = vec![0; said.len()];
        manager.read_exact(&mut heard).unwrap();
        assert_eq!(heard, said);
    };
    hello(&mut manager);
    assert_eq!(watch.wait(NOW).unwrap(), None);
    manager.write_all(b"pressure").unwrap();
    assert_eq!(watch.wait(LONG).unwrap(), HEARD);

    // The manager starts anew: the watch calls again.
    drop(manager);
    let waiter = std::thread::spawn(move || (watch.wait(LONG).unwrap(), watch));
    let (mut manager, _) = listener.accept().unwrap();
    hello(&mut manager);
    manager.write_all(b"pressure").unwrap();
    let (heard, mut watch) = waiter.join().unwrap();
    assert_eq!(heard, HEARD);

    // Last words count, and then there is nobody.
    manager.write_all(b"bye").unwrap();
    drop((manager, listener));
    assert_eq!(watch.wait(LONG).unwrap(), HEARD);
    assert_eq!(watch.wait(NOW).unwrap(), None);
    assert!(watch.describe().starts_with("nothing"), "{}", watch.describe());
}

#[test]
fn a_manager_that_hangs_up_at_once_is_left_alone() {
    let root = laptop_with(&[("proc/pressure/memory", STALLS)]);
    let path = root.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut watch = told(at(&root), &path, None);
    drop(listener.accept().unwrap());
    // Were it called again and again, this would never be answered: nobody accepts any more.
    assert_eq!(watch.wait(NOW).unwrap(), None);
    assert!(
        watch.describe().contains("on ") && watch.describe().contains("proc/pressure/memory"),
        "{}",
        watch.describe()
    );
}

/// What the file says after a watch was opened.
fn after_opening(root: &TempDir, file: &str) -> String {
    let watch = at(root).watch_pressure().unwrap();
    assert!(watch.describe().contains(file), "{}", watch.describe());
    fs::read_to_string(root.path().join(file)).unwrap()
}

#[test]
fn the_own_group_comes_before_the_machine() {
    let group = ("proc/self/cgroup", "0::/app.scope\n");
    let own = "sys/fs/cgroup/app.scope/memory.pressure";
    let trigger = "some 150000 2000000\0";
    let root = laptop_with(&[group, (own, STALLS), ("proc/pressure/memory", STALLS)]);
    assert!(after_opening(&root, own).starts_with(trigger));
    assert_eq!(fs::read_to_string(root.path().join("proc/pressure/memory")).unwrap(), STALLS, "one trigger is enough");

    let root = laptop_with(&[group, ("proc/pressure/memory", STALLS)]);
    assert!(after_opening(&root, "proc/pressure/memory").starts_with(trigger));
}

#[test]
fn a_file_that_the_manager_names_gets_the_managers_trigger_or_ours() {
    let root = laptop_with(&[("their.pressure", STALLS), ("our.pressure", STALLS), ("proc/pressure/memory", STALLS)]);
    let (theirs, ours) = (root.path().join("their.pressure"), root.path().join("our.pressure"));
    let mut watch = told(at(&root), &theirs, Some(b"full 100000 1000000"));
    assert!(fs::read_to_string(&theirs).unwrap().starts_with("full 100000 1000000\0"));
    assert_eq!(watch.wait(NOW).unwrap(), None, "a file that can be read is no event");
    told(at(&root), &ours, None);
    assert!(fs::read_to_string(&ours).unwrap().starts_with("some 150000 2000000\0"));
}

#[test]
fn nothing_is_written_to_a_file_that_tells_no_stalls() {
    let root = laptop_with(&[("diary", "Dear diary"), ("empty", "")]);
    for name in ["diary", "empty"] {
        let path = root.path().join(name);
        let before = fs::read(&path).unwrap();
        let watch = told(at(&root), &path, None);
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(
            watch.describe().starts_with("nothing") && watch.describe().contains("does not tell"),
            "{}",
            watch.describe()
        );
    }
}

#[test]
fn a_manager_can_switch_it_off() {
    let root = laptop_with(&[("proc/pressure/memory", STALLS)]);
    let mut watch = told(at(&root), Path::new("/dev/null"), None);
    assert_eq!(watch.wait(NOW).unwrap(), None);
    assert_eq!(watch.describe(), "nothing (MEMORY_PRESSURE_WATCH is /dev/null, which switches it off)");
    assert_eq!(fs::read_to_string(root.path().join("proc/pressure/memory")).unwrap(), STALLS);
}

#[test]
fn what_makes_no_sense_is_named_and_the_next_best_is_taken() {
    let root = laptop_with(&[("proc/pressure/memory", STALLS), ("their.pressure", STALLS)]);
    let theirs = root.path().join("their.pressure");
    let watch = |watch: &Path, write: &str| {
        let watch = at(&root).with_pressure_watch(Some(watch.into()), Some(write.into())).watch_pressure().unwrap();
        watch.describe()
    };
    for (described, problem) in [
        (watch(Path::new("relative/path"), ""), "not an absolute path"),
        (watch(Path::new("/no/such/file"), ""), "/no/such/file"),
        (watch(root.path(), ""), "neither a file, nor a FIFO, nor a socket"),
        (watch(&theirs, "no base64!"), "MEMORY_PRESSURE_WRITE is not base64"),
    ] {
        assert!(described.starts_with("`some 150000 2000000` on "), "{described}");
        assert!(described.contains("proc/pressure/memory (") && described.contains(problem), "{described}");
    }
    assert_eq!(fs::read_to_string(&theirs).unwrap(), STALLS);
}

#[test]
fn without_any_source_it_only_times_out_and_says_why() {
    let root = laptop_with(&[]);
    let mut watch = at(&root).watch_pressure().unwrap();
    assert_eq!(watch.wait(Duration::from_millis(1)).unwrap(), None);
    let described = watch.describe();
    assert!(described.starts_with("nothing (no control group of version 2"), "{described}");
    assert!(described.contains("proc/pressure/memory"), "{described}");
}

#[test]
fn the_kernel_at_hand_takes_the_trigger() {
    if fs::OpenOptions::new().write(true).open("/proc/pressure/memory").is_err() {
        eprintln!("SKIPPED: this kernel has no /proc/pressure/memory, or it may not be written to");
        return;
    }
    let mut watch = Linux::at("/").watch_pressure().unwrap();
    assert!(watch.describe().starts_with("`some 150000 2000000` on /"), "{}", watch.describe());
    // Whether there is pressure at this moment is not for a test to say.
    watch.wait(NOW).unwrap();
    assert!(!host().watch_pressure().unwrap().describe().is_empty());
}

#[test]
fn a_group_that_is_removed_is_noticed() {
    let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(Path::new)
        .into_iter()
        .find(|mount| mount.join("cgroup.procs").exists() && mount.join("memory.pressure").exists());
    let group = mount.map(|mount| mount.join(format!("locara-test-{}", std::process::id())));
    let Some(group) = group.filter(|group| std::fs::create_dir(group).is_ok()) else {
        eprintln!("SKIPPED: no control group of version 2 can be made here; run as root to test that");
        return;
    };
    let root = laptop_with(&[]);
    let mut watch = told(at(&root), &group.join("memory.pressure"), None);
    let described = watch.describe();
    let before = watch.wait(NOW);
    fs::remove_dir(&group).unwrap();
    assert!(described.contains("locara-test"), "{described}");
    assert_eq!(before.unwrap(), None, "an empty group cannot stall");
    assert_eq!(watch.wait(Duration::from_millis(1)).unwrap(), None);
    assert!(watch.describe().starts_with("nothing") && watch.describe().contains("went away"), "{}", watch.describe());
}

//! Pages of real mapped files: dropped, read in and counted by the kernel of the machine the test runs on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]
#![allow(unsafe_code, reason = "mapping a file has no safe call; every file here belongs to its test alone")]

mod common;

use std::path::{Path, PathBuf};

use common::{at, laptop_with};
use fs_err as fs;
use locara_platform::{Evicted, Platform, PlatformError, host};
use memmap2::{Mmap, MmapMut, MmapOptions};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
/// More than one piece of a prefetch, and not a whole number of them.
const SIZE: usize = 70 * MIB;

/// A folder on the disk of the build: the usual one for temporary files may live in memory.
fn disk() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A file that is on the disk: pages that wait to be written could not be dropped.
fn file(folder: &TempDir, bytes: usize) -> PathBuf {
    let path = folder.path().join("weights.gguf");
    let content: Vec<u8> = (0..bytes).map(|at| (at / 4096 % 251) as u8).collect();
    fs::write(&path, content).unwrap();
    fs::File::open(&path).unwrap().sync_all().unwrap();
    path
}

fn map(path: &Path) -> Mmap {
    // SAFETY: the file belongs to this test, which neither shortens nor changes it while it is mapped.
    unsafe { Mmap::map(&fs::File::open(path).unwrap()) }.unwrap()
}

/// Touches every page, and proves that the content is the file's.
fn check_content(map: &Mmap) {
    let wrong = map.iter().step_by(4096).enumerate().find(|(page, byte)| usize::from(**byte) != page % 251);
    assert_eq!(wrong, None);
}

fn refusal(result: Result<impl std::fmt::Debug, PlatformError>) -> String {
    match result {
        Err(error @ PlatformError::Refused { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn pages_are_dropped_and_read_in_again() {
    let folder = disk();
    let path = file(&folder, SIZE);
    let host = host();
    assert_eq!(host.residency(&path).unwrap().resident_bytes, 0, "not mapped yet");

    let map = map(&path);
    check_content(&map);
    let all = SIZE as u64;
    let warm = host.residency(&path).unwrap();
    assert_eq!((warm.file_bytes, warm.resident_bytes), (all, all));
    assert!(warm.cached_bytes.is_none_or(|cached| cached == all), "{warm:?}");

    // Each processor keeps a few pages in its hands that cannot be dropped at that moment.
    let few = all / 16;
    let evicted = host.evict(&path).unwrap();
    assert!(evicted.before_bytes == all && evicted.after_bytes < few, "{evicted:?}");
    assert!(evicted.freed_bytes() > all - few, "{evicted:?}");
    let cold = host.residency(&path).unwrap();
    assert!(cold.file_bytes == all && cold.resident_bytes < few, "{cold:?}");
    assert!(cold.cached_bytes.is_none_or(|cached| cached < few), "the cache let go of them too: {cold:?}");
    let mapping = host.mapping(&path).unwrap();
    assert_eq!((mapping.mapped_bytes, mapping.anonymous_bytes, mapping.dirty_bytes), (all, 0, 0), "the mapping stays");

    assert_eq!(host.prefetch(&path).unwrap(), all);
    assert_eq!(host.residency(&path).unwrap().resident_bytes, all);
    check_content(&map);
    host.evict(&path).unwrap();
    // The next touch reads from the disk without being asked.
    check_content(&map);
}

#[test]
fn every_mapping_of_a_file_counts() {
    let folder = disk();
    let path = file(&folder, 2 * MIB);
    // SAFETY: as in `map`.
    let part = unsafe { MmapOptions::new().offset(MIB as u64).len(MIB).map(&fs::File::open(&path).unwrap()) }.unwrap();
    let whole = map(&path);
    let host = host();
    assert_eq!(host.prefetch(&path).unwrap(), 3 * MIB as u64);
    // Whether pages that are mapped twice are dropped depends on the kernel; what is said about it is measured.
    let evicted = host.evict(&path).unwrap();
    assert_eq!(evicted.before_bytes, 3 * MIB as u64);
    assert_eq!(evicted.after_bytes, host.mapping(&path).unwrap().resident_bytes);
    check_content(&whole);
    assert_eq!(part[0], whole[MIB]);
}

#[test]
fn a_file_that_is_not_mapped_leaves_the_cache() {
    let folder = disk();
    let path = file(&folder, MIB);
    let host = host();
    assert_eq!(host.prefetch(&path).unwrap(), 0, "there is no mapping to read it into");
    assert_eq!(host.evict(&path).unwrap(), Evicted::default());
    assert!(host.residency(&path).unwrap().cached_bytes.is_none_or(|cached| cached == 0));
}

#[test]
fn mappings_that_could_hold_changes_are_refused() {
    let folder = disk();
    let path = file(&folder, MIB);
    let host = host();
    let open = || fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let clean = map(&path);
    {
        // SAFETY: as in `map`.
        let mut writable = unsafe { MmapMut::map_mut(&open()) }.unwrap();
        writable[0] = 7;
        let refused = refusal(host.evict(&path));
        assert!(refused.contains("weights.gguf: not evicted: it is mapped writable at "), "{refused}");
        assert!(refusal(host.prefetch(&path)).contains("not prefetched"));
        assert_eq!(writable[0], 7);
    }
    {
        // SAFETY: as in `map`.
        let mut private = unsafe { MmapOptions::new().map_copy(&open()) }.unwrap();
        private[0] = 9;
        assert!(refusal(host.evict(&path)).contains("mapped privately at "));
        assert_eq!((private[0], clean[0]), (9, 7));
    }
    // SAFETY: as in `map`.
    let private = unsafe { MmapOptions::new().map_copy_read_only(&open()) }.unwrap();
    assert!(refusal(host.evict(&path)).contains("mapped privately at "));
    drop(private);
    // Written to before, clean now.
    open().sync_all().unwrap();
    host.evict(&path).unwrap();
    assert_eq!(clean[0], 7);
}

#[test]
fn a_file_that_lives_in_memory_is_not_swapped_out() {
    let shm = Path::new("/dev/shm");
    let kind = rustix::fs::statfs(shm).map(|kind| kind.f_type);
    // `TMPFS_MAGIC`
    if kind.is_err() || kind.unwrap() as u64 != 0x0102_1994 {
        eprintln!("SKIPPED: /dev/shm is no tmpfs here");
        return;
    }
    let folder = TempDir::new_in(shm).unwrap();
    let path = file(&folder, MIB);
    let map = map(&path);
    let host = host();
    assert_eq!(host.prefetch(&path).unwrap(), MIB as u64);
    let refused = refusal(host.evict(&path));
    assert!(refused.contains("swapping") && refused.contains("move it to a disk"), "{refused}");
    assert_eq!(host.residency(&path).unwrap().resident_bytes, MIB as u64);
    check_content(&map);
}

#[test]
fn a_missing_file_is_named() {
    let path = Path::new("/no/such/weights.gguf");
    let host = host();
    for error in [host.evict(path).unwrap_err(), host.prefetch(path).unwrap_err(), host.residency(path).unwrap_err()] {
        assert!(error.to_string().contains("/no/such/weights.gguf"), "{error}");
    }
}

#[test]
fn mappings_that_come_and_go_meanwhile_do_no_harm() {
    let folder = disk();
    let path = file(&folder, 2 * MIB);
    let held = map(&path);
    let host = host();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            for _ in 0..200 {
                check_content(&map(&path));
            }
        });
        while !other.is_finished() {
            host.evict(&path).unwrap();
            host.prefetch(&path).unwrap();
        }
    });
    check_content(&held);
}

#[test]
fn ranges_that_a_fixture_invented_do_no_harm() {
    let folder = disk();
    let path = file(&folder, MIB);
    let shown = fs::canonicalize(&path).unwrap();
    let shown = shown.display();
    let evict = |maps: &str| {
        let root = laptop_with(&[("proc/self/maps", maps), ("proc/self/smaps", "")]);
        at(&root).evict(&path)
    };
    // Nothing is mapped there; text that is no range; another file, and one whose place this one took; too far; backwards.
    for maps in [
        format!("10000-20000 r--s 00000000 08:01 42 {shown}\n"),
        format!("garbage\n-\nxyz-20000 r--s 0 08:01 42 {shown}\n10000 r--s {shown}\n10000-20000 r-- 0 0 0 {shown}\n"),
        format!("10000-20000 rw-p 00000000 08:01 42 {shown} (deleted)\n10000-20000 rw-p 0 08:01 42 {shown}.other\n"),
        format!("99999999999999999999-20000 r--s 00000000 08:01 42 {shown}\n"),
        format!("20000-10000 r--s 00000000 08:01 42 {shown}\n"),
        "\u{fffd}\n".to_owned(),
        String::new(),
    ] {
        assert_eq!(evict(&maps).unwrap(), Evicted::default(), "{maps}");
    }
    // The kernel rejects what is no range of pages, and its words are passed on.
    let error = evict(&format!("10001-20000 r--s 00000000 08:01 42 {shown}\n")).unwrap_err();
    assert!(error.to_string().contains("MADV_PAGEOUT"), "{error}");
    assert!(refusal(evict(&format!("10000-20000 rw-s 00000000 08:01 42 {shown}\n"))).contains("writable at 10000"));
}

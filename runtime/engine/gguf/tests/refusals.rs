//! Every way to lie has its own error, with the place and the numbers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fmt::Write as _;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use locara_gguf::{Gguf, GgufError};

/// The broken files of the zoo with the message each gets. A new lie, or a changed message, shows up here.
#[test]
fn every_broken_file_gets_its_message() {
    let mut messages = String::new();
    for broken in locara_zoo::broken() {
        let error = Gguf::parse(&broken.file).expect_err(broken.name);
        let debug = format!("{error:?}");
        let kind = debug.split([' ', '{']).next().unwrap();
        writeln!(messages, "{}\n    {kind}: {error}", broken.name).unwrap();
    }
    insta::assert_snapshot!(messages);
}

#[test]
fn a_missing_file_is_named() {
    let error = Gguf::open("/nowhere/model.gguf").unwrap_err();
    assert_eq!(error.to_string(), "cannot open /nowhere/model.gguf");
    assert!(matches!(error, GgufError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound));
}

#[test]
fn a_folder_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Gguf::open(folder.path()), Err(GgufError::NotAFile { .. })));
}

/// A file that stops giving bytes at `fails_at`, as a bad disk does.
struct BadDisk {
    file: Cursor<Vec<u8>>,
    fails_at: u64,
}

impl Read for BadDisk {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.fails_at.saturating_sub(self.file.position());
        if left == 0 {
            return Err(io::Error::other("bad sector"));
        }
        let len = out.len().min(usize::try_from(left).unwrap());
        self.file.read(&mut out[..len])
    }
}

impl Seek for BadDisk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn a_read_error_keeps_its_place_and_cause() {
    let file = locara_zoo::draft(&locara_zoo::find("tiny-llama").unwrap().spec).unwrap().to_bytes().unwrap();
    let len = file.len() as u64;
    let error = Gguf::read(BadDisk { file: Cursor::new(file), fails_at: 100 }, len).unwrap_err();
    assert!(
        matches!(&error, GgufError::Read { offset, source } if *offset <= 100 && source.to_string() == "bad sector")
    );
}

/// The caller says how long the file is; a file that is shorter (truncated while it is read) is an error, not a panic.
#[test]
fn a_file_shorter_than_claimed_is_a_read_error() {
    let file = locara_zoo::draft(&locara_zoo::find("tiny-llama").unwrap().spec).unwrap().to_bytes().unwrap();
    let error = Gguf::read(Cursor::new(&file[..200]), file.len() as u64).unwrap_err();
    assert!(
        matches!(&error, GgufError::Read { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof),
        "{error}"
    );
}

/// Sizes that a file of this length could hold, and no real header has: refused before anything of them is read.
#[test]
fn a_header_beyond_its_limit_is_refused_before_it_is_read() {
    let mut draft = locara_zoo::Draft::new(1);
    draft.key("tokens", vec![7_u32]);
    let mut header = draft.header().unwrap();
    let count = header.windows(8).rposition(|bytes| bytes == 1_u64.to_le_bytes()).unwrap();
    header[count..count + 8].copy_from_slice(&(20_u64 << 20).to_le_bytes());
    let error = Gguf::read(Cursor::new(header), 1 << 40).unwrap_err();
    assert_eq!(
        error.to_string(),
        "offset 54: the value of key \"tokens\" would end 83886134 bytes into the file, a header may take 67108864"
    );
}

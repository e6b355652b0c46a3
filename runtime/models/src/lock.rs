//! Advisory locks between processes. The system lets go of them when the holder dies, so none is ever left over.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock, fstat, stat};

/// A lock that this value holds, on a file that holds nothing else.
#[derive(Debug)]
pub(crate) struct FileLock {
    path: PathBuf,
    /// Closing it lets go of the lock.
    _file: fs_err::File,
}

impl FileLock {
    /// Takes the lock if nobody holds it.
    pub(crate) fn attempt(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            match flock(file.file(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Whoever held it before may have removed the file; then this lock is on a file without a name.
            let ours = fstat(file.file())?;
            match stat(path) {
                Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => {
                    return Ok(Some(Self { path: path.to_owned(), _file: file }));
                }
                Ok(_) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the lock, waiting up to `patience` for it. For locks that are held for milliseconds.
    pub(crate) fn take(path: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let start = Instant::now();
        loop {
            if let Some(lock) = Self::attempt(path)? {
                return Ok(Some(lock));
            }
            if start.elapsed() >= patience {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Lets go and removes the file, in the order that leaves no lock on a file without a name behind.
    pub(crate) fn remove(self) {
        let _ = fs_err::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_a_removed_lock_can_be_taken_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::attempt(&path).unwrap().unwrap();
        assert!(FileLock::attempt(&path).unwrap().is_none());
        assert!(FileLock::take(&path, Duration::ZERO).unwrap().is_none());
        held.remove();
        assert!(!path.exists());
        let again = FileLock::attempt(&path).unwrap().unwrap();
        drop(again);
        assert!(FileLock::attempt(&path).unwrap().is_some());
    }
}

//! Hearing of memory pressure: what the service manager said, else a stall trigger on the own group, else on the machine.
//!
//! Unprivileged triggers are looked at every two seconds by the kernel, so an event is up to that late.

#![allow(
    unsafe_code,
    reason = "poll has no safe wrapper among the features that are built; the one call says why it is sound"
)]

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileTypeExt, net::UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use base64::Engine;
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use super::{Linux, cgroup, sensors};
use crate::{PlatformError, PressureEvent, PressureWatch};

/// Where to listen.
pub(super) const WATCH: &str = "MEMORY_PRESSURE_WATCH";
/// What to write there first, in base64.
pub(super) const WRITE: &str = "MEMORY_PRESSURE_WRITE";
/// 150 ms of stall in 2 s. Without privileges the window must be a multiple of 2 s.
const TRIGGER: &str = "some 150000 2000000";

/// What the service manager said.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) watch: Option<OsString>,
    pub(super) write: Option<OsString>,
}

/// Places to listen at, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Told,
    Group,
    Machine,
    Nowhere,
}

/// A source that is open.
#[derive(Debug)]
enum Source {
    /// A file of stalls with a trigger in it: it says `POLLPRI`.
    Trigger(fs::File),
    /// A FIFO or socket: it says `POLLIN`, and what can be read means nothing.
    Stream(OwnedFd),
}

/// What waiting brought.
enum Heard {
    Pressure,
    Nothing,
    /// The group was removed, or the other end closed.
    Gone,
}

/// The watch.
#[derive(Debug)]
pub(super) struct Watch {
    linux: Linux,
    place: Place,
    source: Option<Source>,
    /// Says what the source is.
    name: String,
    /// Why it is not a better one.
    why: Vec<String>,
    /// The source held for a whole wait or brought an event. One that goes away before is not opened again: that could go on
    /// forever.
    proved: bool,
}

impl Watch {
    pub(super) fn open(linux: Linux) -> Self {
        let mut watch =
            Self { linux, place: Place::Told, source: None, name: String::new(), why: Vec::new(), proved: false };
        watch.open_from(Place::Told, Vec::new());
        watch
    }

    /// Opens the first place from `first` on that can be listened at, and adds to `why` the reasons against those before it.
    fn open_from(&mut self, first: Place, mut why: Vec<String>) {
        (self.place, self.source, self.proved) = (first, None, false);
        "nothing".clone_into(&mut self.name);
        loop {
            let (opened, next) = match self.place {
                Place::Told => (told(&self.linux.told), Place::Group),
                Place::Group => (group(&self.linux), Place::Machine),
                Place::Machine => (trigger(&self.linux.path(sensors::PRESSURE), TRIGGER.as_bytes()), Place::Nowhere),
                Place::Nowhere => break,
            };
            match opened {
                Ok(Opened::Source(source, name)) => {
                    (self.source, self.name) = (Some(source), name);
                    break;
                }
                Ok(Opened::Off) => {
                    why.push(format!("{WATCH} is /dev/null, which switches it off"));
                    break;
                }
                Err(reason) => why.extend(reason),
            }
            self.place = next;
        }
        self.why = why;
    }

    fn replace_source(&mut self) {
        let next = match self.place {
            // The process may have been moved to another group; the manager may have started anew.
            place if self.proved => place,
            Place::Told => Place::Group,
            Place::Group => Place::Machine,
            Place::Machine | Place::Nowhere => Place::Nowhere,
        };
        let gone = format!("{} went away", self.name);
        self.open_from(next, vec![gone]);
    }
}

impl PressureWatch for Watch {
    fn wait(&mut self, timeout: Duration) -> Result<Option<PressureEvent>, PlatformError> {
        // `None`: longer than clocks count.
        let deadline = Instant::now().checked_add(timeout);
        let left = || deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        loop {
            let Some(source) = &mut self.source else {
                std::thread::sleep(left());
                return Ok(None);
            };
            match source.listen(left()) {
                Ok(Heard::Pressure) => {
                    self.proved = true;
                    return Ok(Some(PressureEvent { level: None }));
                }
                Ok(Heard::Nothing) if left().is_zero() => {
                    self.proved = true;
                    return Ok(None);
                }
                Ok(Heard::Nothing) => {}
                Ok(Heard::Gone) => self.replace_source(),
                Err(source) => return Err(PlatformError::Call { call: format!("poll of {}", self.name), source }),
            }
        }
    }

    fn describe(&self) -> String {
        if self.why.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, self.why.join("; ")) }
    }
}

impl Source {
    /// Waits at most `left`, which is cut to what the call takes.
    fn listen(&mut self, left: Duration) -> io::Result<Heard> {
        let (fd, events) = match self {
            Self::Trigger(file) => (file.as_raw_fd(), libc::POLLPRI),
            Self::Stream(fd) => (fd.as_raw_fd(), libc::POLLIN),
        };
        let mut poll = libc::pollfd { fd, events, revents: 0 };
        // Rounded up: rounded down, the last fraction of a millisecond would be spent spinning.
        let ms = i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        // SAFETY: one structure that lives here, and a descriptor that `self` keeps open.
        let ready = unsafe { libc::poll(&raw mut poll, 1, ms) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(Heard::Nothing) } else { Err(error) };
        }
        let gone = poll.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        match self {
            // A group that was removed says both that it is gone and that there is pressure.
            Self::Trigger(_) if gone => Ok(Heard::Gone),
            Self::Trigger(_) if poll.revents & libc::POLLPRI != 0 => Ok(Heard::Pressure),
            // The last words of a stream still count.
            Self::Stream(fd) if poll.revents & libc::POLLIN != 0 => Ok(drain(fd)),
            Self::Stream(_) if gone => Ok(Heard::Gone),
            Self::Trigger(_) | Self::Stream(_) => Ok(Heard::Nothing),
        }
    }
}

/// Reads and forgets what is there, at most 64 KiB: a writer that never stops must not hold the watch.
fn drain(fd: &OwnedFd) -> Heard {
    let mut heard = Heard::Nothing;
    let mut buffer = [0; 4096];
    for _ in 0..16 {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => return if matches!(heard, Heard::Pressure) { heard } else { Heard::Gone },
            Ok(_) => heard = Heard::Pressure,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => break,
            Err(_) => return if matches!(heard, Heard::Pressure) { heard } else { Heard::Gone },
        }
    }
    heard
}

/// What came of opening a place.
enum Opened {
    Source(Source, String),
    /// The service manager does not want it.
    Off,
}

/// Why a place cannot be listened at; `None` where it is not even named.
type Reason = Option<String>;

/// What the service manager named.
fn told(told: &Told) -> Result<Opened, Reason> {
    let Some(path) = told.watch.as_deref().filter(|path| !path.is_empty()) else { return Err(None) };
    if path == "/dev/null" {
        return Ok(Opened::Off);
    }
    let path = Path::new(path);
    let bad = |problem: &dyn std::fmt::Display| Some(format!("{WATCH} is {}: {problem}", path.display()));
    if !path.is_absolute() {
        return Err(bad(&"not an absolute path"));
    }
    let write = match &told.write {
        None => None,
        Some(text) => match base64::prelude::BASE64_STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => Some(bytes),
            Err(error) => return Err(bad(&format!("{WRITE} is not base64: {error}"))),
        },
    };
    let kind = fs::metadata(path).map_err(|error| bad(&error))?.file_type();
    if kind.is_file() {
        return trigger(path, write.as_deref().unwrap_or(TRIGGER.as_bytes()));
    }
    let stream = if kind.is_fifo() {
        fifo(path)
    } else if kind.is_socket() {
        socket(path, write.as_deref())
    } else {
        return Err(bad(&"neither a file, nor a FIFO, nor a socket"));
    };
    let name = format!("{} {}, named by {WATCH}", if kind.is_fifo() { "FIFO" } else { "socket" }, path.display());
    Ok(Opened::Source(Source::Stream(stream.map_err(|error| bad(&error))?), name))
}

/// Nothing is written to a FIFO: it has no direction, and the watch would hear itself.
fn fifo(path: &Path) -> io::Result<OwnedFd> {
    let open = |write| {
        let flags = libc::O_NONBLOCK;
        fs::OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(path)
            .map(|file| file.into_file().into())
    };
    // A reader that is also a writer is not told that the last writer closed, which it would be over and over.
    open(true).or_else(|_| open(false))
}

fn socket(path: &Path, write: Option<&[u8]>) -> io::Result<OwnedFd> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_nonblocking(true)?;
    socket.write_all(write.unwrap_or_default())?;
    Ok(socket.into())
}

/// The own group's file; where hierarchies are mixed only one of the places has it.
fn group(linux: &Linux) -> Result<Opened, Reason> {
    let mut reason = None;
    for file in cgroup::pressure_files(linux).iter().map(|file| linux.root.join(file)).filter(|file| file.exists()) {
        match trigger(&file, TRIGGER.as_bytes()) {
            Ok(opened) => return Ok(opened),
            Err(why) => reason = why,
        }
    }
    Err(reason.or_else(|| Some("no control group of version 2 tells about memory pressure".to_owned())))
}

/// Puts a trigger into a file of stalls.
fn trigger(path: &Path, text: &[u8]) -> Result<Opened, Reason> {
    let because = |error: io::Error| Some(error.to_string());
    let mut file =
        fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(because)?;
    // Whatever the environment names is written to, so make sure that it is what it should be.
    let mut start = [0; 5];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    if read.is_err() || &start != b"some " {
        return Err(Some(format!("{} does not tell about stalls", path.display())));
    }
    // The kernel takes the last byte for the end of the text, and the text in one piece only.
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let text = [text, b"\0"].concat();
    let written = file.write(&text).map_err(because)?;
    let shown = String::from_utf8_lossy(&text[..text.len() - 1]).into_owned();
    if written != text.len() {
        return Err(Some(format!("{}: only {written} bytes of `{shown}` were taken", path.display())));
    }
    Ok(Opened::Source(Source::Trigger(file), format!("`{}` on {}", shown.trim_end(), path.display())))
}

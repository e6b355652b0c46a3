//! A command at a terminal, and somebody who types.

use std::{
    io::{Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    process::{Child, Command, ExitStatus},
    sync::mpsc,
    thread,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{PATIENCE, Watchdog};

/// A command whose input and output are a terminal. Dropping it before its end kills it.
#[derive(Debug)]
pub struct Terminal {
    keyboard: std::fs::File,
    screen: mpsc::Receiver<Vec<u8>>,
    /// What came and was not expected yet.
    shown: String,
    child: Child,
    watchdog: Option<Watchdog>,
}

impl Terminal {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        // One without a size shows no bars.
        tcsetwinsize(&master, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let name = std::ffi::OsStr::from_bytes(name.as_bytes());
        let open = || fs_err::OpenOptions::new().read(true).write(true).open(name).unwrap().into_parts().0;
        // What a terminal says of itself; without it nothing is drawn.
        command.env("TERM", "xterm");
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        // The command would keep its ends open, and the reader would never see the end.
        drop(command);
        let keyboard = std::fs::File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let (tell, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // At its end a terminal is an error.
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                if tell.send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let watchdog = Some(Watchdog::over(&child));
        Self { keyboard, screen, shown: String::new(), child, watchdog }
    }

    /// Types this. Enter is `\r`, Ctrl-D is `\u{4}`.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until these words are shown, and gives what came before them.
    ///
    /// # Panics
    /// They are not.
    pub fn expect(&mut self, words: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(words) {
                let rest = self.shown.split_off(at + words.len());
                let mut before = std::mem::replace(&mut self.shown, rest);
                before.truncate(at);
                return before;
            }
            let Ok(bytes) = self.screen.recv_timeout(PATIENCE) else {
                panic!("{words:?} does not come; there is:\n{}", self.shown.escape_debug())
            };
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// The command, to send it a signal.
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.watchdog = None;
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // After its end there is nothing to kill.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

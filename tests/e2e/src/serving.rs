//! A host that serves, for as long as it is held.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    thread,
};

use rustix::process::Signal;

use crate::{PATIENCE, send};

/// `locara serve`, listening. It is asked to stop when this is dropped, and waited for.
#[derive(Debug)]
pub struct Serving {
    /// Address and port.
    pub address: String,
    child: Child,
}

impl Serving {
    /// # Panics
    /// It does not listen.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (tell, told) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        // Read to the end, so that the host never waits for a reader.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut said = String::new();
        loop {
            let Ok(line) = told.recv_timeout(PATIENCE) else {
                let _ = child.kill().and_then(|()| child.wait());
                panic!("the host does not listen; it said:\n{said}")
            };
            if let Some((_, address)) = line.split_once("listens on http://") {
                return Self { address: address.trim().to_owned(), child };
            }
            said.push_str(&line);
            said.push('\n');
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        send(&self.child, Signal::TERM);
        let _ = self.child.wait();
    }
}

//! A hub of Hugging Face's kind with one repository of one file.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A commit, as hubs write them.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The hub. Its threads end with the test's process.
#[derive(Debug)]
pub struct Hub {
    /// For `HF_ENDPOINT`.
    pub endpoint: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    repository: String,
    file: String,
    bytes: Vec<u8>,
    sha256: String,
    /// The next download breaks off here and holds the connection.
    hold: Mutex<Option<usize>>,
    held: Mutex<Option<TcpStream>>,
    /// First bytes that downloads asked for.
    asked: Mutex<Vec<usize>>,
}

impl Hub {
    /// A hub with `file` of these bytes in `repository`.
    #[must_use]
    pub fn with(repository: &str, file: &str, bytes: Vec<u8>, sha256: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            repository: repository.to_owned(),
            file: file.to_owned(),
            bytes,
            sha256: sha256.to_owned(),
            hold: Mutex::default(),
            held: Mutex::default(),
            asked: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || answer(&state, stream));
            }
        });
        Self { endpoint, state }
    }

    /// The next download gets so many bytes, and then silence.
    pub fn hold_after(&self, bytes: usize) {
        *self.state.hold.lock().unwrap() = Some(bytes);
    }

    /// First bytes that downloads asked for, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<usize> {
        self.state.asked.lock().unwrap().clone()
    }
}

/// Answers one request and closes the connection. What cannot be written is the client's business.
fn answer(state: &State, mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = first.split(' ').nth(1)?;
    let State { repository, file, bytes, sha256, .. } = state;
    if path.starts_with(&format!("/api/models/{repository}/revision/main")) {
        let body = format!(
            r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "{file}", "size": {size}, "lfs": {{"sha256": "{sha256}", "size": {size}}}}}]}}"#,
            size = bytes.len()
        );
        return write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
            .ok();
    }
    if path != format!("/{repository}/resolve/{COMMIT}/{file}") {
        return write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok();
    }
    let range =
        headers.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let from = range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0).min(bytes.len());
    state.asked.lock().unwrap().push(from);
    let rest = &bytes[from..];
    let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\netag: \"1\"\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\nconnection: close\r\n\r\n",
        rest.len(),
        bytes.len().saturating_sub(1),
        bytes.len()
    )
    .ok()?;
    if let Some(hold) = state.hold.lock().unwrap().take() {
        stream.write_all(&rest[..hold.min(rest.len())]).ok()?;
        // Open, and silent.
        *state.held.lock().unwrap() = Some(stream);
        return Some(());
    }
    stream.write_all(rest).ok()
}

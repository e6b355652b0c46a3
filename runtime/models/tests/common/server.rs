//! An HTTP server that misbehaves as it is told: it may lie about lengths, cut answers off, hold them, or change its mind.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    /// By lower-case name.
    pub(crate) headers: HashMap<String, String>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte that `Range` asks for.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Instead of the real length.
    pub(crate) declared: Option<usize>,
    /// In chunks, without a length.
    pub(crate) chunked: bool,
    /// The connection breaks after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// The connection says nothing more after so many bytes of the body.
    pub(crate) hold: Option<usize>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::status(200) }
    }

    pub(crate) fn redirect(to: String) -> Self {
        Self::status(302).with("location", to)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }

    /// A file as a good server sends it: the part that was asked for, if it is still the same version.
    pub(crate) fn file(seen: &Seen, bytes: &[u8], etag: &str) -> Self {
        let same = seen.header("if-range").is_none_or(|tag| tag == etag);
        match seen.from().filter(|_| same) {
            Some(from) if from >= bytes.len() => Self::status(416),
            Some(from) => Self { body: bytes[from..].to_vec(), ..Self::status(206) }
                .with("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
            None => Self::ok(bytes),
        }
        .with("etag", etag)
    }
}

/// The server. It goes with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Answers every request with what `answer` says; the number counts earlier requests of the same path.
    pub(crate) async fn start(answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                tokio::spawn(async move { serve(stream, &all, answer.as_ref()).await });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far whose path ends so.
    pub(crate) fn seen(&self, ending: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path.ends_with(ending)).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, all: &Mutex<Vec<Seen>>, answer: &(dyn Fn(&Seen, usize) -> Reply + Send + Sync)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let seen = Seen { path, headers };
    let before = {
        let mut all = all.lock().unwrap();
        all.push(seen.clone());
        all.iter().filter(|earlier| earlier.path == seen.path).count() - 1
    };
    send(&mut stream, answer(&seen, before)).await;
}

async fn send(stream: &mut TcpStream, reply: Reply) {
    let mut head = format!("HTTP/1.1 {} Whatever\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &match reply.chunked {
        true => "transfer-encoding: chunked\r\n\r\n".to_owned(),
        false => format!("content-length: {}\r\n\r\n", reply.declared.unwrap_or(reply.body.len())),
    };
    let _ = stream.write_all(head.as_bytes()).await;
    let end = reply.cut.or(reply.hold).unwrap_or(reply.body.len()).min(reply.body.len());
    if reply.chunked {
        let _ = stream.write_all(format!("{end:x}\r\n").as_bytes()).await;
        let _ = stream.write_all(&reply.body[..end]).await;
        let _ = stream.write_all(b"\r\n0\r\n\r\n").await;
    } else {
        let _ = stream.write_all(&reply.body[..end]).await;
    }
    let _ = stream.flush().await;
    if reply.hold.is_some() {
        let _ = stream.read_u8().await; // until the other side goes
    }
}

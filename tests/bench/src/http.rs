//! What the HTTP layer adds: the way of a request and of a token through it, without an engine's time.
//!
//! The router of the host over a real TCP connection, with a scripted engine behind it, against the same engine asked
//! directly. The client is in this process and its time is in the figures too.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use locara_api::{Api, Ask, Check, Config, Host, ModelEntry, Refusal, Served};
use locara_engine::{Engine, Event, Message, Request, SharedEngine};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
};

use crate::report::{Section, cells};
use crate::scripted::{Pace, Scripted};
use crate::stats::{Spread, quantile};

/// Requests of one token each.
const REQUESTS: usize = 2_000;
/// The first ones fill caches and are not counted.
const WARM_UP: usize = 200;
/// Tokens of a streamed answer, all ready at once. Below the bound that the HTTP layer sets to an answer.
const TOKENS: u32 = 5_000;
/// Streamed answers.
const ROUNDS: usize = 9;

/// See the module.
pub(crate) struct Http {
    /// Whole requests, µs, sorted by nobody.
    over_http: Vec<f64>,
    direct: Vec<f64>,
    /// One token of a stream beyond what the engine takes for it, µs.
    token_us: Spread,
}

/// Measures requests and tokens.
pub(crate) fn measure(runtime: &Runtime) -> Result<Http> {
    eprintln!("through the HTTP layer");
    runtime.block_on(async {
        let engine: SharedEngine = Arc::new(Scripted::new(Pace::Ready));
        let mut client = Client::connect(serve(engine.clone()).await?).await?;
        let (mut over_http, mut direct) = (Vec::new(), Vec::new());
        // In turn: what slows the machine down for a while slows both down.
        for at in 0..WARM_UP + REQUESTS {
            let (http, alone) = (client.whole().await?, ask(&*engine, 1).await?);
            if at >= WARM_UP {
                over_http.push(http);
                direct.push(alone);
            }
        }
        let mut tokens = Vec::new();
        for _ in 0..ROUNDS {
            let (http, alone) = (client.stream(TOKENS).await?, ask(&*engine, TOKENS).await?);
            tokens.push((http - alone) / f64::from(TOKENS));
        }
        Ok(Http { over_http, direct, token_us: Spread::of(&tokens) })
    })
}

/// One answer of the engine without HTTP, µs.
async fn ask(engine: &dyn Engine, max_tokens: u32) -> Result<f64> {
    let started = Instant::now();
    let mut generation = engine.submit(Request { max_tokens, ..Request::chat(vec![Message::user("Hi")]) });
    while let Some(event) = generation.events.recv().await {
        if let Event::Done(outcome) = event {
            outcome?;
            return Ok(micros(started));
        }
    }
    bail!("the engine stopped");
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// The router of the host on a port of its own. It ends with the runtime.
async fn serve(engine: SharedEngine) -> Result<SocketAddr> {
    let router = Api::new(Arc::new(OneEngine(engine)), Config::default()).router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// A host with one engine that is always there.
struct OneEngine(SharedEngine);

impl OneEngine {
    fn served(&self) -> Served {
        Served { model: "scripted".to_owned(), engine: self.0.clone() }
    }
}

impl Host for OneEngine {
    fn models(&self) -> BoxFuture<'_, Vec<ModelEntry>> {
        async { Vec::new() }.boxed()
    }

    fn engine(&self, _ask: Ask) -> BoxFuture<'_, Result<Served, Refusal>> {
        async { Ok(self.served()) }.boxed()
    }

    fn loaded(&self) -> Vec<Served> {
        vec![self.served()]
    }

    fn unload(&self, _model: String) -> BoxFuture<'_, Result<(), Refusal>> {
        async { Ok(()) }.boxed()
    }

    fn memory(&self) -> BoxFuture<'_, serde_json::Value> {
        async { serde_json::Value::Null }.boxed()
    }

    fn events(&self) -> BoxStream<'static, serde_json::Value> {
        futures::stream::empty().boxed()
    }

    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        async { Vec::new() }.boxed()
    }
}

/// One connection that is kept. By hand: what a client's library takes is not the host's.
struct Client {
    connection: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let connection = TcpStream::connect(address).await?;
        connection.set_nodelay(true)?;
        Ok(Self { connection, address, buffer: Vec::with_capacity(1 << 20) })
    }

    async fn send(&mut self, max_tokens: u32, stream: bool) -> Result<()> {
        let body = format!(
            r#"{{"model":"default","messages":[{{"role":"user","content":"Hi"}}],"max_tokens":{max_tokens},"stream":{stream}}}"#
        );
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        self.buffer.clear();
        Ok(self.connection.write_all(request.as_bytes()).await?)
    }

    async fn read(&mut self) -> Result<()> {
        let n = self.connection.read_buf(&mut self.buffer).await?;
        ensure!(n > 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.buffer));
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let good = self.buffer.starts_with(b"HTTP/1.1 200 ");
        ensure!(good, "the host answers {:?}", String::from_utf8_lossy(&self.buffer));
        Ok(())
    }

    /// One answer of one token, not streamed, µs.
    async fn whole(&mut self) -> Result<f64> {
        let started = Instant::now();
        self.send(1, false).await?;
        loop {
            self.read().await?;
            if length(&self.buffer)?.is_some_and(|length| self.buffer.len() >= length) {
                self.check()?;
                return Ok(micros(started));
            }
        }
    }

    /// One streamed answer, µs.
    async fn stream(&mut self, tokens: u32) -> Result<f64> {
        let started = Instant::now();
        self.send(tokens, true).await?;
        // The last chunk of a body without a length.
        while !self.buffer.ends_with(b"\r\n0\r\n\r\n") {
            self.read().await?;
        }
        let time = micros(started);
        self.check()?;
        let text = String::from_utf8_lossy(&self.buffer);
        let pieces = text.matches(" token\"").count();
        ensure!(pieces == tokens as usize && text.contains("[DONE]"), "{pieces} of {tokens} tokens came");
        Ok(time)
    }
}

/// Bytes of a response with its head, once the head is there.
fn length(response: &[u8]) -> Result<Option<usize>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = response.windows(END.len()).position(|window| window == END) else { return Ok(None) };
    let text = std::str::from_utf8(&response[..head])?;
    let mut fields = text.lines().filter_map(|line| line.split_once(": "));
    let field = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, value) = field.with_context(|| format!("no length in {text:?}"))?;
    Ok(Some(head + END.len() + value.trim().parse::<usize>()?))
}

impl Http {
    /// Of a request, µs: the HTTP layer's share of it.
    pub(crate) fn added_us(&self, q: f64) -> f64 {
        quantile(&self.over_http, q) - quantile(&self.direct, q)
    }

    /// Of a token in a stream, µs.
    pub(crate) fn token_us(&self) -> f64 {
        self.token_us.median
    }

    pub(crate) fn section(&self) -> Section {
        let row = |what: &str, q: f64| {
            let (http, alone) = (quantile(&self.over_http, q), quantile(&self.direct, q));
            vec![what.to_owned(), format!("{http:.1}"), format!("{alone:.1}"), format!("{:.1}", http - alone)]
        };
        let [min, median, max] = cells(self.token_us, 3);
        Section {
            title: "Through the HTTP layer".to_owned(),
            about: format!(
                "{REQUESTS} chat completions of one token over one connection on the loopback, and the same scripted engine \
                 asked directly, in turn. A token of a stream of {TOKENS} that are ready at once adds {median} µs ({min} to \
                 {max} over {ROUNDS} streams), its reader's time included."
            ),
            header: &["µs per request", "over HTTP", "engine alone", "added"],
            rows: vec![row("p50", 0.5), row("p99", 0.99)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_comes_and_what_http_adds_is_a_number() {
        let http = measure(&Runtime::new().unwrap()).unwrap();
        assert_eq!((http.over_http.len(), http.direct.len()), (REQUESTS, REQUESTS));
        assert!(http.added_us(0.5).is_finite() && http.token_us().is_finite());
    }

    #[test]
    fn the_length_of_a_response_is_that_of_head_and_body() {
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").unwrap(), Some(41));
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n").unwrap(), None);
        assert!(length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}

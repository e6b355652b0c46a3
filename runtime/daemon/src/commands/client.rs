//! The running host over HTTP, as any other client sees it: `locara ps`, `stop`, `chat` and `doctor` ask through this.
//!
//! It must never start a host, nor believe that whoever listens on the port is one.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use reqwest::{Method, Response, StatusCode, header};
use serde_json::Value;

use crate::{
    exit::Exit,
    failure::{Failure, one_line},
    paths::Paths,
    serve,
};

/// A host on this machine accepts a connection at once, or is not there.
const CONNECT: Duration = Duration::from_secs(3);
/// The variable with the key, where the host wants one.
const KEY: &str = "LOCARA_API_KEY";
/// Longest answer that is read whole, bytes. The account of memory has some kilobytes.
const MOST: usize = 16 << 20;

/// Talks to the host of this user.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    key: Option<String>,
}

/// Where the host of this user listens, as the configuration or `LOCARA_LISTEN` says.
pub(super) fn address(paths: &Paths) -> Result<SocketAddr, Failure> {
    if let Some(text) = std::env::var_os("LOCARA_LISTEN").filter(|text| !text.is_empty()) {
        let text = text.to_string_lossy();
        return text.parse().map_err(|error| {
            Failure::new(Exit::Failure, format!("LOCARA_LISTEN={text} is no address"))
                .because(error)
                .help("write it like 127.0.0.1:11434")
        });
    }
    Ok(serve::read_config(paths)?.server.listen)
}

impl Client {
    /// A client for the host of this user. Nothing is sent yet.
    pub(super) fn new(paths: &Paths) -> Result<Self, Failure> {
        let mut address = address(paths)?;
        // A host that listens everywhere listens here too.
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            });
        }
        // No proxy and no redirect: what is meant is this machine.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::new(Exit::Internal, "the HTTP client does not start").because(error))?;
        let key = std::env::var(KEY).ok().filter(|key| !key.is_empty());
        Ok(Self { http, address, key })
    }

    /// Where the host is expected.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The version of the host that listens; a failure that says how to start one if none does.
    pub(super) async fn hello(&self) -> Result<String, Failure> {
        let answer = self.get("/api/version").await?;
        match answer["locara"].as_str() {
            Some(version) => Ok(version.to_owned()),
            None => Err(self.somebody_else()),
        }
    }

    /// A JSON answer.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let response = self.send(Method::GET, path, None).await?;
        self.json(response).await
    }

    /// A JSON answer to a JSON body.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let response = self.send(Method::POST, path, Some(body)).await?;
        self.json(response).await
    }

    /// The answer as it comes. Dropping it cancels the request in the host.
    pub(super) async fn stream(&self, path: &str, body: &Value) -> Result<Response, Failure> {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Failure> {
        let mut request = self.http.request(method, format!("http://{}{path}", self.address));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.json(response).await.unwrap_or_default();
        Err(self.refused(status, &body))
    }

    async fn json(&self, mut response: Response) -> Result<Value, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST {
                return Err(self.somebody_else());
            }
        }
        serde_json::from_slice(&body).map_err(|_| self.somebody_else())
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        if error.is_connect() {
            return Failure::new(Exit::Failure, format!("no host listens on http://{}", self.address)).help(
                "`locara serve` starts one in this terminal, `locara service install` starts one at every login",
            );
        }
        self.broken(error)
    }

    /// The connection ended before the answer did.
    pub(super) fn broken(&self, error: reqwest::Error) -> Failure {
        Failure::new(Exit::Failure, format!("the host on http://{} does not finish its answer", self.address))
            .because(error)
            .help("`locara logs` shows what it wrote, `locara doctor` looks for what is wrong")
    }

    fn somebody_else(&self) -> Failure {
        let who = serve::owner(self.address.port()).unwrap_or_else(|| "another program".to_owned());
        Failure::new(Exit::Failure, format!("what answers on http://{} is not Locara but {who}", self.address))
            .help("stop it, or give Locara another port: `[server] listen` in locara.toml, or LOCARA_LISTEN")
    }

    /// The host says no, in its own words.
    fn refused(&self, status: StatusCode, body: &Value) -> Failure {
        let error = &body["error"];
        // Ollama's dialect writes the text where the others write an object.
        let message = error["message"].as_str().or_else(|| error.as_str());
        let Some(message) = message else { return self.somebody_else() };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let hint = if self.key.is_some() {
                    "the key in LOCARA_API_KEY does not open this"
                } else {
                    "set LOCARA_API_KEY to a key of this host"
                };
                Failure::new(Exit::Denied, message)
                    .help(format!("{hint}; `locara key add NAME --scope inference --scope admin` makes one"))
            }
            StatusCode::INSUFFICIENT_STORAGE => Failure::new(Exit::NoFit, message),
            StatusCode::NOT_FOUND => Failure::new(Exit::Failure, message).help("`locara models` lists what there is"),
            _ => Failure::new(Exit::Failure, message),
        }
    }
}

/// Why there is no answer, in one line: for lists of problems.
pub(super) fn why(failure: &Failure) -> String {
    one_line(failure)
}

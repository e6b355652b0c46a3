//! One request of an app, hop by hop. The client follows no redirect by itself: each hop is checked like a new request.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION, PROXY_AUTHORIZATION};
use reqwest::{Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::address::is_public;
use crate::allow::Allowed;
use crate::bindings::http::Request;
use crate::bindings::types::Error;
use crate::capability::DeniedLog;
use crate::error::HostError;
use crate::relay::QUEUE;
use crate::report::presentable;

/// Redirects that are followed.
const MAX_HOPS: usize = 5;
/// Bytes of one response.
const MAX_BODY: u64 = 64 << 20;
/// Header fields of a request, and of a response that are handed on.
const MAX_HEADERS: usize = 64;
/// Time for a whole request when the app says none, and the longest it may ask for.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest text of an error that is handed on.
const MAX_TEXT: usize = 300;

/// Fields that belong to the connection, which is the host's.
const HOST_FIELDS: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
];

/// The HTTP clients of all apps.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    /// Connects names to public addresses only.
    public: reqwest::Client,
    /// For hosts that were granted as local.
    local: reqwest::Client,
}

impl Clients {
    pub(crate) fn new() -> Result<Self, HostError> {
        // Another part of the process may have chosen its provider first; any does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .user_agent(concat!("locara/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(10))
                .pool_max_idle_per_host(2)
        };
        let failed = |error: reqwest::Error| HostError::Http(error.to_string());
        Ok(Self {
            public: builder().dns_resolver(std::sync::Arc::new(PublicOnly)).build().map_err(failed)?,
            local: builder().build().map_err(failed)?,
        })
    }
}

/// Resolves names, leaving out addresses that are not public. What is checked is what is connected.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> = all.iter().copied().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() && !all.is_empty() {
                let text = format!(
                    "{} resolves to a private address; only a host that was granted as local may",
                    name.as_str()
                );
                return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text).into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

/// The head of a response, and its body on the way.
pub(super) struct Fetched {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: mpsc::Receiver<std::io::Result<Bytes>>,
}

/// Everything about a request that does not change from hop to hop.
pub(super) struct Job {
    pub(super) clients: Clients,
    pub(super) allowed: std::sync::Arc<Allowed>,
    pub(super) denied: DeniedLog,
    pub(super) place: OwnedSemaphorePermit,
}

impl Job {
    /// Sends the request, follows redirects within the grants, starts to read the body.
    pub(super) async fn run(self, request: Request) -> Result<Fetched, Error> {
        let timeout = request.timeout_ms.map_or(TIMEOUT, |ms| Duration::from_millis(ms.into())).min(MAX_TIMEOUT);
        let deadline = Instant::now() + timeout;
        let response = timeout_at(deadline, self.follow(request))
            .await
            .map_err(|_| Error::Interrupted(format!("no answer within {} ms", timeout.as_millis())))??;
        let headers = response
            .headers()
            .iter()
            .take(MAX_HEADERS)
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let status = response.status().as_u16();
        let (sender, body) = mpsc::channel(QUEUE);
        tokio::spawn(read_body(response, sender, deadline, self.place));
        Ok(Fetched { status, headers, body })
    }

    async fn follow(&self, request: Request) -> Result<reqwest::Response, Error> {
        let mut method = Method::from_bytes(request.method.as_bytes())
            .ok()
            .filter(|method| *method != Method::CONNECT && *method != Method::TRACE)
            .ok_or_else(|| invalid(format!("{:?} is no method for an app", presentable(&request.method, 20))))?;
        let mut url = Url::parse(&request.url).map_err(|error| invalid(format!("this is no URL: {error}")))?;
        let mut headers = headers(&request.headers)?;
        let mut body = Bytes::from(request.body);
        for _ in 0..=MAX_HOPS {
            let pattern = self.allowed.check_url(&url).map_err(|denied| self.denied.refuse(denied))?;
            let client = if pattern.is_local() { &self.clients.local } else { &self.clients.public };
            let sent =
                client.request(method.clone(), url.clone()).headers(headers.clone()).body(body.clone()).send().await;
            let response = sent.map_err(|error| failed(&error))?;
            let Some(next) = redirect(&response, &url)? else { return Ok(response) };
            if next.origin() != url.origin() {
                // What was meant for one host is not for another.
                for secret in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                    headers.remove(secret);
                }
            }
            let status = response.status();
            let turns_to_get = status == StatusCode::SEE_OTHER
                || (method == Method::POST && (status == StatusCode::MOVED_PERMANENTLY || status == StatusCode::FOUND));
            if turns_to_get && method != Method::HEAD {
                method = Method::GET;
                body = Bytes::new();
            }
            url = next;
        }
        Err(Error::InvalidRequest(format!("more than {MAX_HOPS} redirects")))
    }
}

/// Where a response leads, if it does.
fn redirect(response: &reqwest::Response, from: &Url) -> Result<Option<Url>, Error> {
    let follows = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(LOCATION).filter(|_| follows) else { return Ok(None) };
    location
        .to_str()
        .ok()
        .and_then(|location| from.join(location).ok())
        .map(Some)
        .ok_or_else(|| Error::Interrupted("the server redirects to something that is no URL".to_owned()))
}

fn headers(list: &[(String, String)]) -> Result<HeaderMap, Error> {
    if list.len() > MAX_HEADERS {
        return Err(invalid(format!("{} header fields; at most {MAX_HEADERS} are allowed", list.len())));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        let bad = || invalid(format!("the header field {:?} is not valid", presentable(name, 60)));
        let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        if HOST_FIELDS.contains(&field.as_str()) {
            return Err(invalid(format!("the header field `{field}` belongs to the host")));
        }
        headers.append(field, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    Ok(headers)
}

/// Hands on the body chunk by chunk until it ends, breaks, grows too large or nobody reads it.
async fn read_body(
    mut response: reqwest::Response,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    deadline: Instant,
    _place: OwnedSemaphorePermit,
) {
    use std::io::{Error, ErrorKind};
    let mut taken = 0_u64;
    loop {
        let item = match timeout_at(deadline, response.chunk()).await {
            Err(_) => Err(Error::new(ErrorKind::TimedOut, "the answer took too long")),
            Ok(Err(error)) => Err(Error::new(ErrorKind::ConnectionReset, text(&error))),
            Ok(Ok(None)) => return,
            Ok(Ok(Some(chunk))) => {
                taken += chunk.len() as u64;
                if taken > MAX_BODY {
                    Err(Error::new(ErrorKind::QuotaExceeded, format!("a response has at most {MAX_BODY} bytes")))
                } else {
                    Ok(chunk)
                }
            }
        };
        let broken = item.is_err();
        // A guest that does not read holds its own connection until the deadline.
        let read = timeout_at(deadline, sender.send(item)).await;
        if broken || !matches!(read, Ok(Ok(()))) {
            return;
        }
    }
}

fn invalid(reason: String) -> Error {
    Error::InvalidRequest(reason)
}

fn failed(error: &reqwest::Error) -> Error {
    if error.is_builder() { Error::InvalidRequest(text(error)) } else { Error::Interrupted(text(error)) }
}

/// The innermost reason, bounded.
fn text(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    presentable(&format!("the request failed: {reason}"), MAX_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_connected() {
        let resolved = PublicOnly.resolve("localhost".parse().expect("a name")).await;
        let error = resolved.err().expect("refused").to_string();
        assert!(error.contains("localhost resolves to a private address"), "{error}");
    }

    #[test]
    fn fields_of_the_connection_are_the_hosts() {
        for name in ["Host", "content-length", "Transfer-Encoding", "Proxy-Authorization", "no field", ""] {
            assert!(headers(&[(name.to_owned(), "x".to_owned())]).is_err(), "{name}");
        }
        assert!(headers(&[("x-y".to_owned(), "a\r\nb: c".to_owned())]).is_err(), "no line breaks in values");
        assert!(headers(&[("Accept".to_owned(), "text/html".to_owned())]).is_ok());
    }
}

//! Requests to a hub: where the token goes and where it does not, which redirects are followed, which failures pass.

use std::{fmt, time::Duration};

use reqwest::{
    Response, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
};
use url::Url;

use super::{PullError, spec::is_local};

/// Redirects that are followed. Hugging Face needs one or two.
const MAX_HOPS: usize = 5;

/// A secret that is never shown.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// A token as it stands in a variable or a file. `None` if it is empty or could not be sent.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).ok().filter(|_| !text.is_empty())?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries in a row that bring nothing. 5.
    pub attempts: u32,
    /// The pause after the first of them; each further one is twice as long. Half a second.
    pub first_pause: Duration,
    /// The longest pause, also when the hub asks for one. A minute.
    pub longest_pause: Duration,
    /// Silence on a connection after which it counts as broken. 30 seconds.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            silence: Duration::from_secs(30),
        }
    }
}

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It will not be better next time.
    Fatal(PullError),
    /// It may be.
    Again {
        /// What happened.
        why: String,
        /// The pause that the server asks for.
        pause: Option<Duration>,
    },
}

impl Failure {
    pub(super) fn again(why: impl Into<String>) -> Self {
        Self::Again { why: why.into(), pause: None }
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        Self::Fatal(error)
    }
}

/// The client of one hub.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    hub: Url,
    token: Option<Token>,
    pub(super) patience: Patience,
}

impl Http {
    pub(super) fn new(hub: Url, token: Option<Token>, patience: Patience) -> Result<Self, PullError> {
        // Without one the client would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(PullError::Client(
                "this process has no TLS provider; the host installs one when it starts".into(),
            ));
        }
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("locara/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(patience.silence);
        // A mirror on this machine is not reached through a proxy on another one.
        let builder = if is_local(&hub) { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| PullError::Client(text(&error)))?;
        Ok(Self { client, hub, token, patience })
    }

    /// Gets an address and follows redirects. The token goes to the hub itself only, and only where nobody can listen.
    /// An answer is a success or [`StatusCode::RANGE_NOT_SATISFIABLE`].
    pub(super) async fn get(&self, url: &Url, what: &str, headers: &HeaderMap) -> Result<Response, Failure> {
        let mut url = url.clone();
        for _ in 0..=MAX_HOPS {
            let mut request = self.client.get(url.clone()).headers(headers.clone());
            // Lengths and ranges are those of the file only without compression.
            request = request.header(ACCEPT_ENCODING, "identity");
            let token = self.token.as_ref().filter(|_| self.may_know(&url));
            if let Some(Token(value)) = token {
                request = request.header(AUTHORIZATION, value.clone());
            }
            let response = request.send().await.map_err(|error| Failure::again(text(&error)))?;
            if !response.status().is_redirection() {
                return self.judge(response, &url, what, token.is_some());
            }
            url = next(&response, &url, what)?;
        }
        let why = format!("more than {MAX_HOPS} redirects in a row");
        Err(PullError::Redirect { host: host(&url), what: what.to_owned(), why }.into())
    }

    fn may_know(&self, url: &Url) -> bool {
        url.origin() == self.hub.origin() && (url.scheme() == "https" || is_local(url))
    }

    fn judge(&self, response: Response, url: &Url, what: &str, with_token: bool) -> Result<Response, Failure> {
        let status = response.status();
        let (host, what) = (host(url), what.to_owned());
        match status {
            _ if status.is_success() => Ok(response),
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(PullError::Forbidden { host, what, status: status.as_u16(), with_token }.into())
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(PullError::NotFound { host, what }.into()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                self.later(&response, host)
            }
            _ if status.is_server_error() => self.later(&response, host),
            _ => Err(PullError::Status { host, what, status: status.as_u16() }.into()),
        }
    }

    fn later(&self, response: &Response, host: String) -> Result<Response, Failure> {
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let pause = asked.map(Duration::from_secs);
        match pause {
            Some(pause) if pause > self.patience.longest_pause => {
                Err(PullError::Wait { host, seconds: pause.as_secs() }.into())
            }
            _ => Err(Failure::Again { why: format!("status {}", response.status()), pause }),
        }
    }

    /// Waits before the next try. `attempt` counts those that brought nothing, from 1; after the last one it gives up.
    pub(super) async fn pause(&self, attempt: u32, failure: Failure, url: &Url, what: &str) -> Result<(), PullError> {
        let (why, asked) = match failure {
            Failure::Fatal(error) => return Err(error),
            Failure::Again { why, pause } => (why, pause),
        };
        if attempt >= self.patience.attempts {
            let (host, what) = (host(url), what.to_owned());
            return Err(PullError::GaveUp { host, what, attempts: attempt, last: why });
        }
        let doubled = self.patience.first_pause.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        tokio::time::sleep(asked.unwrap_or(doubled).min(self.patience.longest_pause)).await;
        Ok(())
    }
}

/// Where a redirect leads.
fn next(response: &Response, from: &Url, what: &str) -> Result<Url, PullError> {
    let refused = |why: &str| PullError::Redirect { host: host(from), what: what.to_owned(), why: why.to_owned() };
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| refused("it does not say where to"))?;
    let to = from.join(location).map_err(|_| refused("where to is no address"))?;
    let safe = to.scheme() == "https" || to.scheme() == "http" && (from.scheme() == "http" && is_local(&to));
    if !safe {
        return Err(refused(&format!("{} is not encrypted", host(&to))));
    }
    Ok(to)
}

/// The host of an address, with the port if it has one of its own. Addresses of downloads are full of signatures, so the
/// rest is not shown.
pub(super) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// What happened, down to the last cause: the client's own text says only that something did. Without the address.
pub(super) fn text(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut last = None;
    while let Some(error) = source {
        last = Some(error.to_string());
        source = error.source();
    }
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    last.map_or_else(|| kind.to_owned(), |last| format!("{kind} ({last})"))
}

//! Which hosts an app may reach over HTTP.
//!
//! ```text
//! pattern = [ scheme "://" ] host [ ":" port ]
//! scheme  = "https" | "http"                 https if absent
//! host    = name | "*." name | IPv4 | "[" IPv6 "]"
//! name    = lower-case DNS name; a wildcard needs two or more labels after it
//! port    = 1 to 65535                       the scheme's port if absent
//! ```
//!
//! A pattern has no path, query, user or fragment. `*.example.com` covers every name below `example.com`, at any depth,
//! and not `example.com` itself. Plain `http` is for the machine itself and the network at home: `localhost`, addresses,
//! and names in `.localhost`, `.local`, `.internal` and `.home.arpa`.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};
use url::{Host, Url};

use crate::Invalid;
use crate::names::text_serde;
use crate::text::{grouped, quoted};

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// With TLS.
    Https,
    /// In plain text.
    Http,
}

impl Scheme {
    /// The spelling in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// The port that a URL means when it names none.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// What stands for the host in a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum HostPart {
    /// This name.
    Name(String),
    /// Every name below this one.
    Below(String),
    /// This address.
    Address(IpAddr),
}

/// Hosts that an app may reach: `https://api.example.com`, `*.example.com:8443`, `http://localhost:8080`. The grammar
/// stands at the top of this module. Prints in full: scheme always, port only where it is not the scheme's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    scheme: Scheme,
    host: HostPart,
    port: u16,
}

impl HostPattern {
    /// Longest pattern, in bytes: a DNS name of 253, the scheme, the wildcard and the port.
    pub const MAX_BYTES: usize = 270;

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The literal address, if the pattern is one. Private and loopback addresses are reached through these only.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            HostPart::Address(address) => Some(address),
            HostPart::Name(_) | HostPart::Below(_) => None,
        }
    }

    /// Whether the pattern names the machine itself or its own network: an address, `localhost`, a name in `.local` and
    /// its kin. Only such a pattern may lead to a private or loopback address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.host {
            HostPart::Address(_) => true,
            HostPart::Name(name) | HostPart::Below(name) => is_local_name(name),
        }
    }

    /// Whether a request to `url` is inside the pattern: scheme, host and port. Path and query do not matter.
    #[must_use]
    pub fn matches(&self, url: &Url) -> bool {
        let host = match url.host() {
            Some(Host::Domain(name)) => HostPart::Name(name.trim_end_matches('.').to_ascii_lowercase()),
            Some(Host::Ipv4(address)) => HostPart::Address(address.into()),
            Some(Host::Ipv6(address)) => HostPart::Address(address.into()),
            None => return false,
        };
        url.scheme() == self.scheme.as_str()
            && url.port_or_known_default() == Some(self.port)
            && self.covers_host(&host)
    }

    /// Whether everything that `other` covers is covered by this pattern.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.port == other.port && self.covers_host(&other.host)
    }

    fn covers_host(&self, other: &HostPart) -> bool {
        let is_below = |name: &str, parent: &str| {
            name.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        };
        match (&self.host, other) {
            (HostPart::Below(parent), HostPart::Name(name)) => is_below(name, parent),
            (HostPart::Below(parent), HostPart::Below(name)) => name == parent || is_below(name, parent),
            (this, other) => this == other,
        }
    }
}

/// Names that never leave the machine or its own network (RFC 6761, RFC 6762, RFC 8375, and ICANN's `.internal`).
fn is_local_name(name: &str) -> bool {
    name == "localhost" || [".localhost", ".local", ".internal", ".home.arpa"].iter().any(|tail| name.ends_with(tail))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        match &self.host {
            HostPart::Name(name) => f.write_str(name)?,
            HostPart::Below(name) => write!(f, "*.{name}")?,
            HostPart::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            HostPart::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl FromStr for HostPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const EXAMPLE: &str = "write a host like `https://api.example.com`, `*.example.com` or `http://localhost:8080`";
        let bad = |message: String, why: &str| Err(Invalid::new(message, why, EXAMPLE));
        if text.len() > Self::MAX_BYTES {
            let len = grouped(text.len() as u64);
            return bad(format!("the host is {len} bytes long; at most {} are allowed", Self::MAX_BYTES), "");
        }
        let (scheme, authority) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some((other, _)) => {
                return bad(
                    format!("{} is not `https` or `http`", quoted(other)),
                    "the host speaks HTTP for apps, nothing else",
                );
            }
            None => (Scheme::Https, text),
        };
        if let Some(cut) = authority.find(['/', '?', '#']) {
            let fix = format!("write {}", quoted(&text[..text.len() - authority.len() + cut]));
            let message = format!("{} goes beyond the host: {}", quoted(text), quoted(&authority[cut..]));
            return Err(Invalid::new(
                message,
                "a grant covers a whole host: a path would promise a border that redirects and servers do not keep",
                fix,
            ));
        }
        if authority.contains('@') {
            return bad(
                format!("{} holds a user name or password", quoted(text)),
                "secrets do not belong in a manifest, which anybody may read",
            );
        }
        let (host, port) = split_port(authority, text)?;
        let port = port.unwrap_or_else(|| scheme.default_port());
        let pattern = Self { scheme, host: host_part(host, text)?, port };
        if scheme == Scheme::Http && !pattern.is_local() {
            return Err(Invalid::new(
                format!("{} is reached in plain text", quoted(text)),
                "everybody on the way could read and change what the app sends; plain `http` is for addresses, `localhost` and names in `.local`, `.internal` and `.home.arpa`",
                format!("write {}", quoted(&text.replacen("http://", "https://", 1))),
            ));
        }
        Ok(pattern)
    }
}

/// Splits `host[:port]`. The colons of an IPv6 address stand in brackets.
fn split_port<'a>(authority: &'a str, whole: &str) -> Result<(&'a str, Option<u16>), Invalid> {
    let (host, port) = match authority.rfind(']') {
        Some(end) => (&authority[..=end], authority[end + 1..].strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let Some(digits) = port else {
        return if host.len() == authority.len() {
            Ok((host, None))
        } else {
            Err(Invalid::new(format!("{} has text after the bracket", quoted(whole)), "", "write `[address]:port`"))
        };
    };
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok((host, Some(port))),
        _ => Err(Invalid::new(
            format!("{} in {} is not a port", quoted(digits), quoted(whole)),
            "a port is a number from 1 to 65,535; patterns for ports do not exist",
            "write the port, or leave it out for 443",
        )),
    }
}

/// Reads the host of a pattern. `whole` is named in errors.
fn host_part(host: &str, whole: &str) -> Result<HostPart, Invalid> {
    const EXAMPLE: &str = "write a host like `https://api.example.com`, `*.example.com` or `http://localhost:8080`";
    let bad = |message: String, why: &str| Err(Invalid::new(message, why, EXAMPLE));
    if host.is_empty() {
        return bad(format!("{} names no host", quoted(whole)), "");
    }
    if host == "*" {
        return bad(
            format!("{} means every host there is", quoted(whole)),
            "a grant must be narrow enough to be understood",
        );
    }
    let (wildcard, name) = host.strip_prefix("*.").map_or((false, host), |name| (true, name));
    if name.contains('*') {
        return bad(
            format!("{} has a `*` that is not the whole first label", quoted(whole)),
            "`*.` at the beginning stands for every name below; there are no other patterns",
        );
    }
    // The parser of real requests decides what a host is, so that pattern and request can never disagree.
    let parsed = match Host::parse(name) {
        Ok(parsed) => parsed,
        Err(error) => return bad(format!("{} is not a host: {error}", quoted(name)), ""),
    };
    let canonical = parsed.to_string();
    if canonical != name {
        let fix = if canonical == name.to_ascii_lowercase()
            || !name.is_ascii()
            || matches!(parsed, Host::Ipv4(_) | Host::Ipv6(_))
        {
            format!("write {}", quoted(&whole.replacen(name, &canonical, 1)))
        } else {
            EXAMPLE.to_owned()
        };
        return Err(Invalid::new(
            format!("{} is not the plain spelling of a host, which is {}", quoted(name), quoted(&canonical)),
            "one host has one spelling, in lower case and ASCII, so that what looks alike is alike",
            fix,
        ));
    }
    match parsed {
        Host::Ipv4(_) | Host::Ipv6(_) if wildcard => {
            bad(format!("{} has a wildcard before an address", quoted(whole)), "")
        }
        Host::Ipv4(address) => Ok(HostPart::Address(address.into())),
        Host::Ipv6(address) => Ok(HostPart::Address(address.into())),
        Host::Domain(name) => {
            let label = |label: &str| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            };
            if name.len() > 253 || !name.split('.').all(label) {
                return bad(
                    format!("{} is not a DNS name", quoted(&name)),
                    "labels are 1 to 63 letters, digits and inner hyphens",
                );
            }
            if wildcard && !name.contains('.') {
                return bad(
                    format!("{} means every host in a whole top-level domain", quoted(whole)),
                    "a grant must be narrow enough to be understood",
                );
            }
            Ok(if wildcard { HostPart::Below(name) } else { HostPart::Name(name) })
        }
    }
}

text_serde!(
    HostPattern,
    json_schema!({
        "type": "string",
        "maxLength": HostPattern::MAX_BYTES,
        "pattern": "^(https?://)?(\\*\\.[a-z0-9_-]+(\\.[a-z0-9_-]+)+|[a-z0-9_-]+(\\.[a-z0-9_-]+)*|\\[[0-9a-f:.]+\\])(:[0-9]{1,5})?$",
        "examples": ["https://api.example.com", "*.example.com", "http://localhost:8080"]
    })
);

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    fn matches(text: &str, url: &str) -> bool {
        pattern(text).matches(&Url::parse(url).unwrap())
    }

    #[test]
    fn prints_one_spelling_that_parses_back() {
        for (text, printed) in [
            ("api.example.com", "https://api.example.com"),
            ("https://api.example.com:443", "https://api.example.com"),
            ("*.example.com:8443", "https://*.example.com:8443"),
            ("http://localhost:80", "http://localhost"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("10.0.0.2", "https://10.0.0.2"),
        ] {
            assert_eq!(pattern(text).to_string(), printed);
            assert_eq!(pattern(printed), pattern(text));
        }
    }

    #[test]
    fn matches_scheme_host_and_port_exactly() {
        assert!(matches("https://api.example.com", "https://API.example.com/v1?q=1"));
        assert!(matches("https://api.example.com", "https://api.example.com./v1"), "the root dot is the same host");
        assert!(!matches("https://api.example.com", "http://api.example.com/"));
        assert!(!matches("https://api.example.com", "https://api.example.com:8443/"));
        assert!(!matches("https://api.example.com", "https://api.example.com.evil.net/"));
        assert!(!matches("https://api.example.com", "https://user@evil.net/api.example.com"));
        assert!(matches("http://127.0.0.1:8080", "http://2130706433:8080/"), "another spelling of the same address");
    }

    #[test]
    fn a_wildcard_covers_every_depth_below_and_not_the_name_itself() {
        assert!(matches("*.example.com", "https://a.example.com/"));
        assert!(matches("*.example.com", "https://a.b.example.com/"));
        assert!(!matches("*.example.com", "https://example.com/"));
        assert!(!matches("*.example.com", "https://notexample.com/"));
        assert!(!matches("*.example.com", "https://.example.com/"));
    }

    #[test]
    fn covers_is_reflexive_and_knows_narrower_patterns() {
        assert!(pattern("*.example.com").covers(&pattern("*.example.com")));
        assert!(pattern("*.example.com").covers(&pattern("*.eu.example.com")));
        assert!(pattern("*.example.com").covers(&pattern("api.example.com")));
        assert!(!pattern("api.example.com").covers(&pattern("*.example.com")));
        assert!(!pattern("*.example.com:8443").covers(&pattern("api.example.com")));
    }

    #[test]
    fn refuses_what_is_too_wide_too_loose_or_disguised() {
        for text in [
            "",
            "*",
            "https://",
            "https://*",
            "*.com",
            "a*.example.com",
            "*.*.example.com",
            "https://example.com/v1",
            "https://example.com?x",
            "https://user:pw@example.com",
            "ftp://example.com",
            "example.com:0",
            "example.com:65536",
            "example.com:*",
            "example.com:+80",
            "http://example.com",
            "https://exämple.com",
            "https://Example.com",
            "https://example.com.",
            "127.1",
            "0x7f000001",
            "[::1",
            "[::1]x",
            "*.127.0.0.1",
            "a b.com",
            "example..com",
            "https://exa\u{200b}mple.com",
            "-a.example.com",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?} was accepted");
        }
    }
}

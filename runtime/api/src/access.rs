//! Who may come in: `Host` and `Origin` allow-lists, API keys, and the identity that fairness is kept by.
//!
//! A page in a browser can reach a port of this machine. What it sends carries its origin, and a name that an attacker
//! points at 127.0.0.1 (DNS rebinding) shows in `Host`; both are checked before anything else. No origin is ever reflected
//! that is not on the list. This module must never log a key.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use locara_engine::Class;
use subtle::ConstantTimeEq;

use crate::{
    Api,
    config::{Access, Key, Scope, digest},
    fault::{Fault, Kind},
    host::ClientId,
};

/// What a client without a key calls itself.
const CLIENT_HEADER: &str = "x-locara-client";
/// `interactive` (the default) or `batch`.
const CLASS_HEADER: &str = "x-locara-class";
/// Characters of a client's name.
const MAX_CLIENT_CHARS: usize = 64;

/// Who sends this request, and how urgent it is.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) client: ClientId,
    pub(crate) class: Class,
}

/// The layer in front of all routes.
pub(crate) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let config = api.config();
    let access = &config.access;
    let origin = match check_origin(access, request.uri(), request.headers()) {
        Ok(origin) => origin,
        Err(fault) => return fault.into_response(),
    };
    let preflight = request.method() == Method::OPTIONS
        && origin.is_some()
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        preflight_answer(request.headers())
    } else {
        match may_manage(origin.as_ref(), &request).and_then(|()| identify(access, &request)) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(fault) => fault.into_response(),
        }
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.value);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// The origin of a page that is let in.
#[derive(Debug)]
struct Origin {
    value: HeaderValue,
    /// The page is the host's own, or the owner has listed it. Any other page of this machine may ask models, and no more:
    /// whatever a developer happens to serve must not remove models.
    trusted: bool,
}

/// A page that is let in, but not trusted, keeps its hands off what belongs to the owner.
fn may_manage(origin: Option<&Origin>, request: &Request) -> Result<(), Fault> {
    let owners = matches!(scope_of(request.method(), request.uri().path()), Some(Scope::Models | Scope::Admin));
    match origin {
        Some(Origin { value, trusted: false }) if owners => Err(Fault::new(
            Kind::Forbidden,
            format!("web pages of {value:?} may ask models only; let the owner add the origin to the allowed origins"),
        )),
        _ => Ok(()),
    }
}

/// The origin to allow, if the request names one.
fn check_origin(access: &Access, uri: &Uri, headers: &HeaderMap) -> Result<Option<Origin>, Fault> {
    let forbidden = |what: String| Err(Fault::new(Kind::Forbidden, what));
    // HTTP/2 carries the name in the URI.
    let named = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    let host = named.and_then(|named| named.parse::<Authority>().ok());
    match &host {
        Some(host)
            if is_this_machine(host.host())
                || is_address(host.host())
                || access.hosts.iter().any(|known| known.eq_ignore_ascii_case(host.host())) => {}
        _ => {
            return forbidden(format!(
                "the host name {:?} is not served here; use 127.0.0.1, or let the owner add the name to the allowed hosts",
                named.unwrap_or_default()
            ));
        }
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        // Images and scripts of a foreign page come without an origin, but browsers say where they come from.
        let foreign = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        return if foreign { forbidden("requests of foreign web pages are not served".into()) } else { Ok(None) };
    };
    let text = origin.to_str().unwrap_or_default();
    let page = text.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    let local = page.as_ref().and_then(Uri::host).is_some_and(is_this_machine);
    let own = page.as_ref().and_then(Uri::authority).is_some_and(|page| Some(page) == host.as_ref());
    let trusted = own || access.origins.iter().any(|known| known.eq_ignore_ascii_case(text));
    if local || trusted {
        Ok(Some(Origin { value: origin.clone(), trusted }))
    } else {
        forbidden(format!(
            "web pages of {text:?} are not served here; let the owner add the origin to the allowed origins"
        ))
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

/// An address cannot be pointed elsewhere, as a name can: whoever writes one means this machine.
fn is_address(host: &str) -> bool {
    address(host).is_some()
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn preflight_answer(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE, HEAD"));
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    // The origin is allowed; which headers its client library adds is not our business.
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response
}

/// What a path needs; `None` is open to all.
fn scope_of(method: &Method, path: &str) -> Option<Scope> {
    match path {
        "/" | "/health" | "/ready" | "/openapi.json" => None,
        "/metrics" | "/v1/batch/stats" => Some(Scope::Admin),
        "/api/pull" | "/api/delete" | "/api/copy" | "/api/create" => Some(Scope::Models),
        _ if path.starts_with("/admin/") => Some(Scope::Admin),
        _ if method == Method::DELETE && path.starts_with("/v1/models/") => Some(Scope::Models),
        _ => Some(Scope::Inference),
    }
}

fn identify(access: &Access, request: &Request) -> Result<Caller, Fault> {
    let headers = request.headers();
    let class = match headers.get(CLASS_HEADER).map(HeaderValue::as_bytes) {
        None | Some(b"interactive") => Class::Interactive,
        Some(b"batch") => Class::Background,
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            return Err(Fault::field(CLASS_HEADER, format!("{other:?} is no class; say \"interactive\" or \"batch\"")));
        }
    };
    let secret = secret(headers);
    let client = if access.keys.is_empty() {
        self_named(headers, secret)
    } else if let Some(scope) = scope_of(request.method(), request.uri().path()) {
        let key = secret.and_then(|secret| find(&access.keys, secret)).ok_or_else(|| {
            let what = if secret.is_some() { "the API key is not known" } else { "an API key is needed" };
            Fault::new(
                Kind::Unauthorized,
                format!("{what}; send it as \"Authorization: Bearer KEY\" or \"x-api-key: KEY\""),
            )
        })?;
        if !key.scopes.contains(&scope) {
            let word = scope.word();
            return Err(Fault::new(
                Kind::Forbidden,
                format!("the key {:?} lacks the scope {word:?} for this", key.name),
            ));
        }
        // The key alone: a client that may name itself anew could take the shares of many.
        ClientId(key.name.clone())
    } else {
        ClientId("anonymous".into())
    };
    Ok(Caller { client, class })
}

fn secret(headers: &HeaderMap) -> Option<&str> {
    let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = of("authorization")
        .and_then(|value| value.split_once(' '))
        .and_then(|(scheme, secret)| scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim()));
    bearer.or_else(|| of("x-api-key")).filter(|secret| !secret.is_empty())
}

/// All keys are compared, in constant time each.
fn find<'a>(keys: &'a [Key], secret: &str) -> Option<&'a Key> {
    let digest = digest(secret);
    keys.iter().fold(None, |found, key| if bool::from(key.sha256.ct_eq(&digest)) { Some(key) } else { found })
}

/// Without keys a client is what it says: its header, or the dummy key that it was given, or nothing.
fn self_named(headers: &HeaderMap, secret: Option<&str>) -> ClientId {
    let name = headers.get(CLIENT_HEADER).and_then(|name| name.to_str().ok()).filter(|name| {
        !name.is_empty()
            && name.len() <= MAX_CLIENT_CHARS
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'))
    });
    match (name, secret) {
        (Some(name), _) => ClientId(name.to_owned()),
        (None, Some(secret)) => {
            let [a, b, c, d, ..] = digest(secret);
            ClientId(format!("key-{a:02x}{b:02x}{c:02x}{d:02x}"))
        }
        (None, None) => ClientId("http".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn refused(access: &Access, pairs: &[(&'static str, &str)]) -> Option<String> {
        check_origin(access, &Uri::from_static("/v1/models"), &headers(pairs)).err().map(|fault| fault.message)
    }

    #[test]
    fn names_of_this_machine_are_served_and_others_are_not() {
        let access = Access { hosts: vec!["box.lan".into()], ..Access::default() };
        for host in [
            "localhost",
            "LOCALHOST:11434",
            "127.0.0.1:80",
            "127.8.9.1",
            "[::1]:11434",
            "box.lan:1",
            "Box.LAN",
            "10.0.0.1:80",
        ] {
            assert_eq!(refused(&access, &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "user@", ""] {
            assert!(refused(&access, &[("host", host)]).is_some(), "{host}");
        }
        assert!(refused(&access, &[]).is_some(), "no host at all");
    }

    #[test]
    fn pages_of_this_machine_are_served_and_foreign_ones_are_not() {
        let access = Access { origins: vec!["https://chat.example".into()], ..Access::default() };
        let with = |origin| refused(&access, &[("host", "localhost"), ("origin", origin)]);
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173", "https://chat.example"] {
            assert_eq!(with(origin), None, "{origin}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "http://10.0.0.1",
            "https://chat.example:8443",
            "",
        ] {
            assert!(with(origin).is_some(), "{origin}");
        }
        assert!(refused(&access, &[("host", "localhost"), ("sec-fetch-site", "cross-site")]).is_some());
        assert!(refused(&access, &[("host", "localhost"), ("sec-fetch-site", "same-origin")]).is_none());
    }

    #[test]
    fn a_client_is_its_name_or_its_dummy_key() {
        let named = |pairs: &[_]| {
            let headers = headers(pairs);
            self_named(&headers, secret(&headers)).0
        };
        assert_eq!(named(&[("x-locara-client", "notes/1.2")]), "notes/1.2");
        assert_eq!(named(&[("x-locara-client", "a b")]), "http");
        let (one, two) = (named(&[("authorization", "Bearer one")]), named(&[("x-api-key", "two")]));
        assert!(one.starts_with("key-") && two.starts_with("key-") && one != two);
        assert_eq!(named(&[("authorization", "Basic one")]), "http");
    }
}

//! `/token` (Docker's token flow): a password is exchanged for a token, or nothing for one that says that it is nobody's.

use std::sync::Arc;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header;
use http::request::Parts;

use super::Answer;
use super::Api;
use super::Asked;
use super::Peer;
use super::headers;
use super::route;
use super::with_body;

/// What clients are told to name as service.
const SERVICE: &str = "larder";

/// The token and how long it lives; under two names, as clients differ.
pub(super) async fn answer(api: &Api, asked: &mut Asked<'_>, only_pulls: bool) -> Answer {
    let issued = api.access.token(&asked.caller(None), only_pulls).await?;
    let document = serde_json::json!({
        "token": issued.token.reveal(),
        "access_token": issued.token.reveal(),
        "expires_in": issued.life.as_secs(),
        "issued_at": issued.at.to_string(),
    });
    let mut response = with_body("application/json", document.to_string());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What a client is told that has to say who it is: where tokens are had, and for what (RFC 6750 §3). At the token's own
/// address, and where larder does not know what it is called, the password itself.
pub(super) fn set_challenge(api: &Api, head: &Parts, peer: Peer, answer: &mut HeaderMap) {
    let challenge = match (head.uri.path(), base(api, head, peer)) {
        ("/token", _) | (_, None) => format!("Basic realm=\"{SERVICE}\", charset=\"UTF-8\""),
        (_, Some(base)) => {
            let scope = scope(head).map(|scope| format!(",scope=\"{scope}\"")).unwrap_or_default();
            format!("Bearer realm=\"{base}/token\",service=\"{SERVICE}\"{scope}")
        }
    };
    headers::set(answer, header::WWW_AUTHENTICATE, &challenge);
}

/// What clients call larder: `external_url`; else what this one has just called it, which nobody else is told.
fn base(api: &Api, head: &Parts, peer: Peer) -> Option<String> {
    if let Some(url) = api.external_url.load_full() {
        return Some(Arc::unwrap_or_clone(url).as_str().trim_end_matches('/').to_owned());
    }
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = head.uri.authority().map(http::uri::Authority::as_str).or(host)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_' | b'[' | b']');
    if host.is_empty() || host.len() > 255 || !host.bytes().all(plain) {
        return None;
    }
    let scheme = if peer.secure { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

/// The repository as the client writes it, and what it wants to do there.
fn scope(head: &Parts) -> Option<String> {
    let route = route::parse(&head.method, head.uri.path(), head.uri.query()).ok()?;
    let name = &route.place()?.spelling.path;
    let action = match head.method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE => "pull,delete",
        _ => "pull,push",
    };
    (!name.is_empty()).then(|| format!("repository:{name}:{action}"))
}

//! Tokens of token services: kept for as long as they live, one request for each scope however many wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::future::Shared;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded;

use crate::net::address::Origin;
use crate::net::fetch::retry_after;
use crate::oci::Digest;

use super::Error;
use super::Fault;
use super::circuit::Part;
use super::credential::Login;
use super::endpoints::Core;
use super::endpoints::Endpoint;
use super::exchange;
use super::exchange::Failed;

/// How long a token lives that does not say so (the token specification), and the longest that is believed.
const LIFE_DEFAULT: Duration = Duration::from_mins(1);
const LIFE_MAX: Duration = Duration::from_hours(1);

/// A token is not sent this long before its end, or in its last quarter, whichever is shorter.
const MARGIN: Duration = Duration::from_secs(10);

/// How long a token service that said 429 without a time is left alone.
const RATE_LIMITED: Duration = Duration::from_mins(1);

/// What a token is for. Tokens are never shared between credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scope: String,
    login: Option<Digest>,
}

impl Key {
    pub(super) fn new(realm: Url, service: Option<String>, scope: String, login: Option<&Login>) -> Self {
        Self { realm, service, scope, login: login.map(Login::fingerprint) }
    }
}

/// A token, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The `Authorization` header, marked as not to be printed.
    pub(super) value: HeaderValue,
    pub(super) since: Instant,
    until: Instant,
}

type Flight = Shared<BoxFuture<'static, Result<Token, Failed>>>;

#[derive(Debug)]
enum Slot {
    Ready(Token),
    Fetching(Flight),
}

/// The tokens of one endpoint.
#[derive(Debug)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<Key, Slot>>,
    max: usize,
}

impl Tokens {
    pub(super) fn new(max: u32) -> Self {
        Self { kept: Mutex::default(), max: usize::try_from(max.max(1)).unwrap_or(usize::MAX) }
    }

    /// The token, where there is one that lives.
    pub(super) fn get(&self, key: &Key) -> Option<Token> {
        match self.lock().get(key) {
            Some(Slot::Ready(token)) if Instant::now() < token.until => Some(token.clone()),
            _ => None,
        }
    }

    /// Forgets a token that was refused, unless it was replaced already.
    pub(super) fn forget(&self, key: &Key, refused: &Token) {
        let mut kept = self.lock();
        if matches!(kept.get(key), Some(Slot::Ready(token)) if token.since == refused.since) {
            kept.remove(key);
        }
    }

    /// The request that is under way, or a new one.
    fn flight(&self, key: &Key, start: impl FnOnce() -> Flight) -> Flight {
        let mut kept = self.lock();
        if let Some(Slot::Fetching(flight)) = kept.get(key)
            && flight.peek().is_none()
        {
            return flight.clone();
        }
        if kept.len() >= self.max {
            make_room(&mut kept, self.max);
        }
        // Started under the lock, so that its end finds its slot.
        let flight = start();
        kept.insert(key.clone(), Slot::Fetching(flight.clone()));
        flight
    }

    fn landed(&self, key: Key, result: &Result<Token, Failed>) {
        let mut kept = self.lock();
        match result {
            Ok(token) => drop(kept.insert(key, Slot::Ready(token.clone()))),
            Err(_) => drop(kept.remove(&key)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Slot>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops what ran out, then whatever runs out first.
fn make_room(kept: &mut HashMap<Key, Slot>, max: usize) {
    let now = Instant::now();
    kept.retain(|_, slot| !matches!(slot, Slot::Ready(token) if token.until <= now));
    while kept.len() >= max {
        let first = kept.iter().min_by_key(|(_, slot)| match slot {
            Slot::Ready(token) => token.until,
            Slot::Fetching(_) => now + LIFE_MAX,
        });
        let Some(key) = first.map(|(key, _)| key.clone()) else { return };
        kept.remove(&key);
    }
}

impl Core {
    /// The one request for a token of that key. It goes on when its callers leave: the next one needs it too.
    pub(super) fn flight(
        self: &Arc<Self>,
        at: usize,
        endpoint: &Endpoint,
        key: &Key,
        login: Option<Arc<Login>>,
    ) -> impl Future<Output = Result<Token, Failed>> + Send + use<> {
        endpoint.tokens.flight(key, || {
            let (core, key) = (Arc::clone(self), key.clone());
            let task = self.tasks.spawn("upstream-token", async move {
                let Some(endpoint) = core.endpoints.get(at) else {
                    return Err(Failed::new(Error::new(Fault::Unusable, "there is no such endpoint"), Part::Token));
                };
                let result = core.fetch(endpoint, &key, login.as_deref()).await;
                endpoint.tokens.landed(key, &result);
                result
            });
            let stopped =
                || Failed::uncounted(Error::new(Fault::TimedOut, "asking for a token was stopped"), Part::Token);
            async move { task.await.unwrap_or_else(|_| Err(stopped())) }.boxed().shared()
        })
    }

    async fn fetch(&self, endpoint: &Endpoint, key: &Key, login: Option<&Login>) -> Result<Token, Failed> {
        let deadline = Instant::now() + self.limits.headers;
        let host = key.realm.host_str().unwrap_or_default();
        let (status, headers, body) = self.request_token(key, Some(&key.scope), login, deadline).await?;
        let error = |fault, what: &str| Error::new(fault, format!("asking {host} for a token: {what}"));
        match (status, login) {
            (StatusCode::OK, _) => {}
            (StatusCode::UNAUTHORIZED, Some(login)) => return Err(self.refused(host, login)),
            (StatusCode::FORBIDDEN, Some(login)) => {
                // Some say 403 to a wrong password, others only to a wrong repository: a token for nothing tells.
                let is_good = self.credentials.worked_lately()
                    || self.request_token(key, None, Some(login), deadline).await?.0 == StatusCode::OK;
                if !is_good {
                    return Err(self.refused(host, login));
                }
                self.credentials.worked();
                return Err(Failed::uncounted(
                    error(Fault::Denied, "it does not give one for this repository"),
                    Part::Token,
                ));
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => {
                return Err(Failed::uncounted(error(Fault::Denied, "it does not give one to anybody"), Part::Token));
            }
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                let after = retry_after(&headers, self.clock.now()).unwrap_or(RATE_LIMITED);
                return Err(Failed::new(error(Fault::RateLimited, "it said 429").after(Some(after)), Part::Token));
            }
            (status, _) if status.is_server_error() => {
                let after = retry_after(&headers, self.clock.now());
                let error = error(Fault::Status(status.as_u16()), &format!("it answered {status}")).after(after);
                return Err(Failed::new(error, Part::Token));
            }
            (status, _) => {
                return Err(Failed::new(error(Fault::Unusable, &format!("it answered {status}")), Part::Token));
            }
        }
        let token = parse(&body, Instant::now())
            .ok_or_else(|| Failed::new(error(Fault::Unusable, "its answer holds none"), Part::Token))?;
        if login.is_some() {
            self.credentials.worked();
        }
        if let Some(origin) = Origin::of(&key.realm) {
            self.succeeded(endpoint, Part::Token, &origin);
        }
        Ok(token)
    }

    fn refused(&self, host: &str, login: &Login) -> Failed {
        self.credential_refused(login);
        let message = format!("asking {host} for a token: it refused the configured credential");
        Failed::uncounted(Error::new(Fault::CredentialRefused, message), Part::Token)
    }

    async fn request_token(
        &self,
        key: &Key,
        scope: Option<&str>,
        login: Option<&Login>,
        deadline: Instant,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Failed> {
        let unusable = |what: &str| {
            let host = key.realm.host_str().unwrap_or_default();
            Failed::new(Error::new(Fault::Unusable, format!("asking {host} for a token: {what}")), Part::Token)
        };
        let origin = Origin::of(&key.realm).ok_or_else(|| unusable("its URL names no host"))?;
        let (method, url, headers, body) = spell(key, scope, login);
        let request =
            exchange::request(method, &url, headers, body).map_err(|error| Failed::new(error, Part::Token))?;
        let answer = self.send("token", request, &origin, Part::Token, deadline).await?;
        if answer.headers().contains_key(header::CONTENT_ENCODING) {
            return Err(unusable("its answer has a content encoding"));
        }
        let (parts, body) = answer.into_parts();
        if parts.status != StatusCode::OK {
            // A redirect ends here too: a credential goes nowhere but to the realm.
            exchange::discard(body).await;
            return Ok((parts.status, parts.headers, Bytes::new()));
        }
        let read = self.read(body, self.limits.answer_bytes, &origin, deadline).await;
        let bytes = read.map_err(|error| Failed::new(error, Part::Token))?;
        Ok((parts.status, parts.headers, bytes))
    }
}

/// The request for a token: a GET, or for an identity token the form of OAuth 2.
fn spell(key: &Key, scope: Option<&str>, login: Option<&Login>) -> (Method, Url, HeaderMap, Bytes) {
    let mut url = key.realm.clone();
    let mut headers = HeaderMap::new();
    if let Some(Login::Identity(token)) = login {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("client_id", "larder");
        form.append_pair("refresh_token", token.reveal()).extend_pairs(key.service.iter().map(|s| ("service", s)));
        form.extend_pairs(scope.map(|scope| ("scope", scope)));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        return (Method::POST, url, headers, form.finish().into());
    }
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(key.service.iter().map(|service| ("service", service)));
        // Several scopes are several parameters.
        query.extend_pairs(scope.into_iter().flat_map(str::split_whitespace).map(|scope| ("scope", scope)));
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    if let Some(value) = login.and_then(Login::basic) {
        headers.insert(header::AUTHORIZATION, value);
    }
    (Method::GET, url, headers, Bytes::new())
}

#[derive(Deserialize)]
struct Said {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// The token in an answer, `None` where there is none that can be sent.
fn parse(body: &[u8], now: Instant) -> Option<Token> {
    let said: Said = serde_json::from_slice(body).ok()?;
    let text = said.token.filter(|text| !text.is_empty()).or(said.access_token).filter(|text| !text.is_empty())?;
    let mut value = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
    value.set_sensitive(true);
    let life = said.expires_in.and_then(|seconds| seconds.as_f64()).filter(|seconds| *seconds > 0.0);
    let life =
        life.map_or(LIFE_DEFAULT, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(LIFE_MAX).min(LIFE_MAX));
    Some(Token { value, since: now, until: now + life - MARGIN.min(life / 4) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_it_says_within_reason() {
        let now = Instant::now();
        for (body, want) in [
            (r#"{"token":"a","expires_in":300}"#, Some(290_000)),
            (r#"{"access_token":"a","expires_in":60}"#, Some(50_000)),
            (r#"{"token":"a"}"#, Some(50_000)),
            (r#"{"token":"a","expires_in":null}"#, Some(50_000)),
            (r#"{"token":"a","expires_in":"x"}"#, Some(50_000)),
            (r#"{"token":"a","expires_in":-1}"#, Some(50_000)),
            (r#"{"token":"a","expires_in":1}"#, Some(750)),
            (r#"{"token":"a","expires_in":1e18}"#, Some(3_590_000)),
            (r#"{"token":"a","expires_in":1e300}"#, Some(3_590_000)),
            (r#"{"token":"","access_token":"b"}"#, Some(50_000)),
            (r#"{"token":"a\nb"}"#, None),
            (r#"{"token":""}"#, None),
            ("{}", None),
            ("<html>", None),
        ] {
            let found = parse(body.as_bytes(), now).map(|token| token.until.duration_since(now).as_millis());
            assert_eq!(found, want, "{body}");
        }
    }

    #[test]
    fn a_full_cache_drops_what_runs_out_first() {
        let tokens = Tokens::new(2);
        let token =
            |seconds| parse(format!(r#"{{"token":"a","expires_in":{seconds}}}"#).as_bytes(), Instant::now()).unwrap();
        let key = |scope: &str| Key::new(Url::parse("https://a.test").unwrap(), None, scope.to_owned(), None);
        tokens.landed(key("long"), &Ok(token(300)));
        tokens.landed(key("short"), &Ok(token(100)));
        drop(tokens.flight(&key("new"), || std::future::ready(Ok(token(60))).boxed().shared()));
        assert!(tokens.get(&key("long")).is_some() && tokens.get(&key("short")).is_none());
    }

    #[test]
    fn an_identity_token_is_changed_by_a_form() {
        let key = Key::new(Url::parse("https://a.test/t").unwrap(), Some("s".to_owned()), "x".to_owned(), None);
        let login = Login::Identity(crate::config::Secret::new("a&b"));
        let (method, url, _, body) = spell(&key, Some("x"), Some(&login));
        assert_eq!((method, url.as_str()), (Method::POST, "https://a.test/t"));
        assert_eq!(&body[..], b"grant_type=refresh_token&client_id=larder&refresh_token=a%26b&service=s&scope=x");
        let (method, url, ..) = spell(&key, Some("x y"), None);
        assert_eq!((method, url.as_str()), (Method::GET, "https://a.test/t?service=s&scope=x&scope=y"));
    }
}

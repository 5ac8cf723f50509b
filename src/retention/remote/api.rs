//! A registry's own API: JSON documents, in pages, from one origin.
//!
//! The credential goes to that origin only: no redirect is followed, and a page that lies elsewhere is an error. What says
//! "too many requests" is waited for within the configured patience; what fails is asked for once more where asking changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Uri;
use http::header;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio::time::sleep;
use url::Url;

use crate::clock::Clock;
use crate::config;
use crate::net::Fetch;
use crate::net::FetchSettings;
use crate::net::address::Origin;
use crate::net::fetch;
use crate::net::fetch::Answer;
use crate::telemetry::Metrics;
use crate::upstream::Deps;

use super::Error;
use super::Fault;
use super::Result;
use super::registry::at_once;

/// How long to wait after a 429 that does not say so.
const WAIT: Duration = Duration::from_secs(30);

/// Between the two tries of a question, jittered.
const BETWEEN_TRIES_MS: std::ops::Range<u64> = 50..150;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes of a registry's own words that are told on.
const SAID_BYTES_MAX: usize = 200;

/// How long to wait where an answer means "too many requests".
pub(super) type Limited = fn(&Answer, &Clock) -> Option<Duration>;

/// A registry's own API.
#[derive(Debug)]
pub(super) struct Api {
    /// The registry, as it is called in image names.
    host: String,
    base: Url,
    fetch: Fetch,
    patience: Duration,
    limited: Limited,
    places: Semaphore,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Api {
    /// The API of the registry `host`, where the configuration says or else at `default`.
    pub(super) fn open(
        host: &str,
        default: &str,
        config: &config::retention::Remote,
        upstream: Option<&config::Upstream>,
        deps: &Deps,
    ) -> Result<Self> {
        let unusable = |what: &str| Error::new(Fault::Unusable, format!("setting up the API of {host}: {what}"));
        let base = config.api.clone().or_else(|| Url::parse(default).ok()).ok_or_else(|| unusable("it has no URL"))?;
        let networks = config.may_connect_to.clone().or_else(|| Some(upstream?.may_connect_to.clone()));
        let settings = FetchSettings {
            written: vec![base.clone()],
            may_connect_to: networks.unwrap_or_default(),
            ca_file: config.ca_file.clone().or_else(|| upstream?.ca_file.clone()),
            proxy: config.proxy.clone().or_else(|| upstream?.proxy.clone()),
            connect: CONNECT,
            timeout: config.limits.timeout,
            body_max: config.limits.answer_bytes,
        };
        let fetch = Fetch::new(&deps.trust, settings).map_err(|error| unusable("it can't be used").caused_by(error))?;
        Ok(Self {
            host: host.to_owned(),
            base,
            fetch,
            patience: config.limits.patience,
            limited,
            places: Semaphore::new(at_once(&config.limits)),
            clock: deps.clock.clone(),
            metrics: Arc::clone(&deps.metrics),
        })
    }

    /// With another way to tell "too many requests".
    pub(super) fn limited_by(self, limited: Limited) -> Self {
        Self { limited, ..self }
    }

    /// The URL of a path; each part is encoded, its slashes too.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url
    }

    /// The host that is asked, for signatures: with its port where that is not its scheme's own.
    pub(super) fn authority(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// A page that an answer names, which must lie at the same origin.
    pub(super) fn page(&self, from: &Url, target: &str) -> Result<Url> {
        let url = from.join(target).map_err(|_| self.unusable("its next page is no URL"))?;
        if Origin::of(&url) != Origin::of(&self.base) {
            return Err(self.unusable("its next page lies at another host"));
        }
        Ok(url)
    }

    /// Asks for a document; asking changes nothing, so it is tried twice.
    pub(super) async fn get(&self, kind: &'static str, url: &Url, headers: &HeaderMap) -> Result<Answer> {
        let ask = || self.send(kind, Method::GET, url, headers.clone(), Bytes::new());
        match ask().await {
            Ok(answer) if answer.status.is_server_error() => {}
            Err(error) if may_pass(error.fault()) => {}
            ended => return ended,
        }
        sleep(Duration::from_millis(fastrand::u64(BETWEEN_TRIES_MS))).await;
        ask().await
    }

    /// Sends a request once, waiting where the registry says that it had too many: such an answer did nothing.
    pub(super) async fn send(
        &self,
        kind: &'static str,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer> {
        let until = Instant::now() + self.patience;
        loop {
            let answer = self.once(kind, method.clone(), url, headers.clone(), body.clone()).await?;
            let Some(wait) = (self.limited)(&answer, &self.clock) else { return Ok(answer) };
            let pause = wait.max(Duration::from_millis(100));
            if Instant::now() + pause > until {
                let message = format!("{}: it had too many requests", self.host);
                return Err(Error::new(Fault::RateLimited, message).after(Some(wait)));
            }
            tracing::debug!(remote = self.host, seconds = pause.as_secs(), "waiting: the API had too many requests");
            sleep(pause).await;
        }
    }

    async fn once(
        &self,
        kind: &'static str,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer> {
        let uri = Uri::try_from(url.as_str()).map_err(|_| self.unusable("its URL is no URI"))?;
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        // It is never closed.
        let place = self.places.acquire().await.ok();
        let answer = self.fetch.send(request).await;
        drop(place);
        self.metrics.upstream_request(&self.host, kind, answer.as_ref().map_or(0, |answer| answer.status.as_u16()));
        answer.map_err(|error| {
            let fault = match &error {
                fetch::Error::Net(error) => Fault::of_net(error),
                fetch::Error::Late { .. } => Fault::TimedOut,
                fetch::Error::Broken { .. } => Fault::Broken,
                _ => Fault::Unusable,
            };
            Error::new(fault, format!("asking the API of {}", self.host)).caused_by(error)
        })
    }

    /// The document of an answer of 2xx; an error of what another one means.
    pub(super) fn read<T: DeserializeOwned>(&self, what: &str, answer: &Answer) -> Result<T> {
        if !answer.status.is_success() {
            return Err(self.failed(what, answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.unusable(&format!("its {what} can't be read")).caused_by(error))
    }

    /// What an answer that is not 2xx means.
    pub(super) fn failed(&self, what: &str, answer: &Answer) -> Error {
        let status = answer.status.as_u16();
        let fault = match status {
            300..=399 => Fault::Unusable,
            401 => Fault::CredentialRefused,
            403 => Fault::Denied,
            status => Fault::Status(status),
        };
        let said = said(answer).map(|said| format!(": {said}")).unwrap_or_default();
        Error::new(fault, format!("{}: asking for its {what}, it answered {status}{said}", self.host))
    }

    /// An answer that can't be used.
    pub(super) fn unusable(&self, what: &str) -> Error {
        Error::new(Fault::Unusable, format!("{}: {what}", self.host))
    }

    /// There is no credential, and nothing can be done without.
    pub(super) fn no_credential(&self, needs: &str) -> Error {
        let message = format!("{}: {needs}; set credential of this remote registry", self.host);
        Error::new(Fault::CredentialRefused, message)
    }
}

/// Whether the same question may get an answer in a moment.
fn may_pass(fault: Fault) -> bool {
    matches!(fault, Fault::NoConnection(_) | Fault::Broken)
}

/// What a registry says of its no, in its own words and on one line.
pub(super) fn said(answer: &Answer) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    let of_first = |name: &str| document.get(name)?.get(0)?.get("message")?.as_str();
    let of_error = || document.get("error")?.get("message")?.as_str();
    let plain = |name: &str| document.get(name)?.as_str();
    let text = plain("message").or_else(|| of_first("errors")).or_else(of_error).or_else(|| plain("detail"));
    let text = text.or_else(|| plain("error_message"))?.trim();
    let text: String = text.chars().filter(|c| !c.is_control()).take(SAID_BYTES_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// 429; also GitHub's 403 that says that nothing is left, or when to come again.
fn limited(answer: &Answer, clock: &Clock) -> Option<Duration> {
    let is_spent = || answer.header("x-ratelimit-remaining") == Some("0");
    let says_when = || answer.headers.contains_key(header::RETRY_AFTER);
    match answer.status.as_u16() {
        429 => {}
        403 if is_spent() || says_when() => {}
        _ => return None,
    }
    let reset = || {
        let at: u64 = answer.header("x-ratelimit-reset")?.parse().ok()?;
        Some(Duration::from_millis(at.saturating_mul(1000).saturating_sub(clock.now().0)))
    };
    Some(answer.retry_after(clock.now()).or_else(reset).unwrap_or(WAIT))
}

/// An `Authorization` header, marked as not to be printed.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

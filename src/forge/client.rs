//! One forge over HTTP: its token, its redirects, its limits of how much it may be asked.
//!
//! Nothing but the origin that the configuration names is asked: the token goes nowhere else.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::header;
use tokio::time::Instant;
use url::Url;

use crate::clock::Clock;
use crate::config;
use crate::config::forge::ForgeKind;
use crate::net::Trust;
use crate::net::fetch;
use crate::net::fetch::Answer;
use crate::net::fetch::Fetch;
use crate::net::fetch::FetchSettings;
use crate::telemetry::Metrics;

use super::Error;

/// Tries of one page where the forge fails or does not answer.
const TRIES: u32 = 2;

/// Between the two, jittered.
const BETWEEN_TRIES_MS: std::ops::Range<u64> = 200..600;

/// Redirects in a row: a repository that was renamed has one.
const REDIRECTS_MAX: u32 = 3;

/// Times that one page waits because the forge is asked too much.
const WAITS_MAX: u32 = 3;

/// How long a forge is left alone that does not say how long.
const CLOSED: Duration = Duration::from_mins(1);

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");
const GITHUB_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");

/// One forge.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) settings: Arc<config::Forge>,
    fetch: Fetch,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Until when it is not asked.
    closed: Mutex<Option<Instant>>,
}

/// What is being listed, for messages and metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) repository: &'a str,
    pub(super) what: Listed,
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Branches,
    Pulls,
}

impl Listed {
    /// For people.
    fn words(self) -> &'static str {
        match self {
            Self::Branches => "branches",
            Self::Pulls => "pull requests",
        }
    }

    /// For metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Branches => "branches",
            Self::Pulls => "pulls",
        }
    }
}

impl Client {
    /// Asks nobody yet.
    pub(super) fn open(
        name: &str,
        settings: &Arc<config::Forge>,
        trust: &Trust,
        (clock, metrics): (&Clock, &Arc<Metrics>),
    ) -> Result<Self, Error> {
        let limits = &settings.limits;
        let fetch = Fetch::new(
            trust,
            FetchSettings {
                written: vec![settings.api.clone()],
                may_connect_to: Vec::new(),
                ca_file: settings.ca_file.clone(),
                proxy: settings.proxy.clone(),
                connect: limits.connect,
                timeout: limits.timeout,
                body_max: limits.answer_bytes,
            },
        );
        let fetch = fetch.map_err(|source| Error::Setup { forge: name.to_owned(), source })?;
        let (clock, metrics) = (clock.clone(), Arc::clone(metrics));
        Ok(Self {
            name: name.to_owned(),
            settings: Arc::clone(settings),
            fetch,
            clock,
            metrics,
            closed: Mutex::default(),
        })
    }

    /// An answer that can't be used.
    pub(super) fn unusable(&self, job: Job<'_>, problem: impl Into<String>) -> Error {
        let (forge, repository) = (self.name.clone(), job.repository.to_owned());
        Error::Answer { forge, repository, what: job.what.words(), problem: problem.into() }
    }

    /// One page, with the address at which it was in the end. Only 200 is an answer.
    pub(super) async fn page(&self, mut url: Url, job: Job<'_>) -> Result<(Url, Answer), Error> {
        let (mut failures, mut redirects, mut waits) = (0, 0, 0);
        loop {
            self.wait_until_open().await?;
            let answer = self.send(&url, job).await;
            let is_last = failures + 1 >= TRIES;
            let answer = match answer {
                Ok(answer) => answer,
                Err(source) if is_last || !is_passing(&source) => {
                    return Err(Error::Fetch { forge: self.name.clone(), source });
                }
                Err(_) => {
                    failures += 1;
                    pause().await;
                    continue;
                }
            };
            match answer.status.as_u16() {
                200 => return Ok((url, answer)),
                301 | 302 | 307 | 308 if redirects < REDIRECTS_MAX => {
                    redirects += 1;
                    url = self.redirected(&url, &answer, job)?;
                }
                404 | 410 => {
                    return Err(Error::Missing { forge: self.name.clone(), repository: job.repository.to_owned() });
                }
                429 | 403 if self.is_asked_too_much(&answer) => {
                    waits += 1;
                    let wait = self.close(&answer);
                    if waits > WAITS_MAX {
                        return Err(Error::RateLimited { forge: self.name.clone(), wait });
                    }
                }
                status @ (401 | 403) => {
                    let (forge, repository) = (self.name.clone(), job.repository.to_owned());
                    return Err(Error::Denied { forge, repository, status });
                }
                500.. if !is_last => {
                    failures += 1;
                    pause().await;
                }
                status => return Err(self.unusable(job, format!("answered {status}"))),
            }
        }
    }

    async fn send(&self, url: &Url, job: Job<'_>) -> Result<Answer, fetch::Error> {
        let sent = self.fetch.send(self.request(url)).await;
        let status = sent.as_ref().map_or(0, |answer| answer.status.as_u16());
        self.metrics.forge_request(&self.name, job.what.label(), status);
        let answer = sent?;
        if let Some(remaining) = number(&answer, "x-ratelimit-remaining").or(number(&answer, "ratelimit-remaining")) {
            self.metrics.forge_budget(&self.name, remaining);
            if remaining == 0 && answer.status.is_success() {
                self.close(&answer);
            }
        }
        Ok(answer)
    }

    fn request(&self, url: &Url) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        // A URL that is no URI has no host to connect to; the connection says so.
        if let Ok(uri) = url.as_str().parse() {
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        let accept = match self.settings.kind {
            ForgeKind::Github => "application/vnd.github+json",
            ForgeKind::Gitlab | ForgeKind::Gitea => "application/json",
        };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        if self.settings.kind == ForgeKind::Github {
            headers.insert(GITHUB_VERSION, HeaderValue::from_static("2022-11-28"));
        }
        let Some(token) = &self.settings.token else { return request };
        let (name, text) = match self.settings.kind {
            ForgeKind::Github => (header::AUTHORIZATION, format!("Bearer {}", token.reveal())),
            ForgeKind::Gitlab => (PRIVATE_TOKEN, token.reveal().to_owned()),
            ForgeKind::Gitea => (header::AUTHORIZATION, format!("token {}", token.reveal())),
        };
        if let Ok(mut value) = HeaderValue::try_from(text) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        request
    }

    /// Where an answer leads: within the origin that the configuration names, or nowhere.
    fn redirected(&self, from: &Url, answer: &Answer, job: Job<'_>) -> Result<Url, Error> {
        let location = answer.header(header::LOCATION).and_then(|text| from.join(text).ok());
        let to = location.ok_or_else(|| self.unusable(job, "redirects to nowhere"))?;
        if to.origin() != self.settings.api.origin() {
            let host = to.host_str().unwrap_or_default();
            let key = format!("redirects to {host}; if that is its API, write it as forges.{}.api", self.name);
            return Err(self.unusable(job, key));
        }
        Ok(to)
    }

    /// Whether a refusal is one of how much is asked, not of what (GitHub says 403 for both).
    fn is_asked_too_much(&self, answer: &Answer) -> bool {
        answer.status.as_u16() == 429
            || answer.retry_after(self.clock.now()).is_some()
            || number(answer, "x-ratelimit-remaining") == Some(0)
    }

    /// Asks nothing more for as long as the answer says.
    fn close(&self, answer: &Answer) -> Duration {
        let now = self.clock.now();
        let reset = number(answer, "x-ratelimit-reset").or(number(answer, "ratelimit-reset"));
        let until = reset.map(|at| Duration::from_millis(at.saturating_mul(1_000).saturating_sub(now.0)));
        let wait = answer.retry_after(now).or(until).unwrap_or(CLOSED).min(Duration::from_hours(1));
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + wait);
        wait
    }

    async fn wait_until_open(&self) -> Result<(), Error> {
        let closed = *self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let left = closed.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        if left > self.settings.limits.wait {
            return Err(Error::RateLimited { forge: self.name.clone(), wait: left });
        }
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
        Ok(())
    }
}

/// Whether the same question may be answered in a moment.
fn is_passing(error: &fetch::Error) -> bool {
    matches!(error, fetch::Error::Net(_) | fetch::Error::Late { .. } | fetch::Error::Broken { .. })
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(BETWEEN_TRIES_MS))).await;
}

/// A header that is a whole number.
pub(super) fn number(answer: &Answer, name: &str) -> Option<u64> {
    answer.header(name)?.trim().parse().ok()
}

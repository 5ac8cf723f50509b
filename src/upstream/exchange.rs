//! One question to one endpoint: place, budget, authorization, redirects, and the answer's status.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio::time::timeout_at;
use url::Url;

use crate::events::Event;
use crate::net;
use crate::net::address::Origin;
use crate::net::fetch::is_encoded;
use crate::net::fetch::retry_after;
use crate::oci::RepositoryName;

use super::Error;
use super::Fault;
use super::NoConnection;
use super::circuit::Admission;
use super::circuit::Part;
use super::credential::Login;
use super::endpoints::Core;
use super::endpoints::Endpoint;
use super::gate::Place;
use super::session::Sent;

pub(super) use super::session::Session;

/// How we call ourselves.
const USER_AGENT: &str = concat!("larder/", env!("CARGO_PKG_VERSION"));

/// What is asked, without knowing whom.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    /// What it may do, and so where its path begins.
    pub(super) right: Right,
    /// Behind what [`Right`] says.
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// As the metrics call it.
    pub(super) kind: &'static str,
    pub(super) headers: HeaderMap,
    pub(super) reading: Reading,
    /// Whether it asks for what a tag is: an unusable answer to that opens the circuit.
    pub(super) is_tag: bool,
}

/// What a question needs of the registry: its scope in a token, and where its path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// To pull: below `/v2/<name>/`.
    Pull,
    /// To pull, from an API that a registry has beside the specification's: the path is whole.
    Beside,
    /// To delete: below `/v2/<name>/`. Such a question is asked once, and no redirect of it is followed.
    Delete,
    /// To list the repositories: below `/v2/`.
    Catalog,
}

/// What becomes of the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is dropped.
    Nothing,
    /// It is read, at most so many bytes.
    Whole(u64),
    /// It is passed on as it comes.
    Stream,
}

impl Question {
    /// The path, with the repository's name in it.
    fn path_for(&self, name: &RepositoryName) -> String {
        match self.right {
            Right::Pull | Right::Delete => format!("v2/{name}/{}", self.path),
            Right::Catalog => format!("v2/{}", self.path),
            Right::Beside => self.path.clone(),
        }
    }

    /// Whether the upstream's quota counts it.
    pub(super) fn is_pull(&self) -> bool {
        self.method == Method::GET && self.kind == "manifest"
    }
}

/// An answer of 2xx.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) part: Part,
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) enum Body {
    Nothing,
    Whole(Bytes),
    Stream(Incoming, Place),
}

impl Answer {
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn bytes(&self) -> Bytes {
        if let Body::Whole(bytes) = &self.body { bytes.clone() } else { Bytes::new() }
    }
}

/// A failure, with the part that failed.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) part: Part,
    /// Who, where the part has several hosts.
    pub(super) origin: Option<Origin>,
    /// Whether it opens the part's circuit once the tries are used up.
    pub(super) counts: bool,
}

impl Failed {
    /// One that counts if its fault is one of those that open circuits.
    pub(super) fn new(error: Error, part: Part) -> Self {
        let counts = match error.fault() {
            Fault::NoConnection(why) => !matches!(why, NoConnection::CircuitOpen | NoConnection::Overloaded),
            Fault::TimedOut => true,
            Fault::Status(status) => status >= 500,
            Fault::Unusable | Fault::RateLimited => part == Part::Token,
            Fault::Denied | Fault::CredentialRefused | Fault::NotAllowed | Fault::Broken | Fault::AddressRefused => {
                false
            }
        };
        Self { error, part, origin: None, counts }
    }

    pub(super) fn at(mut self, origin: &Origin) -> Self {
        self.origin = (self.part == Part::Cdn).then(|| origin.clone());
        self
    }

    /// One that says nothing of the part's health.
    pub(super) fn uncounted(error: Error, part: Part) -> Self {
        Self { error, part, origin: None, counts: false }
    }
}

/// A request of ours. Bodies come as they are: nothing is asked to be encoded.
pub(super) fn request(
    method: Method,
    url: &Url,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, Error> {
    let host = url.host_str().unwrap_or_default();
    let unusable = || Error::new(Fault::Unusable, format!("making a request to {host}: its URL is no URI"));
    let uri = Uri::try_from(url.as_str()).map_err(|_| unusable())?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    Ok(request)
}

impl Endpoint {
    /// The endpoint's URL with a path behind it.
    pub(super) fn base(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let full = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&full);
        url
    }
}

impl Core {
    /// Tells what is left of the budget.
    fn note_budget(&self, remaining: u64, limit: Option<u64>, is_low: bool) {
        self.metrics.budget(&self.host, remaining);
        if let Some(limit) = limit {
            self.metrics.budget_limit(&self.host, limit);
        }
        if is_low {
            self.events.emit(Event::BudgetLow { upstream: self.host.clone(), remaining });
        }
    }

    /// Takes note that the credential was refused.
    pub(super) fn credential_refused(&self, login: &Login) {
        self.credentials.refused(login);
        self.events.emit(Event::CredentialRejected { upstream: self.host.clone() });
    }

    /// Sends one request and counts it.
    pub(super) async fn send(
        &self,
        kind: &'static str,
        request: Request<Full<Bytes>>,
        origin: &Origin,
        part: Part,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failed> {
        let answer = self.client.send(request, deadline).await;
        self.metrics.upstream_request(&self.host, kind, answer.as_ref().map_or(0, |answer| answer.status().as_u16()));
        answer.map_err(|error| Failed::new(from_net(error), part).at(origin))
    }

    /// Reads a body whole, at most `max` bytes of it.
    pub(super) async fn read(
        &self,
        body: Incoming,
        max: u64,
        origin: &Origin,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let host = origin.host();
        let too_large =
            || Error::new(Fault::Unusable, format!("reading an answer of {host}: it is larger than {max} bytes"));
        if hyper::body::Body::size_hint(&body).lower() > max {
            return Err(too_large());
        }
        let limited = Limited::new(body, usize::try_from(max).unwrap_or(usize::MAX));
        let Ok(read) = timeout_at(deadline, limited.collect()).await else {
            return Err(Error::new(Fault::TimedOut, format!("reading an answer of {host}: it took too long")));
        };
        let bytes = match read {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(too_large()),
            Err(error) => {
                let error = std::io::Error::other(error);
                return Err(Error::new(Fault::Broken, format!("reading an answer of {host}")).caused_by(error));
            }
        };
        self.metrics.upstream_received(&self.host, bytes.len() as u64);
        Ok(bytes)
    }
}

/// A request's way from the endpoint to wherever it is redirected.
impl Session<'_> {
    /// Asks; `Ok(None)` is the upstream's 404.
    pub(super) async fn run(&mut self) -> Result<Option<Answer>, Failed> {
        let is_pull = self.question.is_pull();
        let budget = self.endpoint.budget(self.ask.identity);
        let refused = |error| Failed::uncounted(error, Part::Registry);
        budget.admit(self.ask.priority, is_pull, Instant::now()).map_err(refused)?;
        let is_blob = self.question.reading == Reading::Stream;
        let place = self.endpoint.gate.enter(is_blob, self.deadline).await.map_err(refused)?;
        self.prepare().await?;
        loop {
            let (answer, part, origin) = self.follow().await?;
            let status = answer.status();
            if part == Part::Registry {
                if let Some((remaining, limit)) = budget.note(answer.headers(), Instant::now()) {
                    self.core.note_budget(remaining, limit, budget.is_low());
                }
                if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    let headers = answer.headers().clone();
                    discard(answer.into_body()).await;
                    self.reauthorize(status, &headers).await?;
                    continue;
                }
                if status == StatusCode::TOO_MANY_REQUESTS {
                    let wait = budget.close(answer.headers(), Instant::now(), self.core.clock.now());
                    let message = format!("{} said 429: too many requests", origin.host());
                    let error = Error::new(Fault::RateLimited, message).after(Some(wait));
                    return Err(Failed::uncounted(error, part));
                }
                if status.is_success() {
                    budget.reopen(is_pull);
                }
            }
            return self.judge(answer, part, origin, place).await;
        }
    }

    /// What an answer's status means.
    async fn judge(
        &self,
        answer: Response<Incoming>,
        part: Part,
        origin: Origin,
        place: Place,
    ) -> Result<Option<Answer>, Failed> {
        let (status, host) = (answer.status(), origin.host());
        if status == StatusCode::NOT_FOUND && self.is_registry {
            discard(answer.into_body()).await;
            return Ok(None);
        }
        if !status.is_success() {
            let after = retry_after(answer.headers(), self.core.clock.now());
            let fault = match status {
                StatusCode::TOO_MANY_REQUESTS => Fault::RateLimited,
                StatusCode::RANGE_NOT_SATISFIABLE => Fault::Unusable,
                status => Fault::Status(status.as_u16()),
            };
            let error = Error::new(fault, format!("asking {host} for a {}: it answered {status}", self.question.kind));
            return Err(Failed::new(error.after(after), part).at(&origin));
        }
        if is_encoded(answer.headers()) {
            let message =
                format!("{host} sent a {} with a content encoding that was not asked for", self.question.kind);
            let failed = Failed::new(Error::new(Fault::Unusable, message), part);
            return Err(Failed { counts: self.question.is_tag, ..failed });
        }
        let (parts, body) = answer.into_parts();
        let body = match self.question.reading {
            Reading::Nothing => Body::Nothing,
            Reading::Stream => Body::Stream(body, place),
            Reading::Whole(max) => {
                let read = self.core.read(body, max, &origin, self.deadline).await;
                let is_tag = self.question.is_tag;
                Body::Whole(read.map_err(|error| {
                    let unusable = error.fault() == Fault::Unusable;
                    let failed = Failed::new(error, part).at(&origin);
                    Failed { counts: failed.counts || (unusable && is_tag), ..failed }
                })?)
            }
        };
        Ok(Some(Answer { status: parts.status, headers: parts.headers, body, part, origin }))
    }

    /// Follows redirects. The authorization stays behind as soon as scheme, host or port changes, for good.
    async fn follow(&mut self) -> Result<(Response<Incoming>, Part, Origin), Failed> {
        let core = self.core;
        let mut url = self.endpoint.base(&self.question.path_for(&self.ask.name));
        url.set_query(self.question.query.as_deref());
        let mut origin = self.endpoint.origin.clone();
        let mut headers = self.question.headers.clone();
        match &self.sent {
            Sent::Nothing => {}
            Sent::Basic { value, .. } => drop(headers.insert(header::AUTHORIZATION, value.clone())),
            Sent::Token { token, .. } => drop(headers.insert(header::AUTHORIZATION, token.value.clone())),
        }
        let mut part = Part::Registry;
        for _ in 0..=core.limits.redirects {
            self.is_registry = part == Part::Registry || url.path().starts_with("/v2/");
            let asked = request(self.question.method.clone(), &url, headers.clone(), Bytes::new());
            let asked = asked.map_err(|error| Failed::new(error, part))?;
            let answer = core.send(self.question.kind, asked, &origin, part, self.deadline).await?;
            if !is_redirect(answer.status()) {
                return Ok((answer, part, origin));
            }
            if self.question.right == Right::Delete {
                let message = format!("{} redirects a delete, which is not followed", origin.host());
                return Err(Failed::uncounted(Error::new(Fault::Unusable, message), part));
            }
            let next = redirected(&url, answer.headers()).map_err(|error| Failed::new(error, part))?;
            discard(answer.into_body()).await;
            let Some(to) = Origin::of(&next) else {
                let message = format!("{} redirects to no host", origin.host());
                return Err(Failed::new(Error::new(Fault::Unusable, message), part));
            };
            if to != origin {
                headers.remove(header::AUTHORIZATION);
            }
            if to == self.endpoint.origin {
                part = Part::Registry;
            } else {
                part = Part::Cdn;
                self.admit_cdn(&to)?;
            }
            (url, origin) = (next, to);
        }
        let message = format!("{} redirects more than {} times", self.endpoint.origin.host(), core.limits.redirects);
        Err(Failed::new(Error::new(Fault::Unusable, message), part))
    }

    fn admit_cdn(&self, to: &Origin) -> Result<(), Failed> {
        let (circuit, now) = (self.endpoint.circuit(Part::Cdn), Instant::now());
        match circuit.admit(to, self.is_cold, now) {
            Admission::Free => Ok(()),
            // The probe's own right ends at once, but the next has to wait for its time.
            Admission::Refused(_) if self.is_cold && circuit.probe(now).is_some() => Ok(()),
            Admission::Refused(error) => Err(Failed::uncounted(error, Part::Cdn)),
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer redirects to: never from https to http, never with a user of its own.
fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let host = from.host_str().unwrap_or_default();
    let refused = |why: &str| Error::new(Fault::Unusable, format!("following a redirect of {host}: {why}"));
    let text = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let text = text.ok_or_else(|| refused("it says not where to"))?;
    let mut url = from.join(text).map_err(|_| refused("its target is no URL"))?;
    url.set_fragment(None);
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("its target is neither http nor https"));
    }
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(refused("it leads from https to http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("its target carries a user or a password"));
    }
    Ok(url)
}

/// Reads the rest of a small body, so that its connection can be used again.
pub(super) async fn discard(body: Incoming) {
    let until = Instant::now() + Duration::from_millis(100);
    if hyper::body::Body::size_hint(&body).upper().is_some_and(|bytes| bytes <= 64 << 10) {
        // Where it does not come the connection is closed instead.
        drop(timeout_at(until, body.collect()).await);
    }
}

/// A network's fault in the words of this module.
fn from_net(error: net::Error) -> Error {
    Error::new(Fault::of_net(&error), "asking the upstream").caused_by(error)
}

//! HTTP in, HTTP out: the only module that knows status codes, paths and headers of ours.
//!
//! A request is parsed ([`route`]), permitted by `access`, answered from `cache`, and accounted for. What a client may
//! learn of a failure is decided in `error`, in one total match.

mod account;
mod admin;
mod body;
mod error;
mod failure;
mod headers;
mod health;
mod hooks;
mod receive;
pub mod route;
mod token;
mod v2;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use tokio::sync::Semaphore;
use url::Url;

use crate::access::Access;
use crate::access::Caller;
use crate::access::Credentials;
use crate::cache::Cache;
use crate::cache::Wanted;
use crate::config;
use crate::config::client::Target as ClientTarget;
use crate::forge::Forges;
use crate::oci::RepositoryKey;
use crate::push::Push;
use crate::report::Ledger;
use crate::report::Report;
use crate::repository::NameProblem;
use crate::repository::Repositories;
use crate::retention::Prune;
use crate::retention::gc::Gc;
use crate::scrub::Scrub;
use crate::telemetry::Metrics;
use crate::views::Views;
use crate::warm::missing::Missing;

pub use body::Body;

use account::Account;
use failure::Failure;
use hooks::Hooks;
use route::Place;
use route::Problem;
use route::Route;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The client's address; nothing that a client says of itself replaces it.
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// Which listener a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Of the registry: what clients of registries and CI jobs need.
    Registry,
    /// Of the API, for whoever runs the server.
    Admin,
}

/// What does the work that requests ask for.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is what its type says")]
pub struct Services {
    pub cache: Cache,
    pub push: Push,
    pub views: Views,
    pub access: Arc<Access>,
    pub repositories: Arc<Repositories>,
    pub report: Report,
    pub ledger: Ledger,
    pub scrub: Scrub,
    pub forges: Forges,
    /// Collects what nothing names.
    pub gc: Gc,
    pub prune: Prune,
    pub missing: Missing,
    pub metrics: Arc<Metrics>,
}

/// Everything that requests are answered from.
#[derive(Debug)]
pub struct Api {
    cache: Cache,
    push: Push,
    views: Views,
    access: Arc<Access>,
    repositories: Arc<Repositories>,
    report: Report,
    ledger: Ledger,
    scrub: Scrub,
    hooks: Hooks,
    gc: Gc,
    prune: Prune,
    missing: Missing,
    metrics: Arc<Metrics>,
    limits: config::Limits,
    /// What clients call larder, where that is configured; changes with the configuration.
    external_url: ArcSwapOption<Url>,
    /// What clients' own configuration is made from; changes with the configuration.
    clients: ArcSwapOption<ClientTarget>,
    running: Arc<Semaphore>,
}

/// One request on its way to an answer.
struct Asked<'a> {
    head: &'a Parts,
    peer: Peer,
    account: &'a mut Account,
}

/// The body of a request.
pub trait Sent:
    http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin
{
}

impl<B> Sent for B where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin
{
}

type Answer = Result<Response<Body>, Failure>;

impl Api {
    /// Answers from these.
    pub fn new(services: Services, limits: &config::Limits) -> Self {
        let Services {
            cache,
            push,
            views,
            access,
            repositories,
            report,
            ledger,
            scrub,
            forges,
            gc,
            prune,
            missing,
            metrics,
        } = services;
        let running = Arc::new(Semaphore::new(usize::try_from(limits.requests).unwrap_or(Semaphore::MAX_PERMITS)));
        let (clients, external_url) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        Self {
            external_url,
            cache,
            push,
            views,
            access,
            repositories,
            report,
            ledger,
            scrub,
            hooks: Hooks::new(forges, limits),
            gc,
            prune,
            missing,
            metrics,
            limits: limits.clone(),
            clients,
            running,
        }
    }

    /// What clients call larder and what their configuration is made from, from now on.
    pub fn set_clients(&self, external_url: Option<Url>, target: Option<ClientTarget>) {
        self.external_url.store(external_url.map(Arc::new));
        self.clients.store(target.map(Arc::new));
    }

    /// Answers one request.
    pub async fn serve<B: Sent>(&self, door: Door, peer: Peer, head: Parts, body: &mut B) -> Response<Body> {
        let mut account = Account::open(&self.metrics, &head.method, &head.headers, peer.address);
        let mut asked = Asked { head: &head, peer, account: &mut account };
        let mut response = match self.answer(door, &mut asked, body).await {
            Ok(response) => response,
            Err(failure) => {
                let mut response = failure.response();
                if response.status() == StatusCode::UNAUTHORIZED {
                    token::set_challenge(self, &head, peer, response.headers_mut());
                }
                account.cause = failure.into_cause();
                response
            }
        };
        if head.uri.path().contains("/v2") {
            response.headers_mut().insert(headers::API_VERSION, HeaderValue::from_static("registry/2.0"));
        }
        headers::set_namespace(response.headers_mut(), account.namespace.as_deref());
        let without_body = head.method == Method::HEAD || response.body().length() == Some(0);
        if head.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        account.answered(response.status().as_u16(), without_body);
        response.map(|body| body.accounted(account))
    }

    async fn answer<B: Sent>(&self, door: Door, asked: &mut Asked<'_>, body: &mut B) -> Answer {
        let uri = &asked.head.uri;
        let route = route::parse(&asked.head.method, uri.path(), uri.query())?;
        asked.account.route = route.label();
        asked.account.namespace = route.place().and_then(|place| place.spelling.ns.clone());
        // Whoever looks after the process must get an answer however busy it is.
        if !matches!(route, Route::Healthy | Route::Ready | Route::Metrics) {
            let permit = Arc::clone(&self.running).try_acquire_owned().map_err(|_| Failure::overloaded())?;
            asked.account.permit = Some(permit);
        }
        match (door, route) {
            (_, Route::Healthy) => Ok(health::healthy()),
            (_, Route::Ready) => Ok(health::ready(&self.report)),
            (_, Route::Metrics) => Ok(health::metrics(&self.metrics)),
            (Door::Registry, Route::Token { only_pulls }) => Box::pin(token::answer(self, asked, only_pulls)).await,
            (Door::Registry, Route::ClientConfig(kind)) => self.client_config(&kind),
            (Door::Registry, Route::Hook(name)) => Box::pin(hooks::answer(self, asked, &name, body)).await,
            (Door::Registry, Route::Version(place)) => v2::version::answer(self, asked, &place).await,
            (Door::Registry, Route::Manifest { place, reference, verb, tags }) => {
                v2::manifests::answer(self, asked, &place, (&reference, &tags), verb, body).await
            }
            (Door::Registry, Route::Blob { place, digest, verb }) => {
                v2::blobs::answer(self, asked, &place, &digest, verb).await
            }
            // What is asked for seldom is boxed: each request is as large in memory as the largest of these.
            (Door::Registry, Route::Upload { place, upload }) => {
                Box::pin(v2::uploads::answer(self, asked, &place, &upload, body)).await
            }
            (Door::Registry, Route::Tags { place, page }) => {
                Box::pin(v2::tags::answer(self, asked, &place, &page)).await
            }
            (Door::Registry, Route::Referrers { place, digest, after, artifact_type }) => {
                let wanted = Wanted { subject: digest, after, artifact_type };
                Box::pin(v2::referrers::answer(self, asked, &place, wanted)).await
            }
            (_, Route::Api(api)) => Box::pin(admin::answer(self, door, asked, &api, body)).await,
            (Door::Admin, _) => Err(Problem::Nowhere.into()),
        }
    }

    /// The repository that a request means; noted in its account. Which registries are configured is nothing that
    /// somebody learns who would not be told of a repository either.
    async fn find(&self, asked: &mut Asked<'_>, place: &Place) -> Result<RepositoryKey, Failure> {
        if let Some(run) = &place.run {
            self.views.runs.touch(run);
        }
        match self.repositories.find(&place.spelling) {
            Ok(key) => {
                asked.account.repository = Some(key.clone());
                Ok(key)
            }
            Err(NameProblem::Unknown) => Err(self.access.unknown(&asked.caller(Some(place))).await.into()),
            Err(problem @ NameProblem::Invalid) => Err(problem.into()),
        }
    }

    /// `GET /client-config/<kind>`: the file for that client, with how it is taken up as comments where it has any.
    fn client_config(&self, kind: &str) -> Answer {
        let target = self.clients.load_full();
        let kind = config::client::Kind::named(kind);
        let (Some(target), Some(kind)) = (target, kind) else { return Err(Problem::Nowhere.into()) };
        Ok(with_body("text/plain; charset=utf-8", config::client::generate(kind, &target).content))
    }
}

impl Asked<'_> {
    /// Who asks, as far as it says so.
    fn caller(&self, place: Option<&Place>) -> Caller {
        let token = place.and_then(|place| place.token.as_ref());
        let credentials = match token {
            Some(token) => Some(Credentials::Bearer(config::Secret::new(token.as_str()))),
            None => Credentials::parse(self.head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes)),
        };
        let origin_header = self.head.headers.contains_key(header::ORIGIN);
        Caller { credentials, address: self.peer.address, origin_header }
    }
}

/// An answer of 200 with a body in memory.
fn with_body(content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let body = body.into();
    let length = body.length();
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(length) = length {
        headers::set_number(response.headers_mut(), header::CONTENT_LENGTH, length);
    }
    response
}

/// Headers of an answer about content, our own ones and hyper's.
const HEADERS: usize = 12;

/// An answer without a body.
fn without_body(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    // Room for what an answer about content has, in one piece.
    response.headers_mut().reserve(HEADERS);
    response
}

/// The answer to a request that can't be read safely.
pub fn malformed() -> Response<Body> {
    Failure::bad_request("the request is malformed").response()
}

/// The answer to a request that failed by a fault of the program.
pub fn failed() -> Response<Body> {
    Failure::internal().response()
}

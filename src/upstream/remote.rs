//! The distribution API over `net`: the one [`Upstream`] that talks to somebody.

use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::upstream::Upstream as Config;
use crate::events::Events;
use crate::net;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::Reference;
use crate::oci::Tag;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

use super::Ask;
use super::Error;
use super::Fault;
use super::Identity;
use super::Incoming;
use super::RawManifest;
use super::Resolved;
use super::Result;
use super::State;
use super::TagPage;
use super::Upstream;
use super::Wanted;
use super::answer;
use super::credential::Credentials;
use super::endpoints::Core;
use super::endpoints::Endpoint;
use super::exchange::Question;
use super::exchange::Reading;
use super::exchange::Right;
use super::listing::Cursors;
use super::listing::Listing;
use super::realm::Realms;

/// What we take: every manifest there is but schema 1. Nothing is negotiated down for a client: what a tag is must not
/// depend on who asks.
const ACCEPTED: [&str; 4] =
    [MediaType::OCI_INDEX, MediaType::OCI_MANIFEST, MediaType::DOCKER_LIST, MediaType::DOCKER_MANIFEST];

/// What an upstream shares with the rest of the program.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The time, for dates and states.
    pub clock: Clock,
    /// Where requests, bytes and health are counted.
    pub metrics: Arc<Metrics>,
    /// Where its background work runs.
    pub tasks: Tasks,
    /// Told of refused credentials and of budgets that end.
    pub events: Events,
    /// The authorities that are trusted where the configuration names none.
    pub trust: net::Trust,
}

/// One registry over HTTP.
#[derive(Debug)]
pub struct Remote {
    pub(super) core: Arc<Core>,
    config: Config,
    cursors: Cursors,
}

impl Remote {
    /// The upstream that is called `host` in image names. Asks nobody yet.
    ///
    /// # Errors
    /// The `ca_file` or the proxy can't be used.
    pub fn open(host: &str, config: &Config, deps: &Deps) -> Result<Arc<dyn Upstream>> {
        Ok(Arc::new(Self::new(host, config, deps)?))
    }

    /// The same, for whoever also lists repositories and deletes.
    ///
    /// # Errors
    /// As [`Remote::open`].
    pub fn new(host: &str, config: &Config, deps: &Deps) -> Result<Self> {
        let unusable = |what: &str| Error::new(Fault::Unusable, format!("setting up the upstream {host}: {what}"));
        let trust = match &config.ca_file {
            None => deps.trust.clone(),
            Some(file) => deps.trust.with(&file.bytes).map_err(|error| {
                unusable(&format!("its ca_file {} can't be used", file.path.display())).caused_by(error)
            })?,
        };
        let proxies = net::Proxies::configured(config.proxy.as_ref());
        let proxies = proxies.ok_or_else(|| unusable("its proxy can't be used"))?;
        let limits = config.limits.clone();
        let client = net::Client::new(net::Options {
            policy: net::Policy::new(&config.endpoints, &config.may_connect_to),
            trust,
            proxies,
            connect: limits.connect,
            idle: usize::try_from(limits.connections).unwrap_or(usize::MAX),
        });
        let endpoints: Vec<_> = config.endpoints.iter().filter_map(|url| Endpoint::new(url, &limits)).collect();
        if endpoints.is_empty() {
            return Err(unusable("it has no endpoint"));
        }
        let core = Core {
            host: host.to_owned(),
            client,
            endpoints,
            credentials: Credentials::new(config),
            realms: Realms::new(host, &config.token_hosts),
            limits,
            clock: deps.clock.clone(),
            metrics: Arc::clone(&deps.metrics),
            events: deps.events.clone(),
            tasks: deps.tasks.clone(),
        };
        Ok(Self { core: Arc::new(core), config: config.clone(), cursors: Cursors::default() })
    }

    /// Whether the configuration allows that repository.
    pub(super) fn check(&self, ask: &Ask) -> Result<()> {
        let name = ask.name.as_str();
        let allowed = self.config.allow.is_empty() || self.config.allow.iter().any(|glob| glob.matches(name));
        if allowed && !self.config.deny.iter().any(|glob| glob.matches(name)) {
            return Ok(());
        }
        let message = format!("the configuration does not allow {}/{name}", self.core.host);
        Err(Error::new(Fault::NotAllowed, message))
    }

    fn manifests(method: Method, reference: &Reference, reading: Reading) -> Question {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::try_from(ACCEPTED.join(", ")).unwrap_or(ANYTHING));
        let is_tag = matches!(reference, Reference::Tag(_));
        Question { method, headers, is_tag, ..question(format!("manifests/{reference}"), "manifest", reading) }
    }

    fn blobs(digest: &Digest, wanted: &Wanted, reading: Reading) -> Question {
        let mut question = question(format!("blobs/{digest}"), "blob", reading);
        let range = match wanted.end {
            Some(end) => Some(format!("bytes={}-{}", wanted.start, end.saturating_sub(1))),
            None if wanted.start > 0 => Some(format!("bytes={}-", wanted.start)),
            None => None,
        };
        let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) else { return question };
        question.headers.insert(header::RANGE, range);
        let same_as = wanted.same_as.as_ref().and_then(|validator| HeaderValue::try_from(validator).ok());
        if let Some(validator) = same_as {
            question.headers.insert(header::IF_RANGE, validator);
        }
        question
    }

    /// The size by a GET, for upstreams whose HEAD does not tell it or does not know the blob yet.
    async fn size_by_get(&self, ask: &Ask, digest: &Digest) -> Result<Option<u64>> {
        let first_byte = Wanted { start: 0, end: Some(1), same_as: None };
        let question = Self::blobs(digest, &first_byte, Reading::Nothing);
        self.core.ask(ask, &question, &|answer| answer::size_by_get(&answer)).await
    }

    fn listing(&self) -> Listing<'_> {
        Listing { core: &self.core, cursors: &self.cursors }
    }
}

const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

pub(super) fn question(path: String, kind: &'static str, reading: Reading) -> Question {
    let (method, headers) = (Method::GET, HeaderMap::new());
    Question { method, right: Right::Pull, path, query: None, kind, headers, reading, is_tag: false }
}

#[async_trait]
impl Upstream for Remote {
    async fn resolve(&self, ask: &Ask, reference: &Reference) -> Result<Option<Resolved>> {
        self.check(ask)?;
        let mut question = Self::manifests(Method::HEAD, reference, Reading::Nothing);
        // A HEAD that can't be used is followed by a GET, which decides.
        question.is_tag = false;
        self.core.ask(ask, &question, &|answer| answer::resolved(&answer, reference)).await
    }

    async fn manifest(&self, ask: &Ask, reference: &Reference) -> Result<Option<RawManifest>> {
        self.check(ask)?;
        let question = Self::manifests(Method::GET, reference, Reading::Whole(self.core.limits.manifest_bytes));
        self.core.ask(ask, &question, &|answer| answer::manifest(&answer, reference)).await
    }

    async fn blob(&self, ask: &Ask, digest: &Digest, wanted: &Wanted) -> Result<Option<Incoming>> {
        self.check(ask)?;
        let question = Self::blobs(digest, wanted, Reading::Stream);
        let pace = answer::Pace {
            upstream: self.core.host.clone(),
            metrics: Arc::clone(&self.core.metrics),
            stall: self.core.limits.stall,
            bytes_max: self.core.limits.blob_bytes,
        };
        self.core.ask(ask, &question, &|answer| answer::blob(answer, wanted, &pace)).await
    }

    async fn blob_size(&self, ask: &Ask, digest: &Digest) -> Result<Option<u64>> {
        self.check(ask)?;
        let mut question = Self::blobs(digest, &Wanted::default(), Reading::Nothing);
        question.method = Method::HEAD;
        match self.core.ask(ask, &question, &|answer| Ok(answer::length(&answer))).await {
            Ok(Some(Some(size))) => Ok(Some(size)),
            Ok(Some(None) | None) => self.size_by_get(ask, digest).await,
            // A signed URL may be one for GET only.
            Err(error) if matches!(error.fault(), Fault::Status(403 | 405)) => self.size_by_get(ask, digest).await,
            Err(error) => Err(error),
        }
    }

    async fn tags(&self, ask: &Ask, after: Option<&Tag>, limit: usize) -> Result<Option<TagPage>> {
        self.check(ask)?;
        self.listing().tags(ask, after, limit).await
    }

    async fn referrers(
        &self,
        ask: &Ask,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>> {
        self.check(ask)?;
        self.listing().referrers(ask, digest, artifact_type).await
    }

    fn state(&self) -> State {
        let (now, wall) = (Instant::now(), self.core.clock.now());
        let mut budgets = self.core.endpoints.iter().map(|endpoint| endpoint.budget(Identity::Configured));
        State {
            host: self.core.host.clone(),
            endpoints: self.core.endpoints.iter().map(Endpoint::state).collect(),
            budget: budgets.find_map(|budget| budget.state(now, wall)),
            credential_refused: self.core.credentials.is_refused(),
        }
    }
}

/// The header in which registries name a digest.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

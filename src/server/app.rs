//! The whole program put together from its configuration, in one readable function, and run until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ring::rand::SecureRandom;
use ring::rand::SystemRandom;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;

use crate::access::Access;
use crate::access::Signing;
use crate::access::token::KEY_BYTES;
use crate::api::Api;
use crate::api::Door;
use crate::api::Services;
use crate::cache;
use crate::cache::Cache;
use crate::cache::evict::Watermarks;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::Reload;
use crate::config::client;
use crate::events::Events;
use crate::forge;
use crate::forge::Forges;
use crate::history::History;
use crate::net::Trust;
use crate::push::Push;
use crate::report;
use crate::report::Facts;
use crate::report::Ledger;
use crate::report::Report;
use crate::repository;
use crate::repository::OwnNames;
use crate::repository::Repositories;
use crate::repository::Settings;
use crate::retention;
use crate::retention::Prune;
use crate::retention::gc;
use crate::retention::gc::Gc;
use crate::scrub::Scrub;
use crate::store;
use crate::store::Store;
use crate::store::StoreOptions;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::telemetry::logging::Logging;
use crate::upstream::Deps;
use crate::upstream::Remote;
use crate::views::Fallbacks;
use crate::views::Runs;
use crate::views::Views;
use crate::warm::missing;
use crate::warm::missing::Missing;
use crate::webhook;
use crate::webhook::Webhooks;

use super::Certificates;
use super::ListenError;
use super::Listener;
use super::Shutdown;
use super::Site;
use super::TlsError;
use super::watch;

/// Connections of the admin listener: people and scrapers.
const ADMIN_CONNECTIONS: usize = 256;

/// Why the program can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store can't be opened.
    #[error("opening the store")]
    Store(#[source] store::Error),
    /// An upstream can't be set up.
    #[error("setting up the upstreams")]
    Repositories(#[source] repository::Error),
    /// A forge can't be set up.
    #[error(transparent)]
    Forges(#[from] forge::Error),
    /// Nobody can be told of events.
    #[error(transparent)]
    Webhooks(#[from] webhook::Error),
    /// An address can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Retention can't be set up.
    #[error(transparent)]
    Prune(#[from] retention::OpenError),
    /// A key can't be drawn.
    #[error("the system gave no random bytes")]
    Random,
    /// The certificate can't be used.
    #[error("setting up TLS")]
    Tls(#[source] TlsError),
}

/// The program, listening and not serving yet.
#[derive(Debug)]
pub struct App {
    /// The registry's addresses, as they were bound.
    pub registry: Vec<SocketAddr>,
    /// The admin listener's address, as it was bound.
    pub admin: SocketAddr,
    config: Receiver<Arc<Config>>,
    logging: Option<Logging>,
    sockets: Vec<TcpListener>,
    admin_socket: TcpListener,
    certificates: Option<Arc<Certificates>>,
    store: Store,
    repositories: Arc<Repositories>,
    access: Arc<Access>,
    cache: Cache,
    history: History,
    ledger: Ledger,
    views: Views,
    push: Push,
    scrub: Scrub,
    gc: Gc,
    prune: Prune,
    forges: Forges,
    webhooks: Webhooks,
    api: Arc<Api>,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    events: Events,
    shutdown: Shutdown,
}

/// Puts the program together: the store first, so that what a crash left is settled before anybody is listened to.
/// Nothing is asked of any upstream.
///
/// `logging` follows the configuration's filter where it is given.
pub async fn build(config: Receiver<Arc<Config>>, logging: Option<Logging>, clock: Clock) -> Result<App, Error> {
    let now = Arc::clone(&config.borrow());
    let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
    let options = StoreOptions { store: now.store.clone(), lease: now.gc.lease };
    let store = Store::open(options, clock.clone(), tasks.clone(), Arc::clone(&metrics)).await.map_err(Error::Store)?;
    let sockets: Vec<TcpListener> = now.listen.iter().map(|address| super::bind(*address)).collect::<Result<_, _>>()?;
    let admin_socket = super::bind(now.admin.listen)?;
    let registry: Vec<SocketAddr> = sockets.iter().filter_map(|s| s.local_addr().ok()).collect();
    let admin = admin_socket.local_addr().unwrap_or(now.admin.listen);
    let certificates = now.tls.as_ref().map(Certificates::new).transpose().map_err(Error::Tls)?.map(Arc::new);
    let deps = deps(&now, &clock, &tasks, &metrics);
    let repositories = Repositories::new(&settings(&now, &registry), upstreams(deps.clone()));
    let repositories = Arc::new(repositories.map_err(Error::Repositories)?);
    let access = access(&now, &store, &repositories, &deps).await?;
    let history = history(&now, &store, &deps).await;
    let cache = cache(&now, &store, &history, &repositories, &deps);
    let (forges, webhooks) = (forges(&now, &store, &deps)?, webhooks(&now, &deps)?);
    let facts = Facts { listen: registry.clone(), store: now.store.path.clone(), max_bytes: now.store.max_size };
    let scrub = Scrub::new(store.clone(), clock.clone(), tasks.clone(), now.scrub.rate);
    let views = views(&now, &store, &clock, &tasks, &metrics);
    let gc = collector(&now, &store, &views, (&clock, &tasks, &metrics));
    let ledger = Ledger::new(store.clone(), history.clone(), clock.clone(), report::Terms::of(&now));
    let prune = prune(&now, &store, &history, &forges, (&repositories, &deps)).await?;
    let report = report(&cache, (&access, &repositories), &prune, &deps, (store.clone(), facts));
    let push = pushes(&now, &store, &repositories, (&tasks, &metrics)).await?;
    let services = Services {
        cache: cache.clone(),
        push: push.clone(),
        views: views.clone(),
        access: Arc::clone(&access),
        repositories: Arc::clone(&repositories),
        report,
        ledger: ledger.clone(),
        scrub: scrub.clone(),
        forges: forges.clone(),
        gc: gc.clone(),
        prune: prune.clone(),
        missing: missing(&now, &store, &cache, (&access, &repositories), &deps),
        metrics: Arc::clone(&metrics),
    };
    let api = Arc::new(Api::new(services, &now.limits));
    api.set_clients(now.external_url.clone(), client::target(&now, &registry));
    Ok(App {
        registry,
        admin,
        config,
        logging,
        sockets,
        admin_socket,
        certificates,
        store,
        repositories,
        access,
        cache,
        history,
        ledger,
        views,
        push,
        scrub,
        gc,
        prune,
        forges,
        webhooks,
        api,
        tasks,
        metrics,
        events: deps.events,
        shutdown: Shutdown::new(),
    })
}

/// What answers which images of a matrix are missing.
fn missing(
    config: &Config,
    store: &Store,
    cache: &Cache,
    (access, repositories): (&Arc<Access>, &Arc<Repositories>),
    deps: &Deps,
) -> Missing {
    let Deps { clock, tasks, metrics, .. } = deps.clone();
    let (store, cache) = (store.clone(), cache.clone());
    let (access, repositories) = (Arc::clone(access), Arc::clone(repositories));
    Missing::new(missing::Deps { cache, access, repositories, store, clock, tasks, metrics }, &config.limits)
}

/// What takes pushes, with the uploads that an earlier process left.
async fn pushes(
    config: &Config,
    store: &Store,
    repositories: &Arc<Repositories>,
    (tasks, metrics): (&Tasks, &Arc<Metrics>),
) -> Result<Push, Error> {
    let (store, repositories) = (store.clone(), Arc::clone(repositories));
    let uploads = config.access.limits.uploads;
    let push = Push::new(store, repositories, tasks.clone(), Arc::clone(metrics), &config.limits, uploads);
    push.take_up().await.map_err(Error::Store)?;
    Ok(push)
}

impl App {
    /// Serves until `stop` ends; then lets transfers finish for as long as the configuration says, and writes down what
    /// would be lost.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), store::Error> {
        let now = Arc::clone(&self.config.borrow());
        let marks = self.config.clone();
        let remembered = usize::try_from(now.store.uses).unwrap_or(usize::MAX);
        let evictor = self.cache.clone().evict_under_pressure(self.views.runs.clone(), remembered, move || {
            let now = marks.borrow();
            Some(Watermarks::of(&now.store, &now.runs))
        });
        self.tasks.spawn("evictor", evictor);
        self.tasks.spawn("run-keeper", self.views.runs.clone().keep());
        self.tasks.spawn("history", self.history.clone().keep(self.tasks.stopping()));
        self.tasks.spawn("scrub-keeper", self.scrub.clone().keep(now.scrub.every));
        self.tasks.spawn("gc-keeper", self.gc.clone().keep());
        self.tasks.spawn("prune-keeper", self.prune.clone().keep());
        self.tasks.spawn("uploads", self.push.keep_ending());
        let webhooks = self.webhooks.clone().run(self.events.subscribe(), self.tasks.stopping());
        self.tasks.spawn("webhooks", webhooks);
        self.tasks.spawn("room", watch::room(self.store.pressure(), self.events.clone(), self.tasks.stopping()));
        self.tasks.spawn("reload", self.follow_configuration());
        let files = usize::try_from(super::files_allowed() / 2).unwrap_or(usize::MAX);
        let places = Arc::new(Semaphore::new((now.limits.connections as usize).min(files)));
        let admin_places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
        let mut listeners: Vec<Listener<Site>> = Vec::new();
        for socket in self.sockets {
            let service = Arc::new(Site { api: Arc::clone(&self.api), door: Door::Registry });
            listeners.push(Listener { socket, tls: self.certificates.clone(), service, places: Arc::clone(&places) });
        }
        let service = Arc::new(Site { api: self.api, door: Door::Admin });
        let tls = self.certificates;
        listeners.push(Listener { socket: self.admin_socket, tls, service, places: admin_places });
        let cut = {
            let serving = super::run(listeners, &now.limits, now.drain, &self.tasks, &self.metrics, &self.shutdown);
            tokio::pin!(serving);
            tokio::select! {
                cut = &mut serving => cut,
                () = stop => {
                    self.shutdown.ask();
                    serving.await
                }
            }
        };
        if cut > 0 {
            tracing::warn!(connections = cut, "transfers were cut: they took longer than `drain`");
        }
        drop((
            self.cache,
            self.history,
            self.ledger,
            self.push,
            self.views,
            self.scrub,
            self.gc,
            self.prune,
            self.forges,
        ));
        self.tasks.stop().await;
        let closed = self.store.close().await;
        drop(self.store);
        // The index's writer ends when nobody can ask it any more; then the folder is free for the next process.
        drop(tokio::task::spawn_blocking(move || self.tasks.join_threads()).await);
        closed
    }

    /// Ends on SIGTERM and SIGINT, at once on the second; reads the configuration's files again on SIGHUP and when they
    /// change.
    pub fn follow_process(&self, reload: Reload) -> io::Result<()> {
        self.shutdown.on_signals(&self.tasks)?;
        self.tasks.spawn("configuration files", reload.run(self.tasks.stopping()));
        Ok(())
    }

    /// Takes up what changed in the configuration: upstreams, names, freshness, access, the certificate.
    fn follow_configuration(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut config, registry) = (self.config.clone(), self.registry.clone());
        let (repositories, access) = (Arc::clone(&self.repositories), Arc::clone(&self.access));
        let (certificates, stopping) = (self.certificates.clone(), self.tasks.stopping());
        let (logging, api) = (self.logging.clone(), Arc::clone(&self.api));
        let (push, views, gc) = (self.push.clone(), self.views.clone(), self.gc.clone());
        let ledger = self.ledger.clone();
        let (forges, webhooks) = (self.forges.clone(), self.webhooks.clone());
        let prune = self.prune.clone();
        async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    changed = config.changed() => if changed.is_err() { return },
                }
                let now = Arc::clone(&config.borrow_and_update());
                if let Err(error) = repositories.reload(&settings(&now, &registry)) {
                    tracing::error!(error = %crate::telemetry::chain(&error), "the upstreams stay as they were");
                    continue;
                }
                access.reload(&now.access);
                views.fallbacks.reload(now.build_caches.clone());
                views.runs.reload(now.runs.clone());
                gc.reload(gc::Settings::of(&now));
                if let Err(error) = prune.reload(retention::Settings::of(&now)) {
                    tracing::error!(error = %crate::telemetry::chain(&error), "retention stays as it was");
                }
                ledger.reload(report::Terms::of(&now));
                if let Err(error) = forges.reload(&now.forges) {
                    tracing::error!(error = %crate::telemetry::chain(&error), "the forges stay as they were");
                }
                if let Err(error) = webhooks.reload(&now.notify) {
                    tracing::error!(error = %crate::telemetry::chain(&error), "notify stays as it was");
                }
                push.set_uploads(now.access.limits.uploads);
                api.set_clients(now.external_url.clone(), client::target(&now, &registry));
                if let Some(logging) = &logging
                    && let Err(error) = logging.set(&now.telemetry.log)
                {
                    tracing::error!(error = %crate::telemetry::chain(&error), "the log's filter stays as it was");
                }
                if let (Some(certificates), Some(tls)) = (&certificates, &now.tls)
                    && let Err(error) = certificates.reload(tls)
                {
                    tracing::error!(error = %crate::telemetry::chain(&error), "the certificate stays as it was");
                }
            }
        }
    }
}

/// Who may do what.
async fn access(
    config: &Config,
    store: &Store,
    repositories: &Arc<Repositories>,
    deps: &Deps,
) -> Result<Arc<Access>, Error> {
    let signing = Signing { key: token_key(store).await?, clock: deps.clock.clone() };
    let (repositories, metrics) = (Arc::clone(repositories), Arc::clone(&deps.metrics));
    Ok(Arc::new(Access::new(&config.access, &config.limits, repositories, metrics, signing)))
}

/// What tells how things are.
fn report(
    cache: &Cache,
    (access, repositories): (&Arc<Access>, &Arc<Repositories>),
    prune: &Prune,
    deps: &Deps,
    (store, facts): (Store, Facts),
) -> Report {
    let (access, repositories, metrics) = (Arc::clone(access), Arc::clone(repositories), Arc::clone(&deps.metrics));
    Report::new(store, cache.clone(), access, repositories, prune.clone(), (metrics, deps.clock.clone()), facts)
}

/// What deletes by policy.
async fn prune(
    config: &Config,
    store: &Store,
    history: &History,
    forges: &Forges,
    (repositories, clients): (&Arc<Repositories>, &Deps),
) -> Result<Prune, Error> {
    let deps = retention::Deps {
        store: store.clone(),
        history: history.clone(),
        repositories: Arc::clone(repositories),
        forges: forges.clone(),
        clock: clients.clock.clone(),
        tasks: clients.tasks.clone(),
        metrics: Arc::clone(&clients.metrics),
        events: clients.events.clone(),
        clients: clients.clone(),
    };
    Ok(Prune::open(retention::Settings::of(config), deps).await?)
}

/// The key that tokens are signed with: drawn once, kept with the store, so that a restart ends no token. Where it can't be
/// written it lives as long as the process.
async fn token_key(store: &Store) -> Result<[u8; KEY_BYTES], Error> {
    let kept: Option<String> = store.state("tokens", "key").await.map_err(Error::Store)?;
    let mut key = [0; KEY_BYTES];
    if kept.is_some_and(|kept| hex::decode_to_slice(kept, &mut key).is_ok()) {
        return Ok(key);
    }
    SystemRandom::new().fill(&mut key).map_err(|_| Error::Random)?;
    if let Err(error) = store.put_state("tokens", "key", &hex::encode(key)).await {
        tracing::warn!(error = %crate::telemetry::chain(&error), "tokens end with this process: their key can't be kept");
    }
    Ok(key)
}

/// Which manifests tags mean.
fn views(config: &Config, store: &Store, clock: &Clock, tasks: &Tasks, metrics: &Arc<Metrics>) -> Views {
    let fallbacks = Fallbacks::new(store.clone(), config.build_caches.clone());
    let (clock, tasks, metrics) = (clock.clone(), tasks.clone(), Arc::clone(metrics));
    let runs = Runs::new(store.clone(), clock, tasks, metrics, config.runs.clone(), &config.limits);
    Views { fallbacks, runs }
}

/// What collects what nothing names any more.
fn collector(
    config: &Config,
    store: &Store,
    views: &Views,
    (clock, tasks, metrics): (&Clock, &Tasks, &Arc<Metrics>),
) -> Gc {
    let (clock, tasks, metrics) = (clock.clone(), tasks.clone(), Arc::clone(metrics));
    Gc::new(store.clone(), views.clone(), clock, tasks, metrics, gc::Settings::of(config))
}

/// What the configuration says of repositories.
fn settings(config: &Config, registry: &[SocketAddr]) -> Settings {
    Settings {
        default_upstream: config.default_upstream.clone(),
        upstreams: config.upstreams.clone(),
        hosted: config.hosted.clone(),
        freshness: config.freshness.clone(),
        own: OwnNames::new(config.external_url.as_ref(), registry),
    }
}

/// What everything that asks somebody else shares. The authorities of the machine are read once.
fn deps(config: &Config, clock: &Clock, tasks: &Tasks, metrics: &Arc<Metrics>) -> Deps {
    let counted = Arc::clone(metrics);
    let events = Events::new(config.limits.events, Arc::new(move |count| counted.events_lost(count)));
    let (clock, tasks, metrics) = (clock.clone(), tasks.clone(), Arc::clone(metrics));
    Deps { clock, metrics, tasks, events, trust: Trust::load() }
}

/// Where code lives.
fn forges(config: &Config, store: &Store, deps: &Deps) -> Result<Forges, forge::Error> {
    let (store, clock, metrics) = (store.clone(), deps.clock.clone(), Arc::clone(&deps.metrics));
    Forges::new(&config.forges, forge::Deps { store, clock, metrics, trust: deps.trust.clone() })
}

/// Who is told of events.
fn webhooks(config: &Config, deps: &Deps) -> Result<Webhooks, webhook::Error> {
    let Deps { clock, tasks, metrics, trust, .. } = deps.clone();
    Webhooks::new(&config.notify, webhook::Deps { clock, tasks, metrics, trust })
}

/// Makes the clients of upstreams.
fn upstreams(deps: Deps) -> repository::Build {
    Box::new(move |settings| Remote::open(&settings.host, settings, &deps))
}

/// What clients used when.
async fn history(config: &Config, store: &Store, deps: &Deps) -> History {
    let (clock, metrics) = (deps.clock.clone(), Arc::clone(&deps.metrics));
    History::open(store.clone(), &config.store.path, clock, metrics, config.history.clone()).await
}

fn cache(config: &Config, store: &Store, history: &History, repositories: &Arc<Repositories>, deps: &Deps) -> Cache {
    let Deps { clock, metrics, tasks, events, .. } = deps.clone();
    let (store, history, repositories) = (store.clone(), history.clone(), Arc::clone(repositories));
    let parts = cache::Parts { store, history, repositories, clock, tasks, metrics, events };
    Cache::new(parts, config.limits.clone())
}

//! Which images of a matrix are neither here nor upstream, so that a pipeline builds only those.
//!
//! A matrix is read, expanded and looked over before anybody is asked. Cells are looked for by HEAD, past what is remembered
//! as absent, after clients; an upstream that can't be asked is a fault of that cell and never its absence. A lease keeps
//! others from building the same cell meanwhile.

mod leases;
pub mod matrix;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::Map;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::access::Action;
use crate::access::Caller;
use crate::access::Grant;
use crate::access::Refusal;
use crate::access::Target;
use crate::cache;
use crate::cache::Cache;
use crate::cache::Presence;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::Limits;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::pattern::Version;
use crate::repository::Image;
use crate::repository::Repositories;
use crate::store;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

use leases::Leases;
use matrix::Cell;
use matrix::Latest;
use matrix::Matrix;
use matrix::Problem;

/// The name of our own work, where whoever runs the server asks.
const JOB: &str = "missing";

/// Stands for a version that is not looked up yet, to look over the names that it will be part of.
const ANY_VERSION: &str = "1.0.0";

/// Why a matrix has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The matrix is none that can be asked about. Nobody was asked.
    #[error(transparent)]
    Matrix(#[from] Problem),
    /// The caller has to say first who it is, or it can't be looked at now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A value could not be looked up.
    #[error("{problem}")]
    Latest {
        /// Where it stands, and what was looked for.
        problem: Problem,
        /// Why not.
        #[source]
        source: Box<cache::Error>,
    },
    /// There is no room for as many leases.
    #[error("as many cells are leased as limits.leases allows: {limit}")]
    Leases {
        /// The limit.
        limit: u32,
    },
    /// The lease is longer than the configuration allows.
    #[error("a lease lasts {} at most (limits.lease)", crate::config::duration::show(*.limit))]
    TooLong {
        /// The limit.
        limit: Duration,
    },
    /// The leases can't be read or written down.
    #[error("the leases of cells")]
    Store(#[source] store::Error),
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Asker<'a> {
    /// Whoever runs the server.
    Owner,
    /// A client, which learns of what it may pull.
    Client(&'a Caller),
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The matrix, in YAML or JSON.
    pub matrix: String,
    /// For how long the missing cells are leased to whoever asks.
    pub lease: Option<Duration>,
    /// More rows than that are an error, and nothing is leased.
    pub rows_max: Option<usize>,
}

/// What became of looking for an image.
#[derive(Clone, Debug)]
pub enum State {
    /// It is here.
    Here,
    /// It is at its upstream.
    Upstream,
    /// It is nowhere: to be built.
    Missing,
    /// It is nowhere, and somebody said until when it will have been built.
    Leased(Timestamp),
    /// Nobody could say.
    Failed(Fault),
}

/// Why nobody could say where an image is.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The upstream could not be asked.
    Cache(cache::Error),
    /// The caller may not know.
    Hidden(Refusal),
}

impl State {
    /// Its word, in answers and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Upstream => "upstream",
            Self::Missing => "missing",
            Self::Leased(_) => "leased",
            Self::Failed(_) => "failed",
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Every cell with its state, in the matrix's order.
    pub cells: Vec<(Cell, State)>,
    /// How many there are of each state.
    pub counts: BTreeMap<&'static str, u64>,
    /// What is to be built.
    pub rows: Vec<Map<String, Value>>,
    /// Until when the missing cells are leased to whoever asked.
    pub leased_until: Option<Timestamp>,
}

/// What it is put together from.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is what its type says")]
pub struct Deps {
    pub cache: Cache,
    pub access: Arc<Access>,
    pub repositories: Arc<Repositories>,
    pub store: Store,
    pub clock: Clock,
    pub tasks: Tasks,
    pub metrics: Arc<Metrics>,
}

/// Answers what is missing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Missing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Cache,
    access: Arc<Access>,
    repositories: Arc<Repositories>,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    leases: Leases,
    matrices: Semaphore,
    looks: Semaphore,
    looks_max: usize,
    cells_max: usize,
    lease_max: Duration,
}

/// A matrix whose names were looked over: cells, the images that they name, and which of these each cell has.
struct Planned {
    matrix: Matrix,
    cells: Vec<(Cell, usize)>,
    images: Vec<(RepositoryKey, Reference)>,
}

impl Missing {
    /// Answers from these.
    pub fn new(deps: Deps, limits: &Limits) -> Self {
        let Deps { cache, access, repositories, store, clock, tasks, metrics } = deps;
        let permits = |count: u32| usize::try_from(count).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            cache,
            access,
            repositories,
            tasks,
            leases: Leases::new(store, clock, Arc::clone(&metrics), limits.leases),
            metrics,
            matrices: Semaphore::new(permits(limits.matrices)),
            looks: Semaphore::new(permits(limits.looks)),
            looks_max: permits(limits.looks),
            cells_max: permits(limits.cells),
            lease_max: limits.lease,
        }))
    }

    /// Answers a question.
    ///
    /// # Errors
    ///
    /// The matrix is wrong, a value of it can't be looked up, it comes to more rows than are taken, or its cells can't be
    /// leased. An image that can't be looked for is no error but [`State::Failed`].
    pub async fn answer(&self, asker: Asker<'_>, question: Question) -> Result<Answered, Error> {
        let inner = &self.0;
        if question.lease.is_some_and(|lease| lease > inner.lease_max) {
            return Err(Error::TooLong { limit: inner.lease_max });
        }
        // It is never closed; and where it were, nothing bad would come of going on.
        let _turn = inner.matrices.acquire().await;
        let planned = inner.plan(asker, question.matrix).await?;
        let mut states = inner.look_for(asker, &planned.images).await?;
        self.leave_leased_out(&planned, &mut states).await?;
        let rows = planned.rows(&states);
        if let Some(most) = question.rows_max.filter(|most| rows.len() > *most) {
            return Err(planned.matrix.too_many_rows(rows.len(), most).into());
        }
        let mut answered = Answered { cells: Vec::new(), counts: BTreeMap::new(), rows, leased_until: None };
        // Where something failed the pipeline ends here: it would not build what it has leased.
        let all_known = !states.iter().any(|state| matches!(state, State::Failed(_)));
        if let Some(lease) = question.lease.filter(|_| all_known) {
            answered.leased_until = self.lease(&planned, &mut states, lease).await?;
            answered.rows = planned.rows(&states);
        }
        answered.cells = planned.with_states(&states);
        for (_, state) in &answered.cells {
            *answered.counts.entry(state.word()).or_default() += 1;
        }
        for (word, count) in &answered.counts {
            inner.metrics.missing_cells(word, *count);
        }
        Ok(answered)
    }

    /// What somebody else builds is left out.
    async fn leave_leased_out(&self, planned: &Planned, states: &mut [State]) -> Result<(), Error> {
        let leased = self.0.leases.look(&planned.missing(states)).await?;
        mark(states, &leased);
        Ok(())
    }

    /// Leases what is missing; what somebody else has leased in the meantime is left out.
    async fn lease(
        &self,
        planned: &Planned,
        states: &mut [State],
        lease: Duration,
    ) -> Result<Option<Timestamp>, Error> {
        let (missing, inner) = (planned.missing(states), Arc::clone(&self.0));
        // It goes on to its end when the caller goes away: what is in memory must be what is written down.
        let taking = self.0.tasks.spawn("lease", async move { inner.leases.take(missing, lease).await });
        let taken = taking.await.map_err(|_| Error::Store(store::Error::Closed))??;
        mark(states, &taken.others);
        Ok(taken.until)
    }
}

fn mark(states: &mut [State], leased: &HashMap<usize, Timestamp>) {
    for (index, until) in leased {
        if let Some(state) = states.get_mut(*index) {
            *state = State::Leased(*until);
        }
    }
}

impl Planned {
    /// The images that are missing, with the names of their leases.
    fn missing(&self, states: &[State]) -> Vec<(usize, Digest)> {
        let images = self.images.iter().zip(states).enumerate();
        let missing = images.filter(|(_, (_, state))| matches!(state, State::Missing));
        missing
            .map(|(index, ((repository, reference), _))| {
                (index, Digest::of(format!("{} {reference}", repository.path()).as_bytes()))
            })
            .collect()
    }

    fn rows(&self, states: &[State]) -> Vec<Map<String, Value>> {
        let missing = |image: &usize| matches!(states.get(*image), Some(State::Missing));
        self.matrix.rows(self.cells.iter().filter(|(_, image)| missing(image)).map(|(cell, _)| cell))
    }

    fn with_states(self, states: &[State]) -> Vec<(Cell, State)> {
        self.cells.into_iter().filter_map(|(cell, image)| Some((cell, states.get(image)?.clone()))).collect()
    }
}

impl Inner {
    /// Reads the matrix and looks over all that it names, before anybody is asked; then looks up the values that registries
    /// know.
    async fn plan(self: &Arc<Self>, asker: Asker<'_>, text: String) -> Result<Planned, Error> {
        let inner = Arc::clone(self);
        let planned = blocking(move || {
            let matrix = Matrix::parse(&text, inner.cells_max)?;
            let any: Vec<Arc<str>> = matrix.latest().map(|_| ANY_VERSION.into()).collect();
            inner.look_over(matrix, &any)
        })
        .await?;
        let wanted: Vec<Latest> = planned.matrix.latest().cloned().collect();
        if wanted.is_empty() {
            return Ok(planned);
        }
        let mut repositories = Vec::with_capacity(wanted.len());
        for latest in &wanted {
            repositories.push(self.repository(latest)?);
        }
        let (mut found, mut known) = (Vec::with_capacity(wanted.len()), HashMap::new());
        for (latest, repository) in wanted.iter().zip(repositories) {
            let version = match known.get(&repository) {
                Some(version) => Arc::clone(version),
                None => self.newest(asker, latest, &repository).await?,
            };
            known.insert(repository, Arc::clone(&version));
            found.push(version);
        }
        let inner = Arc::clone(self);
        blocking(move || inner.look_over(planned.matrix, &found)).await
    }

    /// The cells with the images that they name, each once.
    fn look_over(&self, matrix: Matrix, latest: &[Arc<str>]) -> Result<Planned, Error> {
        let (mut cells, mut images, mut places) = (Vec::new(), Vec::new(), HashMap::new());
        for cell in matrix.expand(latest, self.cells_max)? {
            let image = Image::parse(&cell.image, &self.repositories)
                .map_err(|error| cell.problem(&format!("not an image of a configured registry: {error}")))?;
            let reference = image.reference_or_latest();
            let place = *places.entry((image.repository, reference)).or_insert_with_key(|image| {
                images.push(image.clone());
                images.len() - 1
            });
            cells.push((cell, place));
        }
        Ok(Planned { matrix, cells, images })
    }

    /// The repository of which a value is the newest version.
    fn repository(&self, latest: &Latest) -> Result<RepositoryKey, Problem> {
        let named = format!("`{}`", latest.repository);
        let image = Image::parse(&latest.repository, &self.repositories).map_err(|error| {
            latest.place.problem(format!("{named} is no repository of a configured registry: {error}"))
        })?;
        if image.reference.is_some() {
            return Err(latest.place.problem(format!("{named} has a tag or digest; name the repository alone")));
        }
        Ok(image.repository)
    }

    async fn newest(&self, asker: Asker<'_>, latest: &Latest, repository: &RepositoryKey) -> Result<Arc<str>, Error> {
        let failed = |source: cache::Error| {
            let problem = latest.place.problem(format!("the tags of `{}` can't be listed", latest.repository));
            Error::Latest { problem, source: Box::new(source) }
        };
        let grant = match self.grant(asker, repository, &Target::Repository).await {
            Ok(grant) => grant,
            Err(Refusal::Hidden | Refusal::Denied) => return Err(failed(cache::Error::RepositoryUnknown)),
            Err(Refusal::Unavailable(error)) => return Err(failed(error.into())),
            Err(refusal @ (Refusal::Unauthenticated | Refusal::Busy)) => return Err(refusal.into()),
        };
        let mut newest: Option<(Version, Arc<str>)> = None;
        let note = |tag: &crate::oci::Tag| {
            let version = Version::parse(tag.as_str()).filter(Version::is_release);
            if let Some(version) = version.filter(|version| newest.as_ref().is_none_or(|(best, _)| version > best)) {
                newest = Some((version, tag.as_str().into()));
            }
        };
        self.cache.every_tag(&grant, note).await.map_err(failed)?;
        let none = || latest.place.problem(format!("no tag of `{}` is a released version", latest.repository));
        newest.map(|(_, tag)| tag).ok_or_else(|| none().into())
    }

    /// Looks for each image, so many at a time.
    async fn look_for(
        self: &Arc<Self>,
        asker: Asker<'_>,
        images: &[(RepositoryKey, Reference)],
    ) -> Result<Vec<State>, Error> {
        let mut grants = Vec::with_capacity(images.len());
        for (repository, reference) in images {
            let grant = match self.grant(asker, repository, &Target::Manifest(reference.clone())).await {
                Ok(grant) => Ok(grant),
                Err(refusal @ (Refusal::Unauthenticated | Refusal::Busy)) => return Err(refusal.into()),
                Err(refusal) => Err(refusal),
            };
            grants.push((grant, reference.clone()));
        }
        let looks = grants.into_iter().map(|(grant, reference)| {
            let inner = Arc::clone(self);
            async move {
                match grant {
                    Ok(grant) => inner.look(&grant, &reference).await,
                    Err(refusal) => State::Failed(Fault::Hidden(refusal)),
                }
            }
        });
        // In order, so that states and images stand side by side.
        Ok(stream::iter(looks).buffered(self.looks_max).collect().await)
    }

    async fn look(&self, grant: &Grant, reference: &Reference) -> State {
        let _turn = self.looks.acquire().await;
        match self.cache.presence(grant, reference).await {
            Ok(Presence::Here) => State::Here,
            Ok(Presence::Upstream) => State::Upstream,
            Ok(Presence::Missing) => State::Missing,
            Err(error) => State::Failed(Fault::Cache(error)),
        }
    }

    /// The right to know whether something is there, which is that to pull it.
    async fn grant(&self, asker: Asker<'_>, repository: &RepositoryKey, target: &Target) -> Result<Grant, Refusal> {
        match asker {
            Asker::Owner => Ok(Grant::for_job(JOB, repository.clone())),
            Asker::Client(caller) => self.access.consider(caller, Action::Pull, repository, target).await,
        }
    }
}

/// Runs what takes a moment of a core beside the requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::Store(store::Error::Closed))?
}

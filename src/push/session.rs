//! Uploads under way: whose they are, how far they have come, and when they end.
//!
//! A session is bound to the repository and the principal that began it; to everybody else it does not exist. What was
//! acknowledged of it survives the end of the process, not a power cut: its record and its file are written, and left to
//! the kernel.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use ring::rand::SecureRandom as _;
use ring::rand::SystemRandom;
use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::Principal;
use crate::oci::Algorithm;
use crate::oci::RepositoryKey;
use crate::store;
use crate::store::Store;
use crate::store::spool::Spooled;
use crate::tasks::Tasks;
use crate::telemetry;
use crate::telemetry::Metrics;

use super::Error;

/// The kind of the sessions' records.
const KIND: &str = "uploads";

/// How long a session without a byte is left alone before it gives way to a new one of the same principal: `BuildKit`
/// begins uploads ahead and leaves them idle while others use the line.
const GIVES_WAY_AFTER: Duration = Duration::from_mins(5);

/// The longest time between two looks for sessions that were left.
const LOOK_EVERY_MAX: Duration = Duration::from_mins(1);

/// Whose an upload is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Owner {
    /// Anybody's who knows its name: nobody said who they are.
    Anonymous,
    /// A user's.
    User(String),
    /// Our own work's.
    Job(String),
}

impl From<&Principal> for Owner {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::Anonymous => Self::Anonymous,
            Principal::User(name) => Self::User(name.to_string()),
            Principal::Job(name) => Self::Job((*name).to_owned()),
        }
    }
}

/// What is kept of a session.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    repository: RepositoryKey,
    owner: Owner,
    /// Bytes that were acknowledged.
    received: u64,
}

/// How far an upload has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its name.
    pub session: String,
    /// Bytes that came, without a hole from the first.
    pub received: u64,
}

/// One upload.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) of: RepositoryKey,
    owner: Owner,
    /// Held by whoever writes to it, or ends it.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Told when it is over, so that whoever writes to it stops.
    pub(super) over: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The file, where it is open.
    pub(super) spooled: Option<Arc<Spooled>>,
    /// Bytes in the file where it is not.
    pub(super) parked: u64,
    /// What the digest will be made with, as far as the client said.
    pub(super) algorithm: Algorithm,
    /// When its client was last heard.
    pub(super) touched: Instant,
}

impl State {
    /// Bytes that are in the file.
    fn received(&self) -> u64 {
        self.spooled.as_ref().map_or(self.parked, |spooled| spooled.progress().borrow().watermark)
    }
}

impl Session {
    fn new(id: String, noted: Noted, algorithm: Algorithm) -> Self {
        let state = State { spooled: None, parked: noted.received, algorithm, touched: Instant::now() };
        Self {
            id,
            of: noted.repository,
            owner: noted.owner,
            turn: Arc::default(),
            over: CancellationToken::new(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { session: self.id.clone(), received: self.state().received() }
    }

    pub(super) fn touch(&self) {
        self.state().touched = Instant::now();
    }

    /// Whether its client was not heard for `long` by `now`, and does not write either.
    fn is_left(&self, long: Duration, now: Instant) -> bool {
        // Its turn is tried last: that must not come between a client and its session.
        now.duration_since(self.state().touched) >= long && self.turn.try_lock().is_ok()
    }
}

/// The sessions by name, and the names by whose they are.
#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<String, Arc<Session>>,
    owners: HashMap<Owner, HashSet<String>>,
}

impl Table {
    fn insert(&mut self, session: &Arc<Session>) {
        self.owners.entry(session.owner.clone()).or_default().insert(session.id.clone());
        self.sessions.insert(session.id.clone(), Arc::clone(session));
    }

    fn remove(&mut self, session: &Session) -> bool {
        if let Some(names) = self.owners.get_mut(&session.owner) {
            names.remove(&session.id);
            if names.is_empty() {
                self.owners.remove(&session.owner);
            }
        }
        self.sessions.remove(&session.id).is_some()
    }

    fn of<'a>(&'a self, owner: &Owner) -> impl Iterator<Item = &'a Arc<Session>> {
        self.owners.get(owner).into_iter().flatten().filter_map(|id| self.sessions.get(id))
    }
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) store: Store,
    pub(super) tasks: Tasks,
    pub(super) metrics: Arc<Metrics>,
    /// How long one may be left.
    idle: Duration,
    /// How many a principal may have.
    per_owner: AtomicU32,
    table: Mutex<Table>,
}

impl Sessions {
    pub(super) fn new(store: Store, tasks: Tasks, metrics: Arc<Metrics>, idle: Duration, per_owner: u32) -> Self {
        Self { store, tasks, metrics, idle, per_owner: per_owner.into(), table: Mutex::default() }
    }

    pub(super) fn set_per_owner(&self, most: u32) {
        self.per_owner.store(most, Ordering::Relaxed);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session. It takes the place of the owner's oldest one that has no byte and was left, where there is no
    /// other place.
    pub(super) fn begin(
        self: &Arc<Self>,
        of: &RepositoryKey,
        owner: Owner,
        algorithm: Algorithm,
    ) -> Result<Arc<Session>, Error> {
        let noted = Noted { repository: of.clone(), owner, received: 0 };
        let session = Arc::new(Session::new(new_id()?, noted, algorithm));
        let most = self.per_owner.load(Ordering::Relaxed);
        let given_way = {
            let mut table = self.table();
            let open = table.of(&session.owner).count();
            let given_way =
                if open >= most as usize { gives_way(table.of(&session.owner), Instant::now()) } else { None };
            if open >= most as usize && given_way.is_none() {
                return Err(Error::TooManyUploads { limit: most });
            }
            if let Some(other) = &given_way {
                table.remove(other);
            }
            table.insert(&session);
            self.metrics.uploads_open(table.sessions.len());
            given_way
        };
        if let Some(other) = given_way {
            drop(self.end_later(other));
        }
        Ok(session)
    }

    /// Writes down how far a session has come: what is acknowledged after that survives the end of the process.
    pub(super) async fn note(&self, session: &Session) -> Result<Progress, Error> {
        let progress = session.progress();
        let noted = Noted { repository: session.of.clone(), owner: session.owner.clone(), received: progress.received };
        self.store.note_state(KIND, &session.id, &noted).await?;
        if session.over.is_cancelled() {
            // It ended meanwhile, and its record came after that.
            self.store.forget_state(KIND, &session.id).await?;
            return Err(Error::UploadUnknown);
        }
        Ok(progress)
    }

    /// The session of that name, if it is this repository's and this owner's: there is one answer to all others.
    pub(super) fn find(&self, id: &str, of: &RepositoryKey, owner: &Owner) -> Result<Arc<Session>, Error> {
        let session = self.table().sessions.get(id).cloned();
        let session = session.filter(|session| session.of == *of && session.owner == *owner);
        let session = session.ok_or(Error::UploadUnknown)?;
        session.touch();
        Ok(session)
    }

    /// Takes a session out, at once.
    pub(super) fn take_out(&self, session: &Session) {
        let mut table = self.table();
        table.remove(session);
        self.metrics.uploads_open(table.sessions.len());
        session.over.cancel();
    }

    /// Ends a session: it is unknown at once, and then its file and its record go. The caller has its turn.
    pub(super) async fn end(&self, session: &Session) {
        self.take_out(session);
        let spooled = session.state().spooled.take();
        let removed = match spooled {
            Some(spooled) => {
                spooled.discard().await;
                Ok(())
            }
            None => self.store.spool().remove_upload(&session.id).await,
        };
        let forgotten = self.store.forget_state(KIND, &session.id).await;
        if let Err(error) = removed.map_err(store::Error::from).and(forgotten) {
            // The next start tries again.
            tracing::warn!(error = %telemetry::chain(&error), "what an upload left could not be removed");
        }
    }

    /// A session whose file was published is over.
    pub(super) async fn published(&self, session: &Session) {
        self.take_out(session);
        if let Err(error) = self.store.forget_state(KIND, &session.id).await {
            tracing::warn!(error = %telemetry::chain(&error), "the record of an upload could not be removed");
        }
    }

    /// Ends a session as soon as nobody writes to it; whoever does is told to stop.
    pub(super) fn end_later(self: &Arc<Self>, session: Arc<Session>) -> tokio::task::JoinHandle<()> {
        self.take_out(&session);
        let sessions = Arc::clone(self);
        self.tasks.spawn("upload-end", async move {
            let _turn = session.turn.lock().await;
            sessions.end(&session).await;
        })
    }

    /// Takes up what an earlier process left, and removes what can't go on: files without a record, records whose file
    /// lacks what was acknowledged.
    pub(super) async fn take_up(&self) -> Result<(), store::Error> {
        let mut files: HashMap<String, u64> = self.store.spool().uploads().await?.into_iter().collect();
        let mut ids = self.store.states(KIND);
        while let Some(id) = ids.next().await.transpose()? {
            let here = files.remove(&id);
            let whole = |noted: &Noted| noted.received <= here.unwrap_or(0);
            match self.store.state::<Noted>(KIND, &id).await {
                Ok(Some(noted)) if whole(&noted) => {
                    let received = here.unwrap_or(0);
                    let session = Session::new(id, Noted { received, ..noted }, Algorithm::Sha256);
                    self.table().insert(&Arc::new(session));
                }
                Ok(_) => self.remove_left(&id).await,
                // A power cut may have left a half of it.
                Err(error) if error.is_damaged_record() => self.remove_left(&id).await,
                Err(error) => tracing::warn!(error = %telemetry::chain(&error), "an upload can't be taken up"),
            }
        }
        for id in files.keys() {
            self.remove_left(id).await;
        }
        self.metrics.uploads_open(self.table().sessions.len());
        Ok(())
    }

    async fn remove_left(&self, id: &str) {
        let removed = self.store.spool().remove_upload(id).await.map_err(store::Error::from);
        // What is no name of a record has none.
        let forgotten = self.store.forget_state(KIND, id).await;
        if let Err(error) = removed {
            tracing::warn!(error = %telemetry::chain(&error), "what an upload left could not be removed");
        }
        if let Err(error) = forgotten {
            tracing::debug!(error = %telemetry::chain(&error), "an upload without a record");
        }
    }

    /// Ends sessions that were left, until larder stops.
    pub(super) async fn keep_ending(self: Arc<Self>) {
        let stopping = self.tasks.stopping();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep((self.idle / 4).min(LOOK_EVERY_MAX)) => {}
            }
            let now = Instant::now();
            let all: Vec<_> = self.table().sessions.values().cloned().collect();
            // Who writes to one is bound by the stall time-out.
            for session in all.into_iter().filter(|session| session.is_left(self.idle, now)) {
                drop(self.end_later(session));
            }
        }
    }
}

/// The oldest of the sessions that have no byte and were left.
fn gives_way<'a>(sessions: impl Iterator<Item = &'a Arc<Session>>, now: Instant) -> Option<Arc<Session>> {
    let left = sessions.filter_map(|session| {
        let is_left = session.progress().received == 0 && session.is_left(GIVES_WAY_AFTER, now);
        is_left.then(|| (session.state().touched, session))
    });
    left.min_by_key(|(since, _)| *since).map(|(_, session)| Arc::clone(session))
}

/// 128 random bits, written as UUIDs are.
fn new_id() -> Result<String, Error> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| Error::Random)?;
    let hex = hex::encode(bits);
    let parts = [hex.get(..8), hex.get(8..12), hex.get(12..16), hex.get(16..20), hex.get(20..)];
    Ok(parts.map(Option::unwrap_or_default).join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, received: u64) -> Arc<Session> {
        let repository = RepositoryKey::from_path("_hosted/cache/app").unwrap();
        let noted = Noted { repository, owner: Owner::Anonymous, received };
        Arc::new(Session::new(id.to_owned(), noted, Algorithm::Sha256))
    }

    #[tokio::test]
    async fn the_oldest_that_was_left_without_a_byte_gives_way_and_no_other() {
        let (old, older, written, busy) = (session("a", 0), session("b", 0), session("c", 1), session("d", 0));
        let begun = Instant::now();
        for (n, session) in [&busy, &written, &older, &old].into_iter().enumerate() {
            session.state().touched = begun + Duration::from_secs(n as u64);
        }
        let all = [old, Arc::clone(&older), written, Arc::clone(&busy)];
        let _turn = busy.turn.lock().await;
        let at = |seconds| begun + GIVES_WAY_AFTER + Duration::from_secs(seconds);
        assert!(gives_way(all.iter(), at(1)).is_none(), "it is not long enough ago");
        assert_eq!(gives_way(all.iter(), at(9)).unwrap().id, older.id);
    }

    #[test]
    fn names_have_128_bits_of_chance() {
        let ids: HashSet<String> = (0..100).map(|_| new_id().unwrap()).collect();
        assert_eq!(ids.len(), 100);
        // Every bit is drawn: none is the same in all of them.
        let bits = |id: &String| u128::from_str_radix(&id.replace('-', ""), 16).unwrap();
        assert_eq!(ids.iter().map(bits).fold(0, |all, bits| all | bits), u128::MAX);
        assert_eq!(ids.iter().map(bits).fold(u128::MAX, |all, bits| all & bits), 0);
    }
}

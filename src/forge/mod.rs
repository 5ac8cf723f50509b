//! Where code lives: which branches are there, which pull requests are open.
//!
//! Asked of the forge's API when somebody wants to know, a minute at most after the last time, and told by its webhooks
//! ([`Forges::hear`]), which are hints: they make it be asked again. What is known survives restarts. Whoever decides
//! from it gets everything or an error, never a part.

mod client;
mod dialect;
mod error;
mod event;
mod ledger;
mod listing;
mod shelf;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config;
use crate::net::Trust;
use crate::store::Store;
use crate::telemetry::Metrics;

pub use error::Error;
pub use event::Event;
pub use event::What;
pub use ledger::Branches;
pub use ledger::Pull;
pub use ledger::Pulls;

use client::Client;
use dialect::Dialect;
use ledger::Made;
use shelf::Key;
use shelf::Shelf;

/// For how long back closed pull requests are listed.
const CLOSED_LISTED: Duration = Duration::from_hours(90 * 24);

/// For how long back those are listed again that were listed before.
const CLOSED_AGAIN: Duration = Duration::from_hours(24);

/// The largest file of branches, and how many files are remembered with how many branches.
const FILE_BYTES_MAX: u64 = 16 << 20;
const FILES_MAX: u32 = 1_000;
const FILE_NAMES_MAX: usize = 200_000;

/// Stands for the forge of branches that a file names; no configured one can be called so.
const FILE: &str = "file:";

/// The configured forges. Cheap to clone; clones share what is known.
#[derive(Clone, Debug)]
pub struct Forges(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clients: ArcSwap<BTreeMap<String, Arc<Client>>>,
    branches: Shelf<Branches>,
    pulls: Shelf<Pulls>,
    deps: Deps,
}

/// What forges share with the rest of the program.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where what is known is kept.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// The authorities that are trusted where the configuration names none.
    pub trust: Trust,
}

/// Whether an event told something new of a repository that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It did.
    News,
    /// It was known already, or nobody asks for the repository.
    Nothing,
}

impl Forges {
    /// The configured ones. Asks nobody yet.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] where the `ca_file` or the proxy of one can't be used.
    pub fn new(config: &BTreeMap<String, Arc<config::Forge>>, deps: Deps) -> Result<Self, Error> {
        let branches = Shelf::new("branches", deps.store.clone(), deps.clock.clone());
        let pulls = Shelf::new("pulls", deps.store.clone(), deps.clock.clone());
        let forges = Self(Arc::new(Inner { clients: ArcSwap::default(), branches, pulls, deps }));
        forges.reload(config)?;
        Ok(forges)
    }

    /// Takes up changed settings. A forge whose settings are the same stays as it is.
    ///
    /// # Errors
    ///
    /// As [`Forges::new`]; then everything stays as it was.
    pub fn reload(&self, config: &BTreeMap<String, Arc<config::Forge>>) -> Result<(), Error> {
        let before = self.0.clients.load();
        let deps = &self.0.deps;
        let mut clients = BTreeMap::new();
        for (name, settings) in config {
            let same = before.get(name).filter(|client| client.settings == *settings);
            let client = match same {
                Some(client) => Arc::clone(client),
                None => Arc::new(Client::open(name, settings, &deps.trust, (&deps.clock, &deps.metrics))?),
            };
            clients.insert(name.clone(), client);
        }
        self.0.clients.store(Arc::new(clients));
        Ok(())
    }

    /// What is known of the branches of a repository, asked anew if that is older than a minute or an event says that one
    /// is gone. An error: nothing may be decided.
    pub async fn branches(&self, forge: &str, repository: &str) -> Result<Arc<Branches>, Error> {
        let (client, key) = self.find(forge, repository)?;
        let limits = &client.settings.limits;
        let entry = self.0.branches.entry(key, limits.repositories).await?;
        let names = limits.names as usize;
        self.0.branches.ask(&entry, names, listing::branches(&client, repository)).await
    }

    /// What is known of the pull requests of a repository, asked anew as [`Forges::branches`] does.
    pub async fn pulls(&self, forge: &str, repository: &str) -> Result<Arc<Pulls>, Error> {
        let (client, key) = self.find(forge, repository)?;
        let limits = &client.settings.limits;
        let entry = self.0.pulls.entry(key, limits.repositories).await?;
        // What was listed before is remembered, so it need not be listed again, but for some that may have come late.
        let listed = Shelf::<Pulls>::peek(&entry).listed;
        let since = before(self.0.deps.clock.now(), CLOSED_LISTED).max(before(listed, CLOSED_AGAIN));
        let names = limits.names as usize;
        self.0.pulls.ask(&entry, names, listing::pulls(&client, repository, since)).await
    }

    /// The branches that a file names, one a line (`refs/heads/` in front is taken off), with those that it named before.
    /// A file can't tell of what came after it was written: [`Branches::listed`].
    pub async fn branches_of_file(&self, path: &Path) -> Result<Arc<Branches>, Error> {
        let owned = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_branches(&owned)).await;
        let read = read.map_err(std::io::Error::other).and_then(|read| read);
        let (found, written) =
            read.map_err(|source| Error::File { path: path.to_owned(), source: Arc::new(source) })?;
        if found.is_empty() {
            return Err(Error::Empty { path: path.to_owned() });
        }
        let key = Key { forge: FILE.to_owned(), repository: path.display().to_string() };
        let entry = self.0.branches.entry(key, FILES_MAX).await?;
        let made = Made { begun: written, ended: self.0.deps.clock.now() };
        Ok(self.0.branches.take(&entry, found, made, FILE_NAMES_MAX).await)
    }

    /// The settings of a forge, for whoever takes its webhooks.
    pub fn settings(&self, forge: &str) -> Option<Arc<config::Forge>> {
        self.0.clients.load().get(forge).map(|client| Arc::clone(&client.settings))
    }

    /// Takes in what a webhook of a forge says. Of a repository that nobody asked for it says nothing: that the forge has
    /// it at all is known from a listing only.
    pub async fn hear(&self, forge: &str, event: Event) -> Result<Heard, Error> {
        let (client, key) = self.find(forge, &event.repository)?;
        let most = client.settings.limits.repositories;
        let now = self.0.deps.clock.now();
        let news = match event.what {
            What::Pushed { branch, .. } => {
                let Some(entry) = self.0.branches.known(key, most).await? else { return Ok(Heard::Nothing) };
                self.0.branches.touch(&entry, (branch.clone(), true), |known| known.pushed(&branch)).await
            }
            What::Deleted { branch } => {
                let Some(entry) = self.0.branches.known(key, most).await? else { return Ok(Heard::Nothing) };
                self.0.branches.touch(&entry, (branch.clone(), false), |known| known.deleted(&branch, now)).await
            }
            What::PullOpened(pull) => {
                let Some(entry) = self.0.pulls.known(key, most).await? else { return Ok(Heard::Nothing) };
                self.0.pulls.touch(&entry, (pull.number, true), |known| known.opened(pull)).await
            }
            What::PullClosed(pull) => {
                let Some(entry) = self.0.pulls.known(key, most).await? else { return Ok(Heard::Nothing) };
                self.0.pulls.touch(&entry, (pull.number, false), |known| known.ended(pull, now)).await
            }
        };
        Ok(if news { Heard::News } else { Heard::Nothing })
    }

    fn find(&self, forge: &str, repository: &str) -> Result<(Arc<Client>, Key), Error> {
        let client = self.0.clients.load().get(forge).cloned();
        let client = client.ok_or_else(|| Error::Unknown { forge: forge.to_owned() })?;
        if !Dialect(client.settings.kind).is_name(repository) {
            return Err(Error::Name { forge: forge.to_owned(), repository: repository.to_owned() });
        }
        Ok((client, Key { forge: forge.to_owned(), repository: repository.to_ascii_lowercase() }))
    }
}

/// The moment so long before another.
fn before(moment: Timestamp, by: Duration) -> Timestamp {
    Timestamp(moment.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

/// The branches in a file, and when it was written.
fn read_branches(path: &Path) -> std::io::Result<(BTreeSet<String>, Timestamp)> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path)?;
    let before = file.metadata()?;
    let mut text = String::new();
    let read = (&mut file).take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it has more than 16 MiB"));
    }
    let after = file.metadata()?;
    if before.modified()? != after.modified()? || after.len() != read as u64 {
        return Err(std::io::Error::other("it is being written; put the new one in its place by a rename"));
    }
    let written = after.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names = lines.map(|line| line.strip_prefix("refs/heads/").unwrap_or(line).to_owned()).collect();
    Ok((names, Timestamp(u64::try_from(written.as_millis()).unwrap_or(u64::MAX))))
}

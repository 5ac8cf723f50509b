//! Taking up a changed configuration while the server runs.
//!
//! What changed is told by content, not by time or inode: a mounted `ConfigMap` is a swap of symbolic links. The file and
//! every file that it names are hashed when they are read and looked at again every ten seconds, on SIGHUP, and when
//! somebody asks. A file that can't be used leaves everything as it was, and is said once.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::Digest as _;
use sha2::Sha256;
use tokio::signal::unix::SignalKind;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::Error;
use super::Loaded;
use super::Sources;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// The files of one reading, with the hash of what they held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, Option<[u8; 32]>>);

impl Seen {
    /// Notes a file with its content; `None` where it could not be read.
    pub(super) fn note(&mut self, path: &Path, content: Option<&[u8]>) {
        self.0.insert(path.to_owned(), content.map(hash));
    }

    /// Which files they are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Whether a file holds something else by now.
    fn changed(&self) -> bool {
        self.0.iter().any(|(path, seen)| super::reading::read_bounded(path).ok().map(|content| hash(&content)) != *seen)
    }
}

fn hash(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

/// What one look at the files came to.
#[derive(Debug)]
pub enum Outcome {
    /// They are as they were.
    Unchanged,
    /// There is a new configuration, and these keys take effect only at the next start.
    Reloaded {
        /// Keys that changed and that a running server can't follow.
        restart: Vec<&'static str>,
    },
    /// The old configuration goes on.
    Kept(Error),
}

/// Asks for a look at the files now.
#[derive(Debug, Clone)]
pub struct Ask(Arc<Notify>);

impl Ask {
    /// Asks; several asks before the look are one.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// The side that reads the files and hands out what they say.
#[derive(Debug)]
pub struct Reload {
    sources: Sources,
    environment: fn(&str) -> Option<String>,
    seen: Seen,
    current: watch::Sender<Arc<Config>>,
    asked: Arc<Notify>,
}

impl Reload {
    /// Begins with a configuration that was just loaded from `sources`. The receiver yields each later one.
    pub fn new(
        sources: Sources,
        environment: fn(&str) -> Option<String>,
        loaded: Loaded,
    ) -> (Self, watch::Receiver<Arc<Config>>) {
        let (current, receiver) = watch::channel(Arc::new(loaded.config));
        let asked = Arc::new(Notify::new());
        (Self { sources, environment, seen: loaded.files, current, asked }, receiver)
    }

    /// A way to ask for a look, for the API.
    pub fn ask(&self) -> Ask {
        Ask(Arc::clone(&self.asked))
    }

    /// Looks at the files until it is told to stop.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut hangups = match tokio::signal::unix::signal(SignalKind::hangup()) {
            Ok(hangups) => Some(hangups),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP is not to be had; the configuration is read again when its file changes");
                None
            }
        };
        loop {
            let asked = tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => false,
                () = self.asked.notified() => true,
                true = hangup(&mut hangups) => true,
            };
            let outcome = self.look().await;
            report(&outcome, asked);
        }
    }

    /// Looks at the files once, and publishes the configuration when they changed and it can be used.
    pub async fn look(&mut self) -> Outcome {
        let (sources, environment, seen) = (self.sources.clone(), self.environment, self.seen.clone());
        let read = tokio::task::spawn_blocking(move || seen.changed().then(|| super::attempt(&sources, &environment)));
        let Ok(Some((result, seen))) = read.await else { return Outcome::Unchanged };
        // A bad file is noted too, so that it is said once and not at every look.
        self.seen = seen;
        match result {
            Err(error) => Outcome::Kept(error),
            Ok(loaded) => {
                for remark in &loaded.remarks {
                    tracing::warn!("{remark}");
                }
                let restart = restart_needed(&self.current.borrow(), &loaded.config);
                self.current.send_replace(Arc::new(loaded.config));
                Outcome::Reloaded { restart }
            }
        }
    }
}

async fn hangup(signals: &mut Option<tokio::signal::unix::Signal>) -> bool {
    match signals {
        Some(signals) => signals.recv().await.is_some(),
        None => std::future::pending().await,
    }
}

fn report(outcome: &Outcome, asked: bool) {
    match outcome {
        Outcome::Unchanged if asked => tracing::info!("the configuration is unchanged"),
        Outcome::Unchanged => {}
        Outcome::Reloaded { restart } if restart.is_empty() => tracing::info!("the configuration was reloaded"),
        Outcome::Reloaded { restart } => tracing::warn!(
            keys = restart.join(", "),
            "the configuration was reloaded; these keys take effect at the next start"
        ),
        Outcome::Kept(error) => tracing::error!("the configuration was not reloaded, the old one stays: {error}"),
    }
}

/// The keys that differ and that a running server can't follow.
fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let keys = [
        ("listen", old.listen != new.listen),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("tls", old.tls.is_some() != new.tls.is_some()),
        ("store.path", old.store.path != new.store.path),
        ("store.durability", old.store.durability != new.store.durability),
        ("store.memory", old.store.memory != new.store.memory),
        ("store.queue", old.store.queue != new.store.queue),
        ("store.uses", old.store.uses != new.store.uses),
        ("limits", old.limits != new.limits),
        ("telemetry.format", old.telemetry.format != new.telemetry.format),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

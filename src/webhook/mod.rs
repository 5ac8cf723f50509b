//! Tells whoever runs the server: events go out as JSON by POST, to the URLs that `notify` names.
//!
//! Nothing waits for it. Each target has its own queue and its own tries, so one that is away keeps none of the others
//! waiting; what is told already is not told again for a while. A URL is a secret and stands in no log.

mod target;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Notify;
use crate::events::Subscription;
use crate::net::Trust;
use crate::net::fetch;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

use target::Target;

/// A target that can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("setting up what notify tells at the URL in {}", file.display())]
pub struct Error {
    /// The file that holds its URL.
    file: PathBuf,
    /// Why.
    #[source]
    source: fetch::Error,
}

/// What this shares with the rest of the program.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The time.
    pub clock: Clock,
    /// Where deliveries run.
    pub tasks: Tasks,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// The authorities that are trusted where the configuration names none.
    pub trust: Trust,
}

/// The targets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Webhooks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    targets: ArcSwap<Vec<Target>>,
    deps: Deps,
}

impl Webhooks {
    /// The configured ones. Tells nobody yet.
    ///
    /// # Errors
    ///
    /// The `ca_file` or the proxy of one can't be used.
    pub fn new(config: &[Notify], deps: Deps) -> Result<Self, Error> {
        let webhooks = Self(Arc::new(Inner { targets: ArcSwap::default(), deps }));
        webhooks.reload(config)?;
        Ok(webhooks)
    }

    /// Takes up changed settings, another URL among them; what waits for a target that is still there goes to it.
    ///
    /// # Errors
    ///
    /// As [`Webhooks::new`]; then everything stays as it was.
    pub fn reload(&self, config: &[Notify]) -> Result<(), Error> {
        let before = self.0.targets.load();
        let mut made = Vec::new();
        for settings in config {
            made.push(target::Settings::new(settings, &self.0.deps)?);
        }
        let targets = made.into_iter().map(|settings| match before.iter().find(|target| target.is(&settings)) {
            Some(target) => target.with(settings),
            None => Target::start(settings, &self.0.deps),
        });
        self.0.targets.store(Arc::new(targets.collect()));
        Ok(())
    }

    /// Tells what happens until it is told to stop.
    pub async fn run(self, mut happening: Subscription, stopping: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = stopping.cancelled() => return,
                event = happening.next() => event,
            };
            let Some(event) = event else { return };
            for target in self.0.targets.load().iter() {
                target.tell(&event, &self.0.deps);
            }
        }
    }
}

//! What is here, how the server is, and why a pull hits or misses. It reads only.

mod explain;
mod inventory;
mod status;
mod usage;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;

use crate::access::Access;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::repository::Repositories;
use crate::retention::Prune;
use crate::store::Completeness;
use crate::store::PressureState;
use crate::store::Store;
use crate::telemetry::Metrics;

pub use explain::Explanation;
pub use inventory::Held;
pub use inventory::HeldTag;
pub use status::Status;
pub use usage::Ledger;
pub use usage::Terms;
pub use usage::Usage;

/// What is known from the start on and does not change.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The addresses that are listened on, as they were bound.
    pub listen: Vec<SocketAddr>,
    /// The store's folder.
    pub store: PathBuf,
    /// The bound of what came from upstreams, in bytes.
    pub max_bytes: u64,
}

/// Reads what the parts know of themselves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Report {
    store: Store,
    cache: Cache,
    access: Arc<Access>,
    repositories: Arc<Repositories>,
    prune: Prune,
    metrics: Arc<Metrics>,
    clock: Clock,
    facts: Arc<Facts>,
    began: Instant,
}

impl Report {
    /// Reports on these, from now on.
    pub fn new(
        store: Store,
        cache: Cache,
        access: Arc<Access>,
        repositories: Arc<Repositories>,
        prune: Prune,
        (metrics, clock): (Arc<Metrics>, Clock),
        facts: Facts,
    ) -> Self {
        Self {
            store,
            cache,
            access,
            repositories,
            prune,
            metrics,
            clock,
            facts: Arc::new(facts),
            began: Instant::now(),
        }
    }

    /// How the index stands: `complete`, or `rebuilding` with the rows that were written so far.
    pub fn index_state(&self) -> String {
        match *self.store.completeness().borrow() {
            Completeness::Complete => "complete".to_owned(),
            Completeness::Rebuilding { done } => format!("rebuilding, {done} rows so far"),
        }
    }

    /// Whether the store takes writes: `ok`, `full`, `read-only`.
    pub fn store_state(&self) -> &'static str {
        match self.store.pressure().borrow().state {
            PressureState::Ok => "ok",
            PressureState::Full => "full",
            PressureState::ReadOnly => "read-only",
        }
    }
}

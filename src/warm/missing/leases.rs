//! Who builds which missing image: an image that is leased is left out of everybody else's rows, until the lease is over or
//! the image is there. A record a lease, so that a restart forgets none.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::sync::MutexGuard;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::store;
use crate::store::Store;
use crate::telemetry::Metrics;

use super::Error;

/// The kind of the records.
const KIND: &str = "missing";

/// What is written down of a lease.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    until: Timestamp,
    images: Vec<Digest>,
}

/// What was leased.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Until when; none where nothing was left to lease.
    pub(super) until: Option<Timestamp>,
    /// What somebody else has, and until when.
    pub(super) others: HashMap<usize, Timestamp>,
}

/// The leases of all images.
#[derive(Debug)]
pub(super) struct Leases {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    most: u32,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Set when every record was read.
    loaded: bool,
    until: HashMap<Digest, Timestamp>,
    /// By their end, so that those that are over are found first.
    records: BTreeMap<(Timestamp, String), Vec<Digest>>,
}

impl Leases {
    /// None is read yet; the first question reads them.
    pub(super) fn new(store: Store, clock: Clock, metrics: Arc<Metrics>, most: u32) -> Self {
        Self { store, clock, metrics, most, held: Mutex::default() }
    }

    /// Which of these somebody has leased.
    ///
    /// # Errors
    ///
    /// The records can't be read.
    pub(super) async fn look(&self, images: &[(usize, Digest)]) -> Result<HashMap<usize, Timestamp>, Error> {
        if images.is_empty() {
            return Ok(HashMap::new());
        }
        Ok(self.living().await?.of(images))
    }

    /// Leases those of the images that nobody has, all together. What this gives is written down.
    ///
    /// # Errors
    ///
    /// There is no room for as many, or they can't be written down; then none is leased.
    pub(super) async fn take(&self, images: Vec<(usize, Digest)>, lease: Duration) -> Result<Taken, Error> {
        let mut held = self.living().await?;
        let others = held.of(&images);
        let free: Vec<Digest> =
            images.into_iter().filter(|(index, _)| !others.contains_key(index)).map(|(_, image)| image).collect();
        if free.is_empty() {
            return Ok(Taken { until: None, others });
        }
        if held.until.len().saturating_add(free.len()) > self.most as usize {
            return Err(Error::Leases { limit: self.most });
        }
        let record = Record { until: self.clock.now().after(lease), images: free };
        let id = record.id();
        self.store.put_state(KIND, &id, &record).await.map_err(Error::Store)?;
        let until = record.until;
        held.insert(id, record);
        self.count(&held);
        Ok(Taken { until: Some(until), others })
    }

    /// The leases that are not over.
    async fn living(&self) -> Result<MutexGuard<'_, Held>, Error> {
        let mut held = self.held.lock().await;
        if !held.loaded {
            *held = self.load().await.map_err(Error::Store)?;
        }
        let now = self.clock.now();
        while let Some(first) = held.records.first_entry().filter(|first| first.key().0 <= now) {
            let ((until, id), images) = first.remove_entry();
            for image in images {
                if held.until.get(&image) == Some(&until) {
                    held.until.remove(&image);
                }
            }
            // A record that stays is over all the same.
            if let Err(error) = self.store.drop_state(KIND, &id).await {
                tracing::warn!(error = %crate::telemetry::chain(&error), "the record of a lease that is over stays");
            }
        }
        self.count(&held);
        Ok(held)
    }

    async fn load(&self) -> store::Result<Held> {
        let mut held = Held { loaded: true, ..Held::default() };
        let ids: Vec<String> = self.store.states(KIND).try_collect().await?;
        for id in ids {
            match self.store.state::<Record>(KIND, &id).await {
                Ok(Some(record)) => held.insert(id, record),
                Ok(None) => {}
                // Nobody knows what it leased; it would have ended by itself.
                Err(error) if error.is_damaged_record() => {
                    tracing::warn!(error = %crate::telemetry::chain(&error), "the record of a lease is damaged and goes");
                    self.store.drop_state(KIND, &id).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    fn count(&self, held: &Held) {
        self.metrics.missing_leases(i64::try_from(held.until.len()).unwrap_or(i64::MAX));
    }
}

impl Held {
    fn of(&self, images: &[(usize, Digest)]) -> HashMap<usize, Timestamp> {
        images.iter().filter_map(|(index, image)| Some((*index, *self.until.get(image)?))).collect()
    }

    fn insert(&mut self, id: String, record: Record) {
        for image in &record.images {
            let until = self.until.entry(*image).or_insert(record.until);
            *until = (*until).max(record.until);
        }
        self.records.insert((record.until, id), record.images);
    }
}

impl Record {
    /// Two leases that live have no image in common, so the images and the end name one.
    fn id(&self) -> String {
        let mut text = self.until.0.to_string();
        for image in &self.images {
            text.push(' ');
            text.push_str(&image.hex());
        }
        Digest::of(text.as_bytes()).hex()
    }
}

//! Settling: a commit that broke off is taken forward to its end, or back to before it, by what the tree has.

use std::sync::Arc;
use std::time::Duration;

use super::BlobKey;
use super::Inner;
use super::Origin;
use super::Result;
use super::index::Change;
use super::index::Intent;
use super::index::IntentId;
use super::index::Step;
use super::leases::Pins;
use super::names::Name;

/// Between two tries of a commit that the disk refused.
const RETRY: Duration = Duration::from_secs(1);

/// Where a broken-off commit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Its revision is in the tree: what is missing is written.
    Forward,
    /// It is not: what was written is taken back.
    Back,
}

impl Inner {
    /// Settles one intent. Doing it again does no harm: a crash in here is settled by the next start.
    pub(super) async fn settle(&self, id: IntentId, intent: &Intent) -> Result<()> {
        let changes = match self.way(intent).await? {
            Way::Forward => self.forward(intent).await?,
            Way::Back => self.back(intent).await?,
        };
        self.index.apply(Some(id), changes).await?;
        self.show_settled(intent);
        Ok(())
    }

    /// The last link decides: it is written when all bytes and the other links are there. A commit of tags alone is decided
    /// by its last tag, and a removal always goes on.
    async fn way(&self, intent: &Intent) -> Result<Way> {
        let there = |is: bool| if is { Way::Forward } else { Way::Back };
        for step in intent.steps.iter().rev() {
            if let Step::Link { record, .. } = step {
                return Ok(there(self.tree.link(&intent.of, &record.digest).await?.as_ref() == Some(record)));
            }
        }
        for step in intent.steps.iter().rev() {
            if let Step::Tag { record, .. } = step {
                return Ok(there(self.tree.tag(&intent.of, &record.tag).await?.as_ref() == Some(record)));
            }
        }
        Ok(Way::Forward)
    }

    /// What somebody changed since is left as it is: the later commit was acknowledged, and it did not begin before this one
    /// was over or given up.
    async fn forward(&self, intent: &Intent) -> Result<Vec<Change>> {
        let of = &intent.of;
        let mut changes = Vec::with_capacity(intent.steps.len());
        for step in &intent.steps {
            match step {
                Step::Bytes { .. } => changes.extend(self.bytes(intent, step).await?),
                Step::Link { record, .. } => {
                    if self.tree.link(of, &record.digest).await?.as_ref() == Some(record) {
                        let facts = self.tree.facts(record).await?.map(Box::new);
                        changes.push(Change::Link { of: of.clone(), record: record.clone(), facts });
                    }
                }
                Step::Tag { record, before } => {
                    let now = self.tree.tag(of, &record.tag).await?;
                    if now.as_ref() != Some(record) && now == *before {
                        self.tree.put_tag(of, record).await?;
                    }
                    if now.as_ref() == Some(record) || now == *before {
                        changes.push(Change::Tag { of: of.clone(), record: record.clone(), validated_at: record.at });
                    }
                }
                Step::DropTag { before } => {
                    let now = self.tree.tag(of, &before.tag).await?;
                    if now.as_ref().is_none_or(|now| now == before) {
                        self.tree.drop_tag(of, &before.tag).await?;
                        changes.push(Change::DropTag { of: of.clone(), tag: before.tag.clone() });
                    }
                }
                Step::DropLink { before } => {
                    let now = self.tree.link(of, &before.digest).await?;
                    if now.as_ref().is_none_or(|now| now == before) {
                        self.tree.drop_link(of, &before.digest).await?;
                        changes.push(Change::DropLink { of: of.clone(), digest: before.digest });
                    }
                }
            }
        }
        Ok(changes)
    }

    /// In reverse: tags, then links, each put back to what it was. Bytes get a row, so that the collector finds them;
    /// nothing but the collector removes any.
    async fn back(&self, intent: &Intent) -> Result<Vec<Change>> {
        let of = &intent.of;
        let mut changes = Vec::new();
        for step in intent.steps.iter().rev() {
            match step {
                Step::Tag { record, before } => {
                    if self.tree.tag(of, &record.tag).await?.as_ref() == Some(record) {
                        match before {
                            Some(before) => self.tree.put_tag(of, before).await?,
                            None => self.tree.drop_tag(of, &record.tag).await?,
                        }
                    }
                }
                Step::Link { record, before } => {
                    if self.tree.link(of, &record.digest).await?.as_ref() == Some(record) {
                        match before {
                            Some(before) => self.tree.put_link(of, before).await?,
                            None => self.tree.drop_link(of, &record.digest).await?,
                        }
                    }
                }
                Step::Bytes { .. } => changes.extend(self.bytes(intent, step).await?),
                Step::DropTag { .. } | Step::DropLink { .. } => {}
            }
        }
        Ok(changes)
    }

    /// The row of published bytes, if they were.
    async fn bytes(&self, intent: &Intent, step: &Step) -> Result<Option<Change>> {
        let Step::Bytes { digest, generation, size, .. } = step else { return Ok(None) };
        let key = BlobKey { digest: *digest, generation: *generation };
        let pushed = intent
            .steps
            .iter()
            .any(|step| matches!(step, Step::Link { record, .. } if record.origin == Origin::Pushed));
        let there = self.tree.file(&key).await?.is_some_and(|range| range.length == *size);
        Ok(there.then_some(Change::Blob { key, size: *size, precious: pushed }))
    }

    /// What was settled is read anew: it may have gone either way.
    fn show_settled(&self, intent: &Intent) {
        for step in &intent.steps {
            match step {
                Step::Tag { record, .. } => self.hot.forget_tag(&intent.of, &record.tag),
                Step::DropTag { before } => self.hot.forget_tag(&intent.of, &before.tag),
                Step::Link { record, .. } | Step::DropLink { before: record } => {
                    self.hot.forget(&intent.of, &record.digest);
                }
                Step::Bytes { digest, .. } => self.hot.forget(&intent.of, digest),
            }
        }
    }
}

/// The names that an intent touches.
pub(super) fn names(intent: &Intent) -> Vec<Name> {
    let name = |step: &Step| match step {
        Step::Bytes { digest, .. } => Name::Digest(*digest),
        Step::Link { record, .. } | Step::DropLink { before: record } => Name::Digest(record.digest),
        Step::Tag { record, .. } | Step::DropTag { before: record } => Name::Tag(record.tag.clone()),
    };
    intent.steps.iter().map(name).collect()
}

/// Settles a commit that failed, as soon as the disk allows it. Until then its digests stay pinned; at a stop the intent
/// stays, and the next start settles it.
pub(super) fn later(store: &Arc<Inner>, id: IntentId, intent: Intent, pins: Pins) {
    let (inner, stopping) = (Arc::downgrade(store), store.tasks.stopping());
    store.tasks.spawn("settle", async move {
        let _pins = pins;
        let names = names(&intent);
        loop {
            {
                let Some(store) = inner.upgrade() else { return };
                let _gate = store.gate.pass().await;
                let _locked = store.names.lock(&intent.of, &names).await;
                match store.settle(id, &intent).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(error = %crate::telemetry::chain(&error), "a commit waits to be settled");
                    }
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    });
}

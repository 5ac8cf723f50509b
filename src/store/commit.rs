//! The one commit: intent → tree → index → answer.
//!
//! First an intent that names every key and digest is durable; then the tree is written, bytes before links before tags,
//! so that nothing is ever named that is not there; then one transaction of the index makes all of it visible and clears
//! the intent, without waiting for the disk: until the next one that does, the intent vouches for it. A crash at any point leaves an intent that [`super::settle`] takes forward or back.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::BlobKey;
use super::Condition;
use super::Error;
use super::Inner;
use super::Kind;
use super::LinkRecord;
use super::Origin;
use super::Put;
use super::Result;
use super::Standing;
use super::TagRecord;
use super::TagState;
use super::Verified;
use super::index::BlobState;
use super::index::Change;
use super::index::Facts;
use super::index::Intent;
use super::index::Step;
use super::leases::Pins;
use super::names::Name;
use super::settle;
use super::tree::RecordPath;
use super::truth;

/// A change before it is begun: what the tree will be told, in order, and the index after it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) bytes: Vec<(BlobKey, Verified)>,
    pub(super) steps: Vec<Step>,
    pub(super) changes: Vec<Change>,
}

impl Plan {
    /// A tag goes.
    pub(super) fn drop_tag(&mut self, of: &RepositoryKey, before: TagRecord) {
        self.changes.push(Change::DropTag { of: of.clone(), tag: before.tag.clone() });
        self.steps.push(Step::DropTag { before });
    }

    /// A link goes.
    pub(super) fn drop_link(&mut self, of: &RepositoryKey, before: LinkRecord) {
        self.changes.push(Change::DropLink { of: of.clone(), digest: before.digest });
        self.steps.push(Step::DropLink { before });
    }

    /// What keeps a manifest is another thing now; what it names stays the same.
    pub(super) fn stand(&mut self, of: &RepositoryKey, before: LinkRecord, facts: Option<Facts>, standing: Standing) {
        let record = LinkRecord { standing, ..before.clone() };
        let facts = facts.map(Box::new);
        self.changes.push(Change::Link { of: of.clone(), record: record.clone(), facts });
        self.steps.push(Step::Link { record, before: Some(before) });
    }
}

/// Runs the commit as work of its own: it goes on to its end when its caller goes away, as a half one would only have to
/// be settled.
pub(super) async fn commit(
    store: &Arc<Inner>,
    of: RepositoryKey,
    origin: Origin,
    puts: Vec<Put>,
    conditions: Vec<Condition>,
) -> Result<()> {
    let inner = Arc::clone(store);
    let work = async move { inner.commit(of, origin, puts, conditions).await };
    store.tasks.spawn("commit", work).await.map_err(|_| Error::Closed)?
}

fn names(puts: &[Put]) -> Vec<Name> {
    let name = |put: &Put| match put {
        Put::Blob(verified) => Name::Digest(verified.digest()),
        Put::Link { digest } | Put::Manifest { digest, .. } => Name::Digest(*digest),
        Put::Tag { tag, .. } | Put::Gone { tag } => Name::Tag(tag.clone()),
    };
    puts.iter().map(name).collect()
}

impl Inner {
    async fn commit(
        self: Arc<Self>,
        of: RepositoryKey,
        origin: Origin,
        puts: Vec<Put>,
        conditions: Vec<Condition>,
    ) -> Result<()> {
        self.room()?;
        let names = names(&puts);
        let looked_at: Vec<Name> = conditions.iter().map(Condition::name).collect();
        let _gate = self.gate.pass().await;
        let _locked = self.names.lock(&of, names.iter().chain(&looked_at)).await;
        self.hold(&of, &conditions).await?;
        self.note_epoch(self.is_complete()).await?;
        let digests: Vec<_> = names
            .iter()
            .filter_map(|name| match name {
                Name::Digest(digest) => Some(*digest),
                Name::Tag(_) => None,
            })
            .collect();
        let pins = self.leases.pin(digests.clone()).await;
        let plan = self.plan(&of, origin, puts).await?;
        if !plan.steps.is_empty() {
            self.carry_out(&of, plan, pins).await?;
        }
        if origin == Origin::Pushed {
            // Each 201 is an answer that lets a client skip an upload, also where nothing had to be written for it.
            for digest in &digests {
                self.leases.lease(*digest);
            }
        }
        Ok(())
    }

    /// The one way in which tree and index change together. The names are locked.
    pub(super) async fn carry_out(self: &Arc<Self>, of: &RepositoryKey, plan: Plan, pins: Pins) -> Result<()> {
        let intent = Intent { of: of.clone(), steps: plan.steps };
        let id = self.index.begin(intent.clone()).await?;
        let written = self.write(&intent, plan.bytes).await;
        let outcome = match written {
            Ok(()) => self.index.apply(Some(id), plan.changes).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            // Told at once; the intent keeps its digests until it is settled, however long the disk takes.
            settle::later(self, id, intent, pins);
            return Err(error);
        }
        self.show(&intent);
        Ok(())
    }

    /// What the commit will write.
    async fn plan(&self, of: &RepositoryKey, origin: Origin, puts: Vec<Put>) -> Result<Plan> {
        let now = self.clock.now();
        let mut plan = Plan::default();
        let (mut links, mut tags) = (Vec::new(), Vec::new());
        for put in puts {
            match put {
                Put::Blob(verified) => {
                    let key = self.key_for(&verified.digest()).await?;
                    links.push((link(key, verified.size(), Kind::Blob, origin, now), None));
                    plan.bytes.push((key, verified));
                }
                Put::Link { digest } => {
                    let row = self.index.blob(&digest).await?.filter(|row| row.state == BlobState::Live);
                    let missing = || if self.is_complete() { Error::Missing { digest } } else { Error::Incomplete };
                    let row = row.ok_or_else(missing)?;
                    links.push((link(row.key, row.size, Kind::Blob, origin, now), None));
                }
                Put::Manifest { manifest, digest } => {
                    let key = self.key_for(&digest).await?;
                    let facts = truth::facts(&manifest, digest);
                    links
                        .push((link(key, manifest.size(), truth::kind(&manifest), origin, now), Some(Box::new(facts))));
                    plan.bytes.push((key, self.spool.stage(manifest.bytes, digest).await?));
                }
                Put::Tag { tag, digest, media_type, size, pusher } => {
                    let meant = Meant { digest, media_type, size, pusher };
                    tags.extend(self.tagged(of, origin, tag, Some(meant), now).await?);
                }
                Put::Gone { tag } => tags.extend(self.tagged(of, origin, tag, None, now).await?),
            }
        }
        for (key, verified) in &plan.bytes {
            let again = self.index.blob(&key.digest).await?.is_some_and(|row| row.key == *key);
            let size = verified.size();
            plan.steps.push(Step::Bytes { digest: key.digest, generation: key.generation, size, again });
            plan.changes.push(Change::Blob { key: *key, size: verified.size(), precious: origin == Origin::Pushed });
        }
        for (record, facts) in links {
            let before = self.link(of, &record.digest).await?;
            // What was pushed stays pushed, whatever an upstream has beside it.
            let pushed = before.as_ref().is_some_and(|before| before.origin == Origin::Pushed);
            let record = if pushed { LinkRecord { origin: Origin::Pushed, ..record } } else { record };
            let tagged = tags.iter().any(|(tag, _)| tag.digest == record.digest);
            let standing = standing(&record, before.as_ref(), tagged);
            let record = LinkRecord { standing, ..record };
            if before.as_ref().is_some_and(|before| LinkRecord { at: record.at, ..before.clone() } == record) {
                continue;
            }
            plan.changes.push(Change::Link { of: of.clone(), record: record.clone(), facts });
            plan.steps.push(Step::Link { record, before });
        }
        for (record, before) in tags {
            plan.changes.push(Change::Tag { of: of.clone(), record: record.clone(), validated_at: now });
            plan.steps.push(Step::Tag { record, before });
        }
        Ok(plan)
    }

    /// Where new bytes of `digest` go: over the old ones, which repairs them, or beside those that are being removed.
    async fn key_for(&self, digest: &Digest) -> Result<BlobKey> {
        let generation = match self.index.blob(digest).await? {
            Some(row) if row.state == BlobState::Going => row.key.generation.saturating_add(1),
            Some(row) => row.key.generation,
            None => 0,
        };
        Ok(BlobKey { digest: *digest, generation })
    }

    async fn tagged(
        &self,
        of: &RepositoryKey,
        origin: Origin,
        tag: Tag,
        meant: Option<Meant>,
        now: Timestamp,
    ) -> Result<Option<(TagRecord, Option<TagRecord>)>> {
        let before = self.tag_record(of, &tag).await?;
        if origin == Origin::Proxied && before.as_ref().is_some_and(|before| before.origin == Origin::Pushed) {
            return Err(Error::Pushed { of: of.clone(), tag });
        }
        let record = match (meant, &before) {
            (Some(meant), before) => meant.record(tag, origin, before.as_ref(), now),
            (None, Some(before)) if before.gone.is_none() => TagRecord { gone: Some(now), ..before.clone() },
            (None, _) => return Ok(None),
        };
        Ok(Some((record, before)))
    }

    /// Writes the tree: each part is durable when the next begins.
    async fn write(&self, intent: &Intent, bytes: Vec<(BlobKey, Verified)>) -> Result<()> {
        for (key, verified) in bytes {
            self.tree.publish(&key, verified).await?;
        }
        let of = &intent.of;
        let mut drops = Vec::new();
        for step in &intent.steps {
            match step {
                Step::Link { record, .. } => self.tree.put_link(of, record).await?,
                Step::Tag { record, .. } => self.tree.put_tag(of, record).await?,
                Step::DropTag { before } => drops.push(RecordPath::tag(of, &before.tag)),
                Step::DropLink { before } => drops.push(RecordPath::link(of, &before.digest)),
                Step::Bytes { .. } => {}
            }
        }
        if drops.is_empty() { Ok(()) } else { self.tree.drop_records(&drops).await }
    }

    /// What was committed takes the place of what is in memory.
    pub(super) fn show(&self, intent: &Intent) {
        let of = &intent.of;
        for step in &intent.steps {
            match step {
                // A file that was published over another is another file, and the other may have been damaged.
                Step::Bytes { digest, again: true, .. } => {
                    self.hot.forget_everywhere(digest);
                    self.reported.mended(digest);
                }
                Step::Bytes { digest, .. } => self.hot.forget(of, digest),
                Step::Link { record, .. } | Step::DropLink { before: record } => self.hot.forget(of, &record.digest),
                Step::Tag { record, .. } => {
                    let at = record.at.max(record.gone.unwrap_or_default());
                    self.hot.put_tag(of, Arc::new(TagState::new(record.clone(), at)));
                }
                Step::DropTag { before } => self.hot.forget_tag(of, &before.tag),
            }
        }
    }
}

fn link(key: BlobKey, size: u64, kind: Kind, origin: Origin, at: Timestamp) -> LinkRecord {
    let (digest, generation, standing) = (key.digest, key.generation, Standing::default());
    LinkRecord { digest, generation, size, kind, origin, at, standing }
}

/// What keeps a manifest that is being pushed. One that is pushed by its digest alone stays, whatever became of its tags
/// before; one that a tag means goes on being that.
fn standing(record: &LinkRecord, before: Option<&LinkRecord>, tagged: bool) -> Standing {
    let was_tagged = before.is_some_and(|before| before.standing == Standing::Tagged);
    match (record.origin, &record.kind) {
        (Origin::Pushed, Kind::Manifest { .. }) if tagged || was_tagged => Standing::Tagged,
        _ => Standing::Untagged,
    }
}

/// What a tag is to mean.
struct Meant {
    digest: Digest,
    media_type: MediaType,
    size: u64,
    pusher: Option<String>,
}

/// Digests that a tag's record remembers.
const HISTORY_MAX: usize = 10;

impl Meant {
    fn record(self, tag: Tag, origin: Origin, before: Option<&TagRecord>, now: Timestamp) -> TagRecord {
        let mut history = before.map(|before| before.history.clone()).unwrap_or_default();
        if history.last().is_none_or(|(digest, _)| *digest != self.digest) {
            history.push((self.digest, now));
        }
        let forgotten = history.len().saturating_sub(HISTORY_MAX);
        history.drain(..forgotten);
        TagRecord {
            tag,
            digest: self.digest,
            media_type: self.media_type,
            size: self.size,
            origin,
            pusher: self.pusher,
            at: now,
            history,
            gone: None,
        }
    }
}

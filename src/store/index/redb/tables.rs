//! The tables, and the changes that a transaction makes to them.

use ::redb::ReadableTable;
use ::redb::Table;
use ::redb::TableDefinition;
use ::redb::WriteTransaction;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::store::index::BlobRow;
use crate::store::index::BlobState;
use crate::store::index::Change;
use crate::store::index::Error;
use crate::store::index::Facts;
use crate::store::index::Identity;
use crate::store::index::Intent;
use crate::store::index::IntentId;
use crate::store::index::Moment;
use crate::store::index::Result;
use crate::store::index::Totals;
use crate::store::index::Verdict;
use crate::store::tree::BlobKey;
use crate::store::tree::LinkRecord;

use super::keys;
use super::rows;

pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Rows<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// repository, tag → record
pub(super) const TAGS: Definition = TableDefinition::new("tags");
/// repository, tag → last validation
pub(super) const VALIDATIONS: Definition = TableDefinition::new("validations");
/// repository, digest → record
pub(super) const LINKS: Definition = TableDefinition::new("links");
/// repository, manifest → what it names
pub(super) const FACTS: Definition = TableDefinition::new("facts");
/// repository, digest, tag: which tags mean a digest
pub(super) const MEANINGS: Definition = TableDefinition::new("meanings");
/// repository, child, manifest
pub(super) const PARENTS: Definition = TableDefinition::new("parents");
/// repository, subject, manifest → descriptor
pub(super) const REFERRERS: Definition = TableDefinition::new("referrers");
/// digest, generation → size, state, counts
pub(super) const BLOBS: Definition = TableDefinition::new("blobs");
/// digest, generation, repository
pub(super) const HOLDERS: Definition = TableDefinition::new("holders");
/// digest, generation: what no repository links
pub(super) const ORPHANS: Definition = TableDefinition::new("orphans");
/// digest, generation: what is being removed
pub(super) const GOING: Definition = TableDefinition::new("going");
/// number → intent
pub(super) const INTENTS: Definition = TableDefinition::new("intents");
/// repository, tag or digest → last use
pub(super) const USES: Definition = TableDefinition::new("uses");
/// word → value
pub(super) const META: Definition = TableDefinition::new("meta");

/// All of them.
pub(super) const ALL: [Definition; 14] = [
    TAGS,
    VALIDATIONS,
    MEANINGS,
    LINKS,
    FACTS,
    PARENTS,
    REFERRERS,
    BLOBS,
    HOLDERS,
    ORPHANS,
    GOING,
    INTENTS,
    USES,
    META,
];

pub(super) const IDENTITY: &[u8] = b"identity";
const HOSTED: &[u8] = b"bytes-hosted";
const PROXIED: &[u8] = b"bytes-proxied";

/// The open tables of one transaction.
pub(super) struct Tables<'t> {
    tags: Rows<'t>,
    validations: Rows<'t>,
    meanings: Rows<'t>,
    links: Rows<'t>,
    facts: Rows<'t>,
    parents: Rows<'t>,
    referrers: Rows<'t>,
    blobs: Rows<'t>,
    holders: Rows<'t>,
    orphans: Rows<'t>,
    going: Rows<'t>,
    intents: Rows<'t>,
    uses: Rows<'t>,
    meta: Rows<'t>,
    totals: Totals,
}

/// Any error of redb as ours.
pub(super) fn failed<E: Into<::redb::Error>>(error: E) -> Error {
    Error::from(error.into())
}

/// The totals as they stand in the table of words.
pub(super) fn totals(meta: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Totals> {
    let number = |key: &[u8]| match meta.get(key).map_err(failed)? {
        Some(row) => rows::read_number(key, row.value()),
        None => Ok(0),
    };
    Ok(Totals { hosted: number(HOSTED)?, proxied: number(PROXIED)? })
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self> {
        let open = |table| transaction.open_table(table).map_err(failed);
        let meta = open(META)?;
        let totals = totals(&meta)?;
        Ok(Self {
            tags: open(TAGS)?,
            validations: open(VALIDATIONS)?,
            meanings: open(MEANINGS)?,
            links: open(LINKS)?,
            facts: open(FACTS)?,
            parents: open(PARENTS)?,
            referrers: open(REFERRERS)?,
            blobs: open(BLOBS)?,
            holders: open(HOLDERS)?,
            orphans: open(ORPHANS)?,
            going: open(GOING)?,
            intents: open(INTENTS)?,
            uses: open(USES)?,
            meta,
            totals,
        })
    }

    /// Writes the totals down and gives them.
    pub(super) fn finish(mut self) -> Result<Totals> {
        for (key, number) in [(HOSTED, self.totals.hosted), (PROXIED, self.totals.proxied)] {
            put(&mut self.meta, key, &rows::write_number(key, number))?;
        }
        Ok(self.totals)
    }

    pub(super) fn begin(&mut self, id: IntentId, intent: &Intent) -> Result<()> {
        let key = id.0.to_be_bytes();
        put(&mut self.intents, &key, &rows::write(&key, intent)?)
    }

    pub(super) fn clear_intent(&mut self, id: IntentId) -> Result<()> {
        remove(&mut self.intents, &id.0.to_be_bytes()).map(|_| ())
    }

    pub(super) fn identify(&mut self, identity: &Identity) -> Result<()> {
        put(&mut self.meta, IDENTITY, &rows::write(IDENTITY, identity)?)
    }

    pub(super) fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Blob { key, size, precious } => self.put_blob(key, *size, *precious),
            Change::Found { key, size } => match self.blob(key)? {
                Some(_) => Ok(()),
                None => self.put_blob(key, *size, true),
            },
            Change::Damaged { key } => match self.blob(key)? {
                Some(row) if row.state == BlobState::Live => {
                    self.write_blob(&BlobRow { state: BlobState::Damaged, ..row })
                }
                _ => Ok(()),
            },
            Change::Link { of, record, facts } => self.put_link(of, record, facts.as_deref()),
            Change::DropLink { of, digest } => self.drop_link(of, digest),
            Change::Tag { of, record, validated_at } => {
                let key = keys::tag(of, &record.tag);
                self.forget_meaning(of, &record.tag)?;
                if record.gone.is_none() {
                    mark(&mut self.meanings, &keys::meaning(of, &record.digest, &record.tag))?;
                }
                put(&mut self.tags, &key, &rows::write(&key, record)?)?;
                put(&mut self.validations, &key, &rows::write_number(&key, validated_at.0))
            }
            Change::DropTag { of, tag } => {
                let key = keys::tag(of, tag);
                self.forget_meaning(of, tag)?;
                remove(&mut self.tags, &key)?;
                remove(&mut self.validations, &key)?;
                remove(&mut self.uses, &keys::name(of, &crate::store::names::Name::Tag(tag.clone())))?;
                Ok(())
            }
        }
    }

    /// Takes away that a tag means what its row says.
    fn forget_meaning(&mut self, of: &RepositoryKey, tag: &crate::oci::Tag) -> Result<()> {
        match get::<crate::store::tree::TagRecord>(&self.tags, &keys::tag(of, tag))? {
            Some(before) => remove(&mut self.meanings, &keys::meaning(of, &before.digest, tag)).map(|_| ()),
            None => Ok(()),
        }
    }

    fn blob(&self, key: &BlobKey) -> Result<Option<BlobRow>> {
        let key = keys::blob(key);
        match self.blobs.get(key.as_slice()).map_err(failed)? {
            Some(row) => rows::read_blob(&key, row.value()).map(Some),
            None => Ok(None),
        }
    }

    /// Writes a blob's row, and keeps totals and the list of orphans right.
    fn write_blob(&mut self, row: &BlobRow) -> Result<()> {
        self.count(self.blob(&row.key)?, Some(*row));
        let key = keys::blob(&row.key);
        put(&mut self.blobs, &key, &rows::write_blob(&key, row))?;
        if row.hosted == 0 && row.proxied == 0 && row.state != BlobState::Going {
            mark(&mut self.orphans, &key)
        } else {
            remove(&mut self.orphans, &key).map(|_| ())
        }
    }

    fn count(&mut self, before: Option<BlobRow>, after: Option<BlobRow>) {
        for (row, there) in [(before, false), (after, true)] {
            let Some(row) = row else { continue };
            let total = if row.hosted > 0 { &mut self.totals.hosted } else { &mut self.totals.proxied };
            *total = if there { total.saturating_add(row.size) } else { total.saturating_sub(row.size) };
        }
    }

    fn put_blob(&mut self, key: &BlobKey, size: u64, precious: bool) -> Result<()> {
        let row = match self.blob(key)? {
            Some(row) => BlobRow { size, state: BlobState::Live, precious: row.precious || precious, ..row },
            None => BlobRow { key: *key, size, state: BlobState::Live, hosted: 0, proxied: 0, precious },
        };
        self.write_blob(&row)
    }

    fn put_link(&mut self, of: &RepositoryKey, record: &LinkRecord, facts: Option<&Facts>) -> Result<()> {
        let key = keys::link(of, &record.digest);
        let blob = BlobKey { digest: record.digest, generation: record.generation };
        let before = get::<LinkRecord>(&self.links, &key)?;
        let held = before.as_ref().map(|before| BlobKey { digest: before.digest, generation: before.generation });
        if held != Some(blob) {
            if let Some(held) = held {
                self.release(of, &held)?;
            }
            self.hold(of, &blob)?;
        }
        put(&mut self.links, &key, &rows::write(&key, record)?)?;
        self.drop_facts(of, &record.digest)?;
        facts.map_or(Ok(()), |facts| self.put_facts(of, &record.digest, facts))
    }

    fn drop_link(&mut self, of: &RepositoryKey, digest: &Digest) -> Result<()> {
        let key = keys::link(of, digest);
        let Some(before) = get::<LinkRecord>(&self.links, &key)? else { return Ok(()) };
        remove(&mut self.links, &key)?;
        remove(&mut self.uses, &keys::name(of, &crate::store::names::Name::Digest(*digest)))?;
        self.drop_facts(of, digest)?;
        self.release(of, &BlobKey { digest: before.digest, generation: before.generation })
    }

    fn put_facts(&mut self, of: &RepositoryKey, digest: &Digest, facts: &Facts) -> Result<()> {
        let key = keys::link(of, digest);
        put(&mut self.facts, &key, &rows::write(&key, facts)?)?;
        for child in &facts.children {
            mark(&mut self.parents, &keys::pair(of, child, digest))?;
        }
        if let Some((subject, descriptor)) = &facts.referrer {
            let key = keys::pair(of, subject, digest);
            put(&mut self.referrers, &key, &rows::write(&key, descriptor)?)?;
        }
        Ok(())
    }

    fn drop_facts(&mut self, of: &RepositoryKey, digest: &Digest) -> Result<()> {
        let key = keys::link(of, digest);
        let Some(facts) = get::<Facts>(&self.facts, &key)? else { return Ok(()) };
        for child in &facts.children {
            remove(&mut self.parents, &keys::pair(of, child, digest))?;
        }
        if let Some((subject, _)) = &facts.referrer {
            remove(&mut self.referrers, &keys::pair(of, subject, digest))?;
        }
        remove(&mut self.facts, &key).map(|_| ())
    }

    fn hold(&mut self, of: &RepositoryKey, key: &BlobKey) -> Result<()> {
        // A link to bytes that are nowhere: what looks them up finds that out, and mends it.
        let state = BlobState::Damaged;
        let row =
            self.blob(key)?.unwrap_or(BlobRow { key: *key, size: 0, state, hosted: 0, proxied: 0, precious: false });
        let (hosted, proxied) = if of.is_hosted() { (1, 0) } else { (0, 1) };
        mark(&mut self.holders, &keys::holder(key, of))?;
        self.write_blob(&BlobRow {
            hosted: row.hosted.saturating_add(hosted),
            proxied: row.proxied.saturating_add(proxied),
            precious: row.hosted > 0 || of.is_hosted(),
            ..row
        })
    }

    fn release(&mut self, of: &RepositoryKey, key: &BlobKey) -> Result<()> {
        if !remove(&mut self.holders, &keys::holder(key, of))? {
            return Err(Error::Damaged("a link has no holder".into()));
        }
        let Some(row) = self.blob(key)? else { return Err(Error::Damaged("a link has no blob".into())) };
        let (hosted, proxied) = if of.is_hosted() { (1, 0) } else { (0, 1) };
        self.write_blob(&BlobRow {
            hosted: row.hosted.saturating_sub(hosted),
            proxied: row.proxied.saturating_sub(proxied),
            ..row
        })
    }

    /// Count and rows must agree that nobody links the bytes: one flipped bit must not remove what somebody needs.
    pub(super) fn condemn(&mut self, blob: &BlobKey) -> Result<Verdict> {
        if !get::<Identity>(&self.meta, IDENTITY)?.is_some_and(|identity| identity.complete) {
            return Ok(Verdict::Incomplete);
        }
        let Some(row) = self.blob(blob)? else { return Ok(Verdict::Kept) };
        let key = keys::blob(blob);
        let end = keys::after(&key);
        let linked = self.holders.range(key.as_slice()..end.as_slice()).map_err(failed)?.next().is_some();
        if linked != (row.hosted > 0 || row.proxied > 0) {
            return Err(Error::Damaged("the count of a blob's links is not that of its rows".into()));
        }
        if linked {
            return Ok(Verdict::Kept);
        }
        self.write_blob(&BlobRow { state: BlobState::Going, ..row })?;
        mark(&mut self.going, &key)?;
        Ok(Verdict::Condemned { size: row.size })
    }

    pub(super) fn bury(&mut self, blob: &BlobKey) -> Result<()> {
        let row = self.blob(blob)?;
        // A row that was made live again is not ours to bury.
        if row.is_some_and(|row| row.state != BlobState::Going) {
            return Ok(());
        }
        self.count(row, None);
        let key = keys::blob(blob);
        remove(&mut self.blobs, &key)?;
        remove(&mut self.orphans, &key)?;
        remove(&mut self.going, &key).map(|_| ())
    }

    /// Times are written only of what has a row: a use that is told after an eviction leaves nothing behind.
    pub(super) fn touch(&mut self, moment: &Moment) -> Result<()> {
        use crate::store::names::Name;
        match moment {
            Moment::Used { of, name, at } => {
                let there = match name {
                    Name::Tag(tag) => self.tags.get(keys::tag(of, tag).as_slice()).map_err(failed)?.is_some(),
                    Name::Digest(digest) => {
                        self.links.get(keys::link(of, digest).as_slice()).map_err(failed)?.is_some()
                    }
                };
                let key = keys::name(of, name);
                if there { put(&mut self.uses, &key, &rows::write_number(&key, at.0)) } else { Ok(()) }
            }
            Moment::Validated { of, tag, at } => {
                let key = keys::tag(of, tag);
                let there = self.tags.get(key.as_slice()).map_err(failed)?.is_some();
                if there { put(&mut self.validations, &key, &rows::write_number(&key, at.0)) } else { Ok(()) }
            }
        }
    }
}

fn put(table: &mut Rows<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    table.insert(key, value).map_err(failed).map(|_| ())
}

/// A row that says all by its key.
fn mark(table: &mut Rows<'_>, key: &[u8]) -> Result<()> {
    put(table, key, &rows::seal(key, &[]))
}

/// Whether there was a row.
fn remove(table: &mut Rows<'_>, key: &[u8]) -> Result<bool> {
    table.remove(key).map_err(failed).map(|row| row.is_some())
}

fn get<T: serde::de::DeserializeOwned>(table: &Rows<'_>, key: &[u8]) -> Result<Option<T>> {
    match table.get(key).map_err(failed)? {
        Some(row) => rows::read(key, row.value()).map(Some),
        None => Ok(None),
    }
}

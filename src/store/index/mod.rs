//! The index: a view of the object tree that answers quickly. It may be lost: nothing is in it alone but times of
//! access and of validation, and the intents of commits that were under way.

mod conditions;
pub(super) mod rebuild;
pub(super) mod redb;

use std::fmt::Debug;

use async_trait::async_trait;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::names::Name;
use super::tree::BlobKey;
use super::tree::LinkRecord;
use super::tree::TagRecord;

pub(super) use conditions::Error;
pub(super) use conditions::Health;

/// What the index does when it is called: atomic per call, and durable on return unless it is said otherwise.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// Rows in the order of their names, as many as were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there are rows after the last of these.
    pub more: bool,
}

/// A tag's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TagRow {
    pub(super) record: TagRecord,
    pub(super) validated_at: Timestamp,
}

/// The row of stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlobRow {
    pub(super) key: BlobKey,
    pub(super) size: u64,
    pub(super) state: BlobState,
    /// How many hosted repositories link it.
    pub(super) hosted: u32,
    /// How many proxied repositories link it.
    pub(super) proxied: u32,
    /// Whether it may be that no upstream has it: it was pushed, or found by a rebuild without a link to an upstream's.
    pub(super) precious: bool,
}

/// Whether stored bytes may be linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobState {
    /// They may.
    Live,
    /// They were found not to be what they should be; a new push or fetch makes them live again.
    Damaged,
    /// They are being removed: whoever needs them stores them anew under the next generation.
    Going,
}

/// Names a commit that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct IntentId(pub(super) u64);

/// A commit that is about to be made: every key and digest that it touches, in the order in which the tree is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) of: RepositoryKey,
    pub(super) steps: Vec<Step>,
}

/// One write to the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Bytes are published; `again` over the same bytes that were there.
    Bytes { digest: Digest, generation: u32, size: u64, again: bool },
    /// A link is written; `before` is what it replaces.
    Link { record: LinkRecord, before: Option<LinkRecord> },
    /// A tag is written; `before` is what it replaces.
    Tag { record: TagRecord, before: Option<TagRecord> },
    /// A tag is removed, if it is still this.
    DropTag { before: TagRecord },
    /// A link is removed, if it is still this.
    DropLink { before: LinkRecord },
}

/// One change of the index.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Bytes are there.
    Blob { key: BlobKey, size: u64, precious: bool },
    /// Bytes were found by a rebuild, which knows nothing else of them.
    Found { key: BlobKey, size: u64 },
    /// A link is there; for a manifest with what it names.
    Link { of: RepositoryKey, record: LinkRecord, facts: Option<Box<Facts>> },
    /// A tag is there.
    Tag { of: RepositoryKey, record: TagRecord, validated_at: Timestamp },
    /// A tag is gone, for good.
    DropTag { of: RepositoryKey, tag: Tag },
    /// A link is gone, with its rows of references.
    DropLink { of: RepositoryKey, digest: Digest },
    /// Bytes were found damaged.
    Damaged { key: BlobKey },
}

/// What the index knows of a manifest's contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// What it names, the subject excepted.
    pub(super) children: Vec<Digest>,
    /// Its subject, and how it stands in the subject's list of referrers.
    pub(super) referrer: Option<(Digest, Descriptor)>,
}

/// What became of a wish to remove bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are going: nobody links them any more, and nobody will.
    Condemned { size: u64 },
    /// A record names them.
    Kept,
    /// The index can't tell whether a record names them.
    Incomplete,
}

/// A time that may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Something was used.
    Used { of: RepositoryKey, name: Name, at: Timestamp },
    /// An upstream confirmed a tag.
    Validated { of: RepositoryKey, tag: Tag, at: Timestamp },
}

/// What the index says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The format of its tables: one of another format is made anew.
    #[serde(default)]
    pub(super) format: u32,
    /// The epoch in which it was last opened; the tree has it too.
    pub(super) epoch: String,
    /// The epoch before: a start that broke off between index and tree leaves the tree at it.
    pub(super) previous: String,
    /// Whether it has a row for everything in the tree.
    pub(super) complete: bool,
}

/// The format of the tables that this version writes.
const FORMAT: u32 = 1;

impl Identity {
    /// What an index of this version says of itself.
    pub(super) fn new(epoch: String, previous: String, complete: bool) -> Self {
        Self { format: FORMAT, epoch, previous, complete }
    }

    /// Whether its tables are those of this version.
    pub(super) fn is_current(&self) -> bool {
        self.format == FORMAT
    }
}

/// Bytes that are stored, by whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Linked in a hosted repository.
    pub(super) hosted: u64,
    /// The rest.
    pub(super) proxied: u64,
}

/// The contract of an index.
///
/// Each call is atomic per repository and per digest: a reader sees all of an `apply` or nothing. What returned `Ok` survives
/// SIGKILL, and a power cut where the store is strict; `touch` and times may be lost. Absence is `Ok(None)`, and
/// means that the *index* has no row: the store asks the tree before it says so to anybody. Repeating a call is harmless.
/// Reads cost the same however many rows there are, and never wait for a writer.
#[async_trait]
pub(super) trait Index: Debug + Send + Sync {
    /// A tag's row.
    async fn tag(&self, of: &RepositoryKey, tag: &Tag) -> Result<Option<TagRow>>;
    /// A link's row.
    async fn link(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<LinkRecord>>;
    /// The newest generation of the bytes, in whatever state.
    async fn blob(&self, digest: &Digest) -> Result<Option<BlobRow>>;
    /// What a manifest names, the subject excepted; none where it is no manifest of this repository.
    async fn facts(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<Facts>>;
    /// The tags after `after`, in the order of bytes.
    async fn tags(&self, of: &RepositoryKey, after: Option<&Tag>, limit: usize) -> Result<Page<TagRow>>;
    /// The links after `after`.
    async fn links(&self, of: &RepositoryKey, after: Option<&Digest>, limit: usize) -> Result<Page<LinkRecord>>;
    /// The repositories after `after` that link anything.
    async fn repositories(&self, after: Option<&RepositoryKey>, limit: usize) -> Result<Page<RepositoryKey>>;
    /// The bytes after `after`, in whatever state.
    async fn blobs(&self, after: Option<&BlobKey>, limit: usize) -> Result<Page<BlobRow>>;
    /// The manifests of this repository that have `subject` as their subject, as they stand in the list of referrers.
    async fn referrers(
        &self,
        of: &RepositoryKey,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Descriptor>>;
    /// The manifests of this repository that name `child`.
    async fn parents(&self, of: &RepositoryKey, child: &Digest, limit: usize) -> Result<Vec<Digest>>;
    /// The tags of this repository that mean `digest`, those that an upstream no longer has left out.
    async fn tags_of(&self, of: &RepositoryKey, digest: &Digest, limit: usize) -> Result<Vec<Tag>>;
    /// The repositories that link the bytes.
    async fn holders(&self, key: &BlobKey, limit: usize) -> Result<Vec<RepositoryKey>>;
    /// When something was last used, as far as it was written down.
    async fn used(&self, of: &RepositoryKey, name: &Name) -> Result<Option<Timestamp>>;
    /// The intents that were not settled.
    async fn intents(&self) -> Result<Vec<(IntentId, Intent)>>;
    /// Bytes that are going, and were not buried.
    async fn going(&self, limit: usize) -> Result<Vec<BlobKey>>;
    /// Live bytes that no repository links.
    async fn orphans(&self, after: Option<&BlobKey>, limit: usize) -> Result<Vec<BlobRow>>;

    /// Writes an intent down.
    async fn begin(&self, intent: Intent) -> Result<IntentId>;
    /// Makes changes visible, and clears the intent that they belong to. With an intent it need not be on disk on return: a
    /// crash may bring back the intent and take back the changes, all of them, until a later `begin` has returned.
    async fn apply(&self, id: Option<IntentId>, changes: Vec<Change>) -> Result<()>;
    /// The rows of a rebuild: they come behind changes that somebody waits for, and are on disk when `identify` returned. Where
    /// some were lost before that, it and `identify` of a complete index fail until the next `clear`.
    async fn fill_in(&self, changes: Vec<Change>) -> Result<()>;
    /// Moves bytes from live to going if no repository links them and the index is complete.
    async fn condemn(&self, key: &BlobKey) -> Result<Verdict>;
    /// Forgets bytes that were condemned and are removed.
    async fn bury(&self, key: &BlobKey) -> Result<()>;
    /// Writes times down. They may be lost.
    async fn touch(&self, moments: Vec<Moment>) -> Result<()>;

    /// What it says of itself; none where it is new.
    async fn identity(&self) -> Result<Option<Identity>>;
    /// Writes down what it says of itself.
    async fn identify(&self, identity: Identity) -> Result<()>;
    /// Forgets everything: a rebuild begins.
    async fn clear(&self) -> Result<()>;
    /// Reads every row. Damage is told as a lookup tells it.
    async fn verify(&self) -> Result<()>;
    /// Bytes that are stored.
    fn totals(&self) -> Totals;
    /// Whether it works; changes are told.
    fn health(&self) -> tokio::sync::watch::Receiver<Health>;
}

//! Where bytes and facts are kept. The store knows nothing of upstreams or HTTP.
//!
//! The object tree is the truth, the index a view of it; nothing above this module sees either. [`Store`] is the one
//! door: lookups that never call an incomplete index "absent", one [`Store::commit`], and one way to delete.

mod collect;
mod commit;
mod condition;
mod error;
mod folder;
mod gate;
mod held;
mod hot;
mod index;
mod leases;
mod lookup;
mod loose;
mod names;
mod open;
mod remove;
mod repair;
mod settle;
pub mod space;
pub mod spool;
pub mod tree;
mod truth;
mod uses;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::MediaType;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

pub use condition::Condition;
pub use error::Error;
pub use held::Held;
pub use held::HeldBytes;
pub use held::Stamp;
pub use held::TagState;
pub use index::Page;
pub use loose::Held as HeldElsewhere;
pub use loose::Loose;
pub use loose::LooseLinks;
pub use loose::Taken;
pub use loose::Unkept;
pub use remove::Removal;
pub use space::Pressure;
pub use space::PressureState;
pub use spool::Spool;
pub use spool::Verified;
pub use tree::BlobKey;
pub use tree::Kind;
pub use tree::LinkRecord;
pub use tree::Origin;
pub use tree::Standing;
pub use tree::TagRecord;

/// The result of an operation of the store.
pub type Result<T> = std::result::Result<T, Error>;

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The folder and its bounds.
    pub store: config::Store,
    /// How long an answer that lets a client skip an upload protects the bytes.
    pub lease: Duration,
}

/// One thing to be kept. The puts of one commit become visible together, whatever their order.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a commit has a handful of them, and lives for milliseconds")]
pub enum Put {
    /// Bytes of a blob, and the repository's link to them.
    Blob(Verified),
    /// A link to a blob whose bytes are here already.
    Link {
        /// The blob's digest.
        digest: Digest,
    },
    /// A manifest, and the repository's link to it. `digest` is what it was asked for or pushed by.
    Manifest {
        /// The manifest.
        manifest: Manifest,
        /// Its digest.
        digest: Digest,
    },
    /// A tag.
    Tag {
        /// The tag.
        tag: Tag,
        /// What it means.
        digest: Digest,
        /// The media type of what it means.
        media_type: MediaType,
        /// The size in bytes of what it means.
        size: u64,
        /// Who pushed it.
        pusher: Option<String>,
    },
    /// The upstream says that a tag is gone: it is not revived as stale. Digests that are held stay.
    Gone {
        /// The tag.
        tag: Tag,
    },
}

/// One thing to be removed from a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drop {
    /// A tag.
    Tag(Tag),
    /// A link to a blob or manifest; the bytes go when nothing names them any more.
    Link(Digest),
}

/// Whether the index has a row for everything in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It has.
    Complete,
    /// It is being rebuilt.
    Rebuilding {
        /// Records that were read.
        done: u64,
    },
}

/// Bytes that are stored, by whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Linked in a hosted repository: neither counted against the bound nor evicted.
    pub hosted: u64,
    /// What came from upstreams.
    pub proxied: u64,
    /// Bytes that are being written.
    pub spool: u64,
}

/// A link and what is known of its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The repository's record.
    pub link: LinkRecord,
    /// When a client last used it; none where that is not known.
    pub used: Option<Timestamp>,
    /// For a manifest, what it names, the subject excepted.
    pub children: Vec<Digest>,
    /// The subject of the manifest, where it has one.
    pub subject: Option<Digest>,
}

/// A tag and what is known of its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The tag's record.
    pub record: TagRecord,
    /// When the upstream last confirmed it.
    pub validated_at: Timestamp,
    /// When a client last used it; none where that is not known.
    pub used: Option<Timestamp>,
}

/// Stored bytes, for those that look after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What they are.
    pub key: BlobKey,
    /// Their count.
    pub size: u64,
    /// How many repositories link them.
    pub links: u32,
    /// Whether a hosted repository does.
    pub hosted: bool,
}

/// The one door to bytes and facts. Cheap to clone; clones share the store.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tree: truth::Truth,
    index: Arc<dyn index::Index>,
    spool: Spool,
    space: space::Space,
    hot: hot::Hot,
    names: names::Names,
    leases: Arc<leases::Leases>,
    uses: uses::Uses,
    /// Since when uses are known; milliseconds.
    uses_since: std::sync::atomic::AtomicU64,
    loosened: loose::Loosened,
    /// Read by each change; a rebuild writes its rows with it locked, so that it never puts an older record over a newer.
    gate: gate::Gate,
    /// One rebuild at a time.
    rebuilding: tokio::sync::Mutex<()>,
    /// How many have ended well.
    rebuilt: std::sync::atomic::AtomicU64,
    /// Told when the index turned out to lack something.
    doubt: Arc<tokio::sync::Notify>,
    completeness: watch::Sender<Completeness>,
    epoch: open::Epoch,
    /// Set when the epoch is written down, which comes before the first change.
    noted: tokio::sync::OnceCell<()>,
    folder: std::path::PathBuf,
    _lock: folder::Lock,
    reported: repair::Reported,
    clock: Clock,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Opens the folder: refuses a second process and an unknown format, settles what a crash left, and starts a rebuild
    /// of an index that is missing, damaged, older or another folder's. It never reads the whole tree before it returns.
    pub async fn open(options: StoreOptions, clock: Clock, tasks: Tasks, metrics: Arc<Metrics>) -> Result<Self> {
        open::open(options, clock, tasks, metrics).await
    }

    /// A tag, if it is in memory: the path of hits, which waits for nothing.
    pub fn peek_tag(&self, of: &RepositoryKey, tag: &Tag) -> Option<Arc<TagState>> {
        self.0.hot.tag(of, tag)
    }

    /// Bytes that the repository links, if they are in memory or open: the path of hits, which waits for nothing.
    pub fn peek(&self, of: &RepositoryKey, digest: &Digest) -> Option<Arc<Held>> {
        self.0.hot.held(of, digest)
    }

    /// A tag. None only if the tree has none; a tag that an upstream no longer has is there, with its time of going.
    pub async fn tag(&self, of: &RepositoryKey, tag: &Tag) -> Result<Option<Arc<TagState>>> {
        self.0.tag(of, tag).await
    }

    /// Bytes that the repository links: of a blob or of a manifest. None only if the tree has no such link.
    ///
    /// Bytes of the wrong size are damaged: what came from an upstream is forgotten, so that the next pull fetches it.
    pub async fn held(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<Arc<Held>>> {
        self.0.held(of, digest).await
    }

    /// The tags after `after` in the order of bytes, `limit` at most; those that an upstream no longer has are left out.
    pub async fn tags(&self, of: &RepositoryKey, after: Option<&Tag>, limit: usize) -> Result<Page<Tagged>> {
        self.0.tags(of, after, limit).await
    }

    /// The manifests of the repository whose subject is `subject` (distribution-spec, "Listing Referrers"), as they stand in
    /// the list, those after `after`, `limit` at most. [`Error::Incomplete`] while the index is being rebuilt.
    pub async fn referrers(
        &self,
        of: &RepositoryKey,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<crate::oci::Descriptor>> {
        self.0.referrers(of, subject, after, limit).await
    }

    /// Whether a manifest of the repository names `digest`. [`Error::Incomplete`] while the index is being rebuilt.
    pub async fn is_named(&self, of: &RepositoryKey, digest: &Digest) -> Result<bool> {
        self.0.is_named(of, digest).await
    }

    /// The size of bytes that are here for whatever repository. It says nothing of who may have them: it is for
    /// callers that know already that their repository has the digest.
    pub async fn present(&self, digest: &Digest) -> Result<Option<u64>> {
        self.0.present(digest).await
    }

    /// Keeps bytes for the lease time: called before each answer that lets a client skip an upload. False if they are not
    /// here, or are just being removed.
    pub async fn lease(&self, digest: &Digest) -> Result<bool> {
        self.0.lease(digest).await
    }

    /// Makes all of `puts` visible in the repository, or nothing. On return they survive SIGKILL, and a power cut where the
    /// store is strict. The commit goes on to its end when its caller goes away.
    pub async fn commit(&self, of: &RepositoryKey, origin: Origin, puts: Vec<Put>) -> Result<()> {
        commit::commit(&self.0, of.clone(), origin, puts, Vec::new()).await
    }

    /// Makes all of `puts` visible in a hosted repository if all `conditions` hold at that moment, or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Unlinked`] and [`Error::Fixed`] where a condition does not hold; else as [`Store::commit`].
    pub async fn commit_if(&self, of: &RepositoryKey, puts: Vec<Put>, conditions: Vec<Condition>) -> Result<()> {
        commit::commit(&self.0, of.clone(), Origin::Pushed, puts, conditions).await
    }

    /// Removes what a client wants removed, durably; false where there is no such thing. Tags of which `fixed` says so
    /// don't go, nor what would take one of them along. Bytes that nothing keeps go too, by and by.
    ///
    /// # Errors
    ///
    /// [`Error::Fixed`]; [`Error::Named`]; [`Error::Incomplete`] where what names it can't be told.
    pub async fn remove(
        &self,
        of: &RepositoryKey,
        removal: Removal,
        fixed: Arc<dyn Fn(&Tag) -> bool + Send + Sync>,
    ) -> Result<bool> {
        remove::remove(&self.0, of.clone(), removal, fixed).await
    }

    /// Looks at the links of a hosted repository after `after`, `limit` of them, for those that nothing keeps.
    /// [`Error::Incomplete`] while the index is being rebuilt.
    pub async fn loose(&self, of: &RepositoryKey, after: Option<&Digest>, limit: usize) -> Result<LooseLinks> {
        self.0.loose(of, after, limit).await
    }

    /// Those of `digests` that nothing keeps in a hosted repository.
    pub async fn loose_of(&self, of: &RepositoryKey, digests: &[Digest]) -> Result<Vec<Loose>> {
        self.0.loose_of(of, digests).await
    }

    /// Notes, durably, that these manifests were found without a tag at `at`, their tags having been moved to others.
    pub async fn note_replaced(&self, of: &RepositoryKey, digests: &[Digest], at: Timestamp) -> Result<()> {
        self.0.note_replaced(of, digests, at).await
    }

    /// Removes, durably, those of `loose` that are still as they were found, that no lease protects, and that `held` does
    /// not name at that moment; then the bytes that nothing links any more.
    pub async fn take_loose(&self, of: &RepositoryKey, loose: Vec<Loose>, held: Arc<HeldElsewhere>) -> Result<Taken> {
        loose::take(&self.0, of.clone(), loose, held).await
    }

    /// Removes the bytes that no repository links and that nothing else keeps; gives how many became free.
    pub async fn sweep(&self) -> Result<u64> {
        self.0.sweep().await
    }

    /// Waits until hosted repositories lost a tag or a manifest, and tells which.
    pub async fn loosened(&self) -> std::collections::HashSet<RepositoryKey> {
        self.0.loosened.take().await
    }

    /// Removes tags and links, durably, and the bytes that nothing names any more; gives the count of bytes freed by now.
    /// Bytes that a lease keeps go later. Removing what is not there is success.
    pub async fn evict(&self, of: &RepositoryKey, drops: Vec<Drop>) -> Result<u64> {
        collect::evict(&self.0, of.clone(), drops).await
    }

    /// Notes that the upstream confirmed a tag at `at`. It may be lost.
    pub fn validated(&self, of: &RepositoryKey, tag: &Tag, at: Timestamp) {
        if let Some(state) = self.0.hot.tag(of, tag) {
            state.validate(at);
        }
        self.0.uses.validated(of, tag, at);
    }

    /// Notes that a client used a tag.
    pub fn used_tag(&self, of: &RepositoryKey, tag: &Tag, at: Timestamp) {
        self.0.uses.used(of, names::Name::Tag(tag.clone()), at);
    }

    /// Notes that a client used bytes.
    pub fn used(&self, of: &RepositoryKey, digest: &Digest, at: Timestamp) {
        self.0.uses.used(of, names::Name::Digest(*digest), at);
    }

    /// How often the index was made anew since the start.
    pub fn rebuilds(&self) -> u64 {
        self.0.rebuilt.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Since when uses are known: what was not used since then may have been used before.
    pub fn uses_since(&self) -> Timestamp {
        Timestamp(self.0.uses_since.load(std::sync::atomic::Ordering::Acquire))
    }

    /// The repositories after `after` that hold anything, `limit` at most.
    pub async fn repositories(&self, after: Option<&RepositoryKey>, limit: usize) -> Result<Page<RepositoryKey>> {
        self.0.repositories(after, limit).await
    }

    /// The links of a repository after `after`, `limit` at most.
    pub async fn links(&self, of: &RepositoryKey, after: Option<&Digest>, limit: usize) -> Result<Page<Linked>> {
        self.0.links(of, after, limit).await
    }

    /// The stored bytes after `after`, `limit` at most, those left out that are being removed.
    pub async fn blobs(&self, after: Option<&BlobKey>, limit: usize) -> Result<Page<Blob>> {
        self.0.blobs(after, limit).await
    }

    /// Repositories that link bytes of the digest, `limit` at most. [`Error::Incomplete`] while the index is being rebuilt.
    pub async fn linked_in(&self, digest: &Digest, limit: usize) -> Result<Vec<RepositoryKey>> {
        self.0.linked_in(digest, limit).await
    }

    /// The repositories that link the bytes of `key`, `limit` at most.
    pub async fn holders(&self, key: &BlobKey, limit: usize) -> Result<Vec<RepositoryKey>> {
        self.0.holders(key, limit).await
    }

    /// Opens stored bytes by what they are, for those that look after them. None where they are gone.
    pub async fn open_blob(&self, key: &BlobKey) -> Result<Option<crate::body::FileRange>> {
        self.0.open_blob(key).await
    }

    /// Takes damaged bytes out of use: repositories of upstreams forget them, so that the next pull fetches them anew; in
    /// hosted ones they are [`Error::Damaged`] until they are pushed again.
    pub async fn quarantine(&self, key: &BlobKey) -> Result<()> {
        repair::quarantine(&self.0, key).await
    }

    /// What was kept under a kind and a name, outside of any repository; it survives the loss of the index. A name is 1 to
    /// 200 of `a-z`, `0-9`, `.`, `_` and `-`, with no `.` first; another is an error, here and below.
    pub async fn state<T: serde::de::DeserializeOwned>(&self, kind: &'static str, id: &str) -> Result<Option<T>> {
        self.0.tree.state(kind, id).await
    }

    /// Keeps something under a kind and a name, durably.
    pub async fn put_state<T: serde::Serialize + Sync>(&self, kind: &'static str, id: &str, state: &T) -> Result<()> {
        self.0.tree.put_state(kind, id, state).await
    }

    /// Keeps something under a kind and a name so that it survives SIGKILL, but no power cut: at the price of no fsync.
    pub async fn note_state<T: serde::Serialize + Sync>(&self, kind: &'static str, id: &str, state: &T) -> Result<()> {
        self.0.tree.note_state(kind, id, state).await
    }

    /// Forgets what was kept under a kind and a name, durably; forgetting what is not there is success.
    pub async fn drop_state(&self, kind: &'static str, id: &str) -> Result<()> {
        self.0.tree.drop_state(kind, id).await
    }

    /// Forgets what was noted under a kind and a name; after a power cut it may be there again.
    pub async fn forget_state(&self, kind: &'static str, id: &str) -> Result<()> {
        self.0.tree.forget_state(kind, id).await
    }

    /// The names of all that is kept under a kind, in no order. An error in between means that they are not all there is.
    pub fn states(&self, kind: &'static str) -> BoxStream<'_, Result<String>> {
        self.0.tree.states(kind)
    }

    /// Whether `bytes` more would be taken, as the file system is right now. [`Error::Full`] or [`Error::ReadOnly`] if not.
    pub fn look_for_room(&self, bytes: u64) -> Result<()> {
        Ok(self.0.spool.look_for_room(bytes)?)
    }

    /// Where bytes are written before they are verified.
    pub fn spool(&self) -> &Spool {
        &self.0.spool
    }

    /// Whether there is room, and what changes about that.
    pub fn pressure(&self) -> watch::Receiver<Pressure> {
        self.0.space.pressure()
    }

    /// Bytes that are stored.
    pub fn stored(&self) -> Stored {
        let totals = self.0.index.totals();
        Stored { hosted: totals.hosted, proxied: totals.proxied, spool: self.0.spool.bytes() }
    }

    /// Whether the index has a row for everything, and what changes about that.
    pub fn completeness(&self) -> watch::Receiver<Completeness> {
        self.0.completeness.subscribe()
    }

    /// Rebuilds the index from the tree, and returns when it is complete. Pulls are served meanwhile.
    pub async fn rebuild(&self) -> Result<()> {
        index::rebuild::rebuild(&self.0).await
    }

    /// Writes down what may be lost, and that the store was closed in order.
    pub async fn close(&self) -> Result<()> {
        open::close(&self.0).await
    }
}

//! A commit that stops after each single write of it is, after the next start, either made or not: never between.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;

use super::*;
use crate::store::index::BlobRow;
use crate::store::index::Change;
use crate::store::index::Facts;
use crate::store::index::Health;
use crate::store::index::Identity;
use crate::store::index::Index;
use crate::store::index::Intent;
use crate::store::index::IntentId;
use crate::store::index::Moment;
use crate::store::index::TagRow;
use crate::store::index::Totals;
use crate::store::index::Verdict;
use crate::store::names::Name;
use crate::store::open;
use crate::store::tree::Opened;
use crate::store::tree::RecordPath;
use crate::store::tree::StateId;
use crate::store::tree::Tree;
use crate::store::tree::filesystem::Filesystem;

/// Writes that may still be made; when they are used up, everything that writes fails.
#[derive(Clone, Debug)]
struct Fuse(Arc<AtomicI64>, Arc<AtomicBool>);

impl Fuse {
    fn new(writes: i64) -> Self {
        Self(Arc::new(AtomicI64::new(writes)), Arc::default())
    }

    /// Lets so many writes through, fails one, and lets all others through.
    fn fail_once_after(&self, writes: i64) {
        self.1.store(true, Ordering::SeqCst);
        self.0.store(writes, Ordering::SeqCst);
    }

    fn burn(&self) -> bool {
        let lives = self.0.fetch_sub(1, Ordering::SeqCst) > 0;
        if !lives && self.1.swap(false, Ordering::SeqCst) {
            self.0.store(i64::MAX, Ordering::SeqCst);
        }
        lives
    }

    fn tree(&self) -> tree::Result<()> {
        let stopped = || tree::Error::Io { doing: "stopped".into(), source: std::io::Error::other("stopped") };
        if self.burn() { Ok(()) } else { Err(stopped()) }
    }

    fn index(&self) -> index::Result<()> {
        if self.burn() { Ok(()) } else { Err(index::Error::Closed) }
    }
}

/// A tree that stops.
#[derive(Debug)]
struct StoppingTree(Filesystem, Fuse);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Tree for StoppingTree {
    async fn open(&self, key: &BlobKey) -> tree::Result<Option<Opened>> {
        self.0.open(key).await
    }
    async fn publish(&self, key: &BlobKey, blob: Verified) -> tree::Result<Opened> {
        self.1.tree()?;
        self.0.publish(key, blob).await
    }
    async fn remove(&self, keys: &[BlobKey]) -> tree::Result<()> {
        for key in keys {
            self.1.tree()?;
            self.0.remove(std::slice::from_ref(key)).await?;
        }
        Ok(())
    }
    fn blobs(&self) -> BoxStream<'_, tree::Result<(BlobKey, u64)>> {
        self.0.blobs()
    }
    async fn record(&self, path: &RecordPath) -> tree::Result<Option<Bytes>> {
        self.0.record(path).await
    }
    async fn put_record(&self, path: &RecordPath, record: Bytes) -> tree::Result<()> {
        self.1.tree()?;
        self.0.put_record(path, record).await
    }
    async fn note_record(&self, path: &RecordPath, record: Bytes) -> tree::Result<()> {
        self.1.tree()?;
        self.0.note_record(path, record).await
    }
    async fn remove_records(&self, paths: &[RecordPath]) -> tree::Result<()> {
        for path in paths {
            self.1.tree()?;
            self.0.remove_records(std::slice::from_ref(path)).await?;
        }
        Ok(())
    }
    async fn forget_record(&self, path: &RecordPath) -> tree::Result<()> {
        self.1.tree()?;
        self.0.forget_record(path).await
    }
    fn records(&self) -> BoxStream<'_, tree::Result<RecordPath>> {
        self.0.records()
    }
    fn states(&self, kind: &'static str) -> BoxStream<'_, tree::Result<StateId>> {
        self.0.states(kind)
    }
}

/// An index that stops.
#[derive(Debug)]
struct StoppingIndex(index::redb::Redb, Fuse);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Index for StoppingIndex {
    async fn tag(&self, of: &RepositoryKey, tag: &Tag) -> index::Result<Option<TagRow>> {
        self.0.tag(of, tag).await
    }
    async fn link(&self, of: &RepositoryKey, digest: &Digest) -> index::Result<Option<LinkRecord>> {
        self.0.link(of, digest).await
    }
    async fn blob(&self, digest: &Digest) -> index::Result<Option<BlobRow>> {
        self.0.blob(digest).await
    }
    async fn facts(&self, of: &RepositoryKey, digest: &Digest) -> index::Result<Option<Facts>> {
        self.0.facts(of, digest).await
    }
    async fn tags(&self, of: &RepositoryKey, after: Option<&Tag>, limit: usize) -> index::Result<Page<TagRow>> {
        self.0.tags(of, after, limit).await
    }
    async fn links(&self, of: &RepositoryKey, after: Option<&Digest>, limit: usize) -> index::Result<Page<LinkRecord>> {
        self.0.links(of, after, limit).await
    }
    async fn repositories(&self, after: Option<&RepositoryKey>, limit: usize) -> index::Result<Page<RepositoryKey>> {
        self.0.repositories(after, limit).await
    }
    async fn blobs(&self, after: Option<&BlobKey>, limit: usize) -> index::Result<Page<BlobRow>> {
        self.0.blobs(after, limit).await
    }
    async fn referrers(
        &self,
        of: &RepositoryKey,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> index::Result<Page<crate::oci::Descriptor>> {
        self.0.referrers(of, subject, after, limit).await
    }
    async fn tags_of(&self, of: &RepositoryKey, digest: &Digest, limit: usize) -> index::Result<Vec<Tag>> {
        self.0.tags_of(of, digest, limit).await
    }
    async fn parents(&self, of: &RepositoryKey, child: &Digest, limit: usize) -> index::Result<Vec<Digest>> {
        self.0.parents(of, child, limit).await
    }
    async fn holders(&self, key: &BlobKey, limit: usize) -> index::Result<Vec<RepositoryKey>> {
        self.0.holders(key, limit).await
    }
    async fn used(&self, of: &RepositoryKey, name: &Name) -> index::Result<Option<Timestamp>> {
        self.0.used(of, name).await
    }
    async fn intents(&self) -> index::Result<Vec<(IntentId, Intent)>> {
        self.0.intents().await
    }
    async fn going(&self, limit: usize) -> index::Result<Vec<BlobKey>> {
        self.0.going(limit).await
    }
    async fn orphans(&self, after: Option<&BlobKey>, limit: usize) -> index::Result<Vec<BlobRow>> {
        self.0.orphans(after, limit).await
    }
    async fn begin(&self, intent: Intent) -> index::Result<IntentId> {
        self.1.index()?;
        self.0.begin(intent).await
    }
    async fn apply(&self, id: Option<IntentId>, changes: Vec<Change>) -> index::Result<()> {
        self.1.index()?;
        self.0.apply(id, changes).await
    }
    async fn fill_in(&self, changes: Vec<Change>) -> index::Result<()> {
        self.1.index()?;
        self.0.fill_in(changes).await
    }
    async fn condemn(&self, key: &BlobKey) -> index::Result<Verdict> {
        self.1.index()?;
        self.0.condemn(key).await
    }
    async fn bury(&self, key: &BlobKey) -> index::Result<()> {
        self.1.index()?;
        self.0.bury(key).await
    }
    async fn touch(&self, moments: Vec<Moment>) -> index::Result<()> {
        self.1.index()?;
        self.0.touch(moments).await
    }
    async fn identity(&self) -> index::Result<Option<Identity>> {
        self.0.identity().await
    }
    async fn identify(&self, identity: Identity) -> index::Result<()> {
        self.1.index()?;
        self.0.identify(identity).await
    }
    async fn clear(&self) -> index::Result<()> {
        self.1.index()?;
        self.0.clear().await
    }
    async fn verify(&self) -> index::Result<()> {
        self.0.verify().await
    }
    fn totals(&self) -> Totals {
        self.0.totals()
    }
    fn health(&self) -> watch::Receiver<Health> {
        self.0.health()
    }
}

impl Bench {
    /// Opens a store that stops after `writes` writes; with none left it may not even open.
    async fn open_stopping(&self, fuse: &Fuse) -> (Option<Store>, Tasks) {
        let (options, tasks) = (self.options(), Tasks::new());
        let folder = &options.store.path;
        let lock = folder::Lock::take(folder).unwrap();
        let tree = Filesystem::open(folder, options.store.durability).unwrap();
        let parts = open::Parts {
            tree: truth::Truth(Arc::new(StoppingTree(tree, fuse.clone()))),
            index: Arc::new(StoppingIndex(open::open_index(&options, &tasks).unwrap(), fuse.clone())),
            spool: Spool::open(&folder.join("spool")).unwrap(),
            space: space::Space::open(folder, 0).unwrap(),
            lock,
        };
        let metrics = Arc::new(Metrics::new());
        let store = open::assemble(parts, &options, self.clock.clone(), tasks.clone(), metrics).await;
        (store.ok(), tasks)
    }
}

/// Everything that a repository is seen to have, through the index and by the tree, which must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    tags: BTreeMap<String, Digest>,
    links: BTreeSet<Digest>,
    blobs: BTreeSet<Digest>,
}

async fn seen(store: &Store) -> Seen {
    let repository = of(REPOSITORY);
    let tags = store.tags(&repository, None, 100).await.unwrap().rows;
    let tags: BTreeMap<_, _> = tags.into_iter().map(|row| (row.record.tag.to_string(), row.record.digest)).collect();
    let links = store.0.index.links(&repository, None, 100).await.unwrap().rows;
    let blobs = store.blobs(None, 100).await.unwrap().rows;
    let tree = &store.0.tree.0;
    let (mut tags_of_tree, mut links_of_tree) = (BTreeMap::new(), BTreeSet::new());
    let mut records = tree.records();
    while let Some(path) = records.next().await.transpose().unwrap() {
        match path {
            RecordPath::Tag(of, tag) => {
                let record = store.0.tree.tag(&of, &tag).await.unwrap().unwrap();
                tags_of_tree.insert(tag.to_string(), record.digest);
            }
            RecordPath::Link(_, digest) => drop(links_of_tree.insert(digest)),
            RecordPath::State(..) => {}
        }
    }
    let blobs_of_tree: Vec<_> = tree.blobs().try_collect().await.unwrap();
    let seen = Seen {
        tags,
        links: links.iter().map(|link| link.digest).collect(),
        blobs: blobs.iter().map(|blob| blob.key.digest).collect(),
    };
    assert_eq!(seen.tags, tags_of_tree);
    assert_eq!(seen.links, links_of_tree);
    assert_eq!(seen.blobs, blobs_of_tree.iter().map(|(key, _)| key.digest).collect());
    assert_eq!(store.0.index.intents().await.unwrap(), []);
    for link in &links {
        let held = store.held(&repository, &link.digest).await.unwrap().unwrap();
        assert_eq!(Digest::of(&bytes_of(&held).await), link.digest);
    }
    for digest in seen.tags.values() {
        assert!(seen.links.contains(digest), "a tag leads nowhere");
    }
    seen
}

const REPOSITORY: &str = "_hosted/cache/app";

/// One change of a repository that has an image.
enum Deed {
    /// Another image takes the tag.
    Push,
    /// A tag comes to the image that is there.
    Tag,
    /// The image is removed, with its bytes.
    Evict,
}

impl Deed {
    async fn run(&self, store: &Store) -> Result<()> {
        let old = manifest(&["old layer"], None);
        match self {
            Self::Push => {
                let new = manifest(&["new layer"], Some(&old.digest()));
                let puts = vec![tag_of("main", &new), put_manifest(&new), blob(store, "new layer").await];
                store.commit(&of(REPOSITORY), Origin::Pushed, puts).await
            }
            Self::Tag => store.commit(&of(REPOSITORY), Origin::Pushed, vec![tag_of("other", &old)]).await,
            Self::Evict => {
                let drops =
                    vec![Drop::Link(Digest::of(b"old layer")), Drop::Link(old.digest()), Drop::Tag(tag("main"))];
                store.evict(&of(REPOSITORY), drops).await.map(|_| ())
            }
        }
    }
}

async fn bench_with_an_image() -> Bench {
    // The order of writes is the same, and nothing here turns the machine off.
    let bench = Bench { durability: Durability::Relaxed, ..Bench::new() };
    let store = bench.open().await;
    put_image(&store, REPOSITORY, Origin::Pushed, "main", "old layer").await;
    store.close().await;
    bench
}

/// The bench as it is when `deed` was done wholly, or not at all.
async fn before_and_after(deed: &Deed) -> (Seen, Seen) {
    let bench = bench_with_an_image().await;
    let store = bench.open().await;
    let before = seen(&store).await;
    deed.run(&store).await.unwrap();
    let after = seen(&store).await;
    assert_ne!(before, after);
    store.close().await;
    (before, after)
}

/// Stops `deed` after each of its writes, and the start that follows after each of its own.
async fn stops_everywhere(deed: Deed) {
    let (before, after) = before_and_after(&deed).await;
    let mut ways = BTreeSet::new();
    for writes in 0.. {
        // What a start writes is not stopped here: it is what the second stop is for.
        let mut done = false;
        for second in 0..8 {
            let bench = bench_with_an_image().await;
            let fuse = Fuse::new(i64::MAX);
            let (store, tasks) = bench.open_stopping(&fuse).await;
            fuse.0.store(writes, Ordering::SeqCst);
            done = deed.run(store.as_ref().unwrap()).await.is_ok();
            crash(store, tasks).await;
            let (store, tasks) = bench.open_stopping(&Fuse::new(second)).await;
            crash(store, tasks).await;
            let store = bench.open().await;
            assert_eq!(*store.completeness().borrow(), Completeness::Complete, "no start needs a rebuild");
            store.0.finish_going().await.unwrap();
            store.0.sweep().await.unwrap();
            let now = seen(&store).await;
            assert!(now == before || now == after, "after {writes} and {second} writes: {now:#?}");
            assert!(!done || now == after, "what was acknowledged is lost after {writes} writes");
            ways.insert(now == after);
            store.close().await;
        }
        if done {
            break;
        }
        assert!(writes < 50, "the deed never ends");
    }
    assert_eq!(ways.len(), 2, "one stop must go forward and one back");
}

#[tokio::test]
async fn a_push_that_stops_anywhere_is_made_or_not() {
    stops_everywhere(Deed::Push).await;
}

#[tokio::test]
async fn a_tag_that_stops_anywhere_is_made_or_not() {
    stops_everywhere(Deed::Tag).await;
}

#[tokio::test]
async fn a_removal_that_stops_anywhere_is_made_or_not() {
    stops_everywhere(Deed::Evict).await;
}

#[tokio::test]
async fn a_commit_that_the_disk_refused_is_settled_without_a_start() {
    let bench = bench_with_an_image().await;
    let fuse = Fuse::new(i64::MAX);
    let (store, tasks) = bench.open_stopping(&fuse).await;
    let store = store.unwrap();
    let before = seen(&store).await;
    fuse.0.store(3, Ordering::SeqCst);
    Deed::Push.run(&store).await.unwrap_err();
    fuse.0.store(i64::MAX, Ordering::SeqCst);
    while !store.0.index.intents().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // What settled it lets go of the digests a moment later.
    while store.0.sweep().await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(seen(&store).await, before);
    crash(Some(store), tasks).await;
}

/// A disk that fails at one write, as fsync does with EIO, and works again at once: whatever was told of the failure is
/// true, nothing is half there, and doing it again does it.
#[tokio::test]
async fn a_write_that_fails_once_leaves_nothing_half_done_and_can_be_done_again() {
    for deed in [Deed::Push, Deed::Tag, Deed::Evict] {
        let (before, after) = before_and_after(&deed).await;
        let mut failed = 0;
        for writes in 0.. {
            let bench = bench_with_an_image().await;
            let fuse = Fuse::new(i64::MAX);
            let (store, tasks) = bench.open_stopping(&fuse).await;
            let store = store.unwrap();
            fuse.fail_once_after(writes);
            let done = deed.run(&store).await;
            let unharmed = fuse.1.load(Ordering::SeqCst);
            fuse.1.store(false, Ordering::SeqCst);
            fuse.0.store(i64::MAX, Ordering::SeqCst);
            while !store.0.index.intents().await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            if done.is_err() {
                failed += 1;
                store.0.finish_going().await.unwrap();
                while store.0.sweep().await.unwrap() > 0 {}
                let repository = of(REPOSITORY);
                let tags = store.tags(&repository, None, 10).await.unwrap().rows.len();
                assert!([before.tags.len(), after.tags.len()].contains(&tags), "after {writes} writes");
            }
            deed.run(&store).await.unwrap();
            while seen(&store).await != after {
                store.0.sweep().await.unwrap();
                tokio::task::yield_now().await;
            }
            crash(Some(store), tasks).await;
            if unharmed {
                break;
            }
            assert!(writes < 50, "the deed never ends");
        }
        assert!(failed > 1, "no write was made to fail");
    }
}

//! The store as those above it use it, on a folder and the index in its file.

mod crash;
mod damage;
mod hosted;
mod rebuild;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::*;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::store::Durability;
use crate::oci::MediaType;

/// A folder, and a store in it that can be opened again.
struct Bench {
    folder: tempfile::TempDir,
    clock: Clock,
    lease: Duration,
    durability: Durability,
}

/// A store that runs.
struct Running {
    store: Store,
    tasks: Tasks,
}

impl std::ops::Deref for Running {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Running {
    /// Ends the store as a crash does, but for what the kernel has not written: nothing is written down any more.
    async fn crash(self) {
        crash(Some(self.store), self.tasks).await;
    }

    async fn close(self) {
        self.store.close().await.unwrap();
        self.tasks.stop().await;
        drop(self.store);
        self.tasks.join_threads();
    }
}

/// Ends a store as SIGKILL does. Closing the index would write down what it has only in memory: so its file is put back to
/// what it was before.
async fn crash(store: Option<Store>, tasks: Tasks) {
    tasks.stop().await;
    let index = store.map(|store| {
        let path = store.0.folder.join("index.redb");
        let bytes = std::fs::read(&path).unwrap();
        drop(store);
        (path, bytes)
    });
    tasks.join_threads();
    if let Some((path, bytes)) = index {
        std::fs::write(path, bytes).unwrap();
    }
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp(1_000_000));
        Self { folder: tempfile::tempdir().unwrap(), clock, lease: Duration::ZERO, durability: Durability::Strict }
    }

    fn options(&self) -> StoreOptions {
        let mut store = Config::default().store;
        store.path = self.folder.path().to_owned();
        store.reserve_free = 0;
        store.durability = self.durability;
        StoreOptions { store, lease: self.lease }
    }

    async fn open(&self) -> Running {
        let tasks = Tasks::new();
        let metrics = Arc::new(Metrics::new());
        let store = Store::open(self.options(), self.clock.clone(), tasks.clone(), metrics).await.unwrap();
        Running { store, tasks }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn blob_path(&self, digest: &Digest) -> std::path::PathBuf {
        let hex = digest.hex();
        self.path(&format!("blobs/sha256/{}/{hex}.0", hex.get(..2).unwrap()))
    }
}

fn of(path: &str) -> RepositoryKey {
    RepositoryKey::from_path(path).unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

async fn blob(store: &Store, text: &str) -> Put {
    Put::Blob(store.spool().stage(Bytes::copy_from_slice(text.as_bytes()), Digest::of(text.as_bytes())).await.unwrap())
}

/// A manifest that names blobs of these contents.
fn manifest(layers: &[&str], subject: Option<&Digest>) -> Manifest {
    let descriptor =
        |digest: &Digest, size: usize| format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":{size}}}"#);
    let layers: Vec<_> = layers.iter().map(|text| descriptor(&Digest::of(text.as_bytes()), text.len())).collect();
    let subject = subject.map(|subject| format!(r#""subject":{},"#, descriptor(subject, 1))).unwrap_or_default();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}",{subject}"layers":[{}]}}"#,
        MediaType::OCI_MANIFEST,
        layers.join(",")
    );
    Manifest::parse(text.into(), MediaType::OCI_MANIFEST).unwrap()
}

fn tag_of(name: &str, manifest: &Manifest) -> Put {
    let (digest, media_type, size) = (manifest.digest(), manifest.media_type.clone(), manifest.size());
    Put::Tag { tag: tag(name), digest, media_type, size, pusher: None }
}

fn put_manifest(manifest: &Manifest) -> Put {
    Put::Manifest { manifest: manifest.clone(), digest: manifest.digest() }
}

/// An image of one layer under a tag.
async fn put_image(store: &Store, path: &str, origin: Origin, name: &str, layer: &str) -> Manifest {
    let image = manifest(&[layer], None);
    let puts = vec![blob(store, layer).await, put_manifest(&image), tag_of(name, &image)];
    store.commit(&of(path), origin, puts).await.unwrap();
    image
}

async fn bytes_of(held: &Held) -> Vec<u8> {
    match held.whole() {
        crate::body::Content::Bytes(bytes) => bytes.to_vec(),
        crate::body::Content::File(range) => truth::read(range).await.unwrap().to_vec(),
        crate::body::Content::Stream { .. } => panic!("nothing held is a stream"),
    }
}

#[tokio::test]
async fn what_was_committed_is_found_and_still_is_after_a_crash() {
    let bench = Bench::new();
    let store = bench.open().await;
    assert_eq!(*store.completeness().borrow(), Completeness::Complete);
    let repository = of("docker.io/library/alpine");
    assert!(store.tag(&repository, &tag("3")).await.unwrap().is_none());
    let image = put_image(&store, "docker.io/library/alpine", Origin::Proxied, "3", "layer").await;
    store.crash().await;
    let store = bench.open().await;
    assert_eq!(*store.completeness().borrow(), Completeness::Complete);
    for _ in 0..2 {
        let state = store.tag(&repository, &tag("3")).await.unwrap().unwrap();
        assert_eq!((state.record.digest, state.validated_at()), (image.digest(), Timestamp(1_000_000)));
        let held = store.held(&repository, &image.digest()).await.unwrap().unwrap();
        assert_eq!(held.manifest(), Some(&image.bytes));
        let held = store.held(&repository, &Digest::of(b"layer")).await.unwrap().unwrap();
        assert_eq!(bytes_of(&held).await, b"layer");
    }
    assert!(store.peek_tag(&repository, &tag("3")).is_some());
    assert!(store.peek(&repository, &image.digest()).is_some());
    assert!(store.peek(&repository, &Digest::of(b"layer")).is_some());
}

#[tokio::test]
async fn bytes_are_found_only_in_repositories_that_link_them() {
    let bench = Bench::new();
    let store = bench.open().await;
    put_image(&store, "docker.io/acme/private", Origin::Proxied, "1", "secret").await;
    let digest = Digest::of(b"secret");
    assert!(store.held(&of("docker.io/library/alpine"), &digest).await.unwrap().is_none());
    assert_eq!(store.present(&digest).await.unwrap(), Some(6));
    let link = vec![Put::Link { digest }];
    store.commit(&of("docker.io/library/alpine"), Origin::Proxied, link).await.unwrap();
    assert!(store.held(&of("docker.io/library/alpine"), &digest).await.unwrap().is_some());
    let missing = Digest::of(b"nowhere");
    let error = store.commit(&of("docker.io/a"), Origin::Proxied, vec![Put::Link { digest: missing }]).await;
    assert!(matches!(error, Err(Error::Missing { digest }) if digest == missing));
}

#[tokio::test]
async fn a_tag_that_moves_is_seen_at_once_and_remembers_what_it_was() {
    let bench = Bench::new();
    let store = bench.open().await;
    let repository = of("_hosted/cache/app");
    let mut images = Vec::new();
    for round in 0..12 {
        images.push(put_image(&store, "_hosted/cache/app", Origin::Pushed, "main", &format!("{round}")).await.digest());
        let state = store.peek_tag(&repository, &tag("main")).unwrap();
        assert_eq!(Some(&state.record.digest), images.last());
    }
    let state = store.tag(&repository, &tag("main")).await.unwrap().unwrap();
    let history: Vec<_> = state.record.history.iter().map(|(digest, _)| *digest).collect();
    assert_eq!(history, images[2..]);
}

#[tokio::test]
async fn a_tag_that_is_gone_upstream_is_marked_and_its_digest_stays() {
    let bench = Bench::new();
    let store = bench.open().await;
    let repository = of("docker.io/library/alpine");
    let image = put_image(&store, "docker.io/library/alpine", Origin::Proxied, "3", "layer").await;
    store.commit(&repository, Origin::Proxied, vec![Put::Gone { tag: tag("3") }]).await.unwrap();
    let state = store.tag(&repository, &tag("3")).await.unwrap().unwrap();
    assert_eq!(state.record.gone, Some(Timestamp(1_000_000)));
    assert!(store.held(&repository, &image.digest()).await.unwrap().is_some());
    assert_eq!(store.tags(&repository, None, 10).await.unwrap().rows, []);
    put_image(&store, "docker.io/library/alpine", Origin::Proxied, "3", "layer").await;
    assert_eq!(store.tag(&repository, &tag("3")).await.unwrap().unwrap().record.gone, None);
    store.commit(&repository, Origin::Proxied, vec![Put::Gone { tag: tag("never-seen") }]).await.unwrap();
    assert!(store.tag(&repository, &tag("never-seen")).await.unwrap().is_none());
}

#[tokio::test]
async fn what_an_upstream_says_never_overwrites_a_pushed_tag() {
    let bench = Bench::new();
    let store = bench.open().await;
    let image = put_image(&store, "_hosted/cache/app", Origin::Pushed, "main", "ours").await;
    let theirs = manifest(&["theirs"], None);
    let puts = vec![put_manifest(&theirs), tag_of("main", &theirs)];
    let refused = store.commit(&of("_hosted/cache/app"), Origin::Proxied, puts).await;
    assert!(matches!(refused, Err(Error::Pushed { .. })));
    let state = store.tag(&of("_hosted/cache/app"), &tag("main")).await.unwrap().unwrap();
    assert_eq!(state.record.digest, image.digest());
    assert!(store.held(&of("_hosted/cache/app"), &theirs.digest()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_evicted_image_frees_its_bytes_and_a_shared_blob_stays() {
    let bench = Bench::new();
    let store = bench.open().await;
    let image = put_image(&store, "docker.io/a", Origin::Proxied, "1", "shared").await;
    put_image(&store, "docker.io/b", Origin::Proxied, "1", "shared").await;
    let shared = Digest::of(b"shared");
    let before = store.stored().proxied;
    let drops = vec![Drop::Tag(tag("1")), Drop::Link(image.digest()), Drop::Link(shared)];
    assert_eq!(store.evict(&of("docker.io/a"), drops.clone()).await.unwrap(), 0);
    assert!(store.tag(&of("docker.io/a"), &tag("1")).await.unwrap().is_none());
    assert!(store.held(&of("docker.io/a"), &shared).await.unwrap().is_none());
    let held = store.held(&of("docker.io/b"), &shared).await.unwrap().unwrap();
    assert_eq!(store.evict(&of("docker.io/b"), drops.clone()).await.unwrap(), before);
    assert_eq!(store.stored().proxied, 0);
    assert!(!bench.blob_path(&shared).exists());
    // Whoever reads it goes on.
    assert_eq!(bytes_of(&held).await, b"shared");
    assert_eq!(store.evict(&of("docker.io/b"), drops).await.unwrap(), 0);
}

#[tokio::test]
async fn a_lease_keeps_bytes_that_nothing_links() {
    let bench = Bench { lease: Duration::from_secs(3600), ..Bench::new() };
    let store = bench.open().await;
    let digest = Digest::of(b"layer");
    let put = vec![blob(&store, "layer").await];
    store.commit(&of("docker.io/a"), Origin::Proxied, put).await.unwrap();
    assert!(store.lease(&digest).await.unwrap());
    assert!(!store.lease(&Digest::of(b"nowhere")).await.unwrap());
    assert_eq!(store.evict(&of("docker.io/a"), vec![Drop::Link(digest)]).await.unwrap(), 0);
    assert_eq!(store.present(&digest).await.unwrap(), Some(5));
    store.commit(&of("docker.io/b"), Origin::Proxied, vec![Put::Link { digest }]).await.unwrap();
}

#[tokio::test]
async fn pushed_bytes_stay_for_one_lease_time_after_the_start_and_proxied_ones_go_at_once() {
    let mut bench = Bench::new();
    let store = bench.open().await;
    put_image(&store, "_hosted/cache/app", Origin::Pushed, "main", "pushed").await;
    put_image(&store, "docker.io/a", Origin::Proxied, "1", "proxied").await;
    store.close().await;
    bench.lease = Duration::from_secs(3600);
    let store = bench.open().await;
    let (pushed, proxied) = (Digest::of(b"pushed"), Digest::of(b"proxied"));
    assert_eq!(store.evict(&of("_hosted/cache/app"), vec![Drop::Link(pushed)]).await.unwrap(), 0);
    assert_eq!(store.evict(&of("docker.io/a"), vec![Drop::Link(proxied)]).await.unwrap(), 7);
    assert!(bench.blob_path(&pushed).exists());
    store.close().await;
    bench.lease = Duration::ZERO;
    let store = bench.open().await;
    assert_eq!(store.0.sweep().await.unwrap(), 6);
    assert!(!bench.blob_path(&pushed).exists());
}

#[tokio::test]
async fn referrers_are_listed_with_their_descriptors() {
    let bench = Bench::new();
    let store = bench.open().await;
    let repository = of("_hosted/cache/app");
    let subject = Digest::of(b"subject");
    let signature = manifest(&["signature"], Some(&subject));
    let puts = vec![blob(&store, "signature").await, put_manifest(&signature)];
    store.commit(&repository, Origin::Pushed, puts).await.unwrap();
    let rows = store.referrers(&repository, &subject, None, 10).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.digest).collect::<Vec<_>>(), [signature.digest()]);
    assert!(store.is_named(&repository, &Digest::of(b"signature")).await.unwrap());
    assert!(!store.is_named(&repository, &subject).await.unwrap());
}

#[tokio::test]
async fn uses_and_validations_survive_an_orderly_end() {
    let bench = Bench::new();
    let store = bench.open().await;
    let repository = of("docker.io/library/alpine");
    let image = put_image(&store, "docker.io/library/alpine", Origin::Proxied, "3", "layer").await;
    store.used(&repository, &image.digest(), Timestamp(2_000_000));
    store.used_tag(&repository, &tag("3"), Timestamp(2_000_001));
    let state = store.tag(&repository, &tag("3")).await.unwrap().unwrap();
    store.validated(&repository, &tag("3"), Timestamp(2_000_002));
    assert_eq!(state.validated_at(), Timestamp(2_000_002));
    store.close().await;
    let store = bench.open().await;
    let links = store.links(&repository, None, 10).await.unwrap().rows;
    let used = links.iter().find(|row| row.link.digest == image.digest()).unwrap();
    assert_eq!((used.used, used.children.as_slice()), (Some(Timestamp(2_000_000)), &[Digest::of(b"layer")][..]));
    let tags = store.tags(&repository, None, 10).await.unwrap().rows;
    assert_eq!((tags[0].used, tags[0].validated_at), (Some(Timestamp(2_000_001)), Timestamp(2_000_002)));
}

#[tokio::test]
async fn a_second_store_on_the_folder_is_refused() {
    let bench = Bench::new();
    let _store = bench.open().await;
    let metrics = Arc::new(Metrics::new());
    let second = Store::open(bench.options(), bench.clock.clone(), Tasks::new(), metrics).await;
    assert!(matches!(second, Err(Error::InUse { .. })));
}

#[tokio::test]
async fn commits_to_one_tag_end_in_one_of_them() {
    let bench = Bench::new();
    let store = bench.open().await;
    let commits = (0..16).map(|round| {
        let store = store.store.clone();
        async move { put_image(&store, "_hosted/cache/app", Origin::Pushed, "main", &format!("{round}")).await.digest() }
    });
    let digests = futures_util::future::join_all(commits).await;
    let memory = store.tag(&of("_hosted/cache/app"), &tag("main")).await.unwrap().unwrap().record.clone();
    let tree = store.0.tree.tag(&of("_hosted/cache/app"), &tag("main")).await.unwrap().unwrap();
    let index = store.0.index.tag(&of("_hosted/cache/app"), &tag("main")).await.unwrap().unwrap().record;
    assert!(digests.contains(&memory.digest));
    assert_eq!((&memory, &memory), (&tree, &index));
}

#[tokio::test]
async fn states_outlive_the_process_and_the_index() {
    let bench = Bench::new();
    let store = bench.open().await;
    store.put_state("runs", "a1", &vec!["durable".to_owned()]).await.unwrap();
    store.note_state("runs", "b2", &vec!["noted".to_owned()]).await.unwrap();
    assert!(store.put_state("runs", "../b2", &0).await.is_err());
    store.crash().await;
    std::fs::remove_file(bench.path("index.redb")).unwrap();
    // Neither a name that no record has nor a folder is taken for one.
    std::fs::write(bench.path("state/runs/README"), "x").unwrap();
    std::fs::create_dir_all(bench.path("state/runs/deeper")).unwrap();
    std::fs::write(bench.path("state/runs/deeper/c3"), "x").unwrap();

    let store = bench.open().await;
    let mut ids: Vec<_> = store.states("runs").try_collect().await.unwrap();
    ids.sort_unstable();
    assert_eq!(ids, ["a1", "b2"]);
    assert_eq!(store.state::<Vec<String>>("runs", "b2").await.unwrap().unwrap(), ["noted"]);
    store.drop_state("runs", "a1").await.unwrap();
    store.drop_state("runs", "a1").await.unwrap();
    assert!(store.state::<Vec<String>>("runs", "a1").await.unwrap().is_none());
    store.close().await;
}

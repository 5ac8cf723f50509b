//! What every [`Index`] must do.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::store::Durability;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::RepositoryKey;
use crate::store::BlobKey;
use crate::store::Kind;
use crate::store::LinkRecord;
use crate::store::Origin;
use crate::store::Standing;
use crate::store::TagRecord;
use crate::store::index::BlobState;
use crate::store::index::Change;
use crate::store::index::Facts;
use crate::store::index::Identity;
use crate::store::index::Index;
use crate::store::index::Intent;
use crate::store::index::Moment;
use crate::store::index::Step;
use crate::store::index::Verdict;
use crate::store::index::redb::Options;
use crate::store::index::redb::Redb;
use crate::store::names::Name;
use crate::tasks::Tasks;

fn of(path: &str) -> RepositoryKey {
    RepositoryKey::from_path(path).unwrap()
}

fn key(text: &str) -> BlobKey {
    BlobKey { digest: Digest::of(text.as_bytes()), generation: 0 }
}

fn record(text: &str) -> LinkRecord {
    let BlobKey { digest, generation } = key(text);
    let size = text.len() as u64;
    LinkRecord {
        digest,
        generation,
        size,
        kind: Kind::Blob,
        origin: Origin::Proxied,
        at: Timestamp(7),
        standing: Standing::default(),
    }
}

fn tagged(tag: &str) -> TagRecord {
    TagRecord {
        tag: tag.parse().unwrap(),
        digest: Digest::of(b"m"),
        media_type: MediaType::new(MediaType::OCI_MANIFEST),
        size: 1,
        origin: Origin::Proxied,
        pusher: None,
        at: Timestamp(7),
        history: vec![],
        gone: None,
    }
}

fn blob(text: &str) -> Change {
    Change::Blob { key: key(text), size: text.len() as u64, precious: false }
}

fn link(path: &str, text: &str) -> Change {
    Change::Link { of: of(path), record: record(text), facts: None }
}

fn drop_link(path: &str, text: &str) -> Change {
    Change::DropLink { of: of(path), digest: Digest::of(text.as_bytes()) }
}

async fn complete(index: &dyn Index) {
    index.identify(Identity::new("e".into(), String::new(), true)).await.unwrap();
}

/// Every rule, each on an index of its own that `open` gives.
async fn conforms<F: AsyncFn() -> Arc<dyn Index>>(open: F) {
    absence_is_none(&*open().await).await;
    what_was_applied_is_found(&*open().await).await;
    an_intent_stays_until_its_changes_are_applied(&*open().await).await;
    pages_go_on_where_they_ended(&*open().await).await;
    the_tags_of_a_digest_are_those_that_mean_it(&*open().await).await;
    references_come_and_go_with_the_manifest(&*open().await).await;
    bytes_go_only_when_nobody_links_them(&*open().await).await;
    a_link_to_bytes_that_are_nowhere_is_damaged(&*open().await).await;
    an_incomplete_index_condemns_nothing(&*open().await).await;
    a_buried_blob_leaves_no_row(&*open().await).await;
    bytes_that_are_live_again_are_not_buried(&*open().await).await;
    a_link_that_moves_to_another_generation_releases_the_first(&*open().await).await;
    bytes_count_once_however_many_link_them(&*open().await).await;
    times_are_kept_of_what_is_there(&*open().await).await;
    a_cleared_index_is_empty(&*open().await).await;
    repeating_a_change_is_harmless(&*open().await).await;
}

async fn absence_is_none(index: &dyn Index) {
    let repository = of("docker.io/a");
    assert_eq!(index.tag(&repository, &"t".parse().unwrap()).await.unwrap(), None);
    assert_eq!(index.link(&repository, &Digest::of(b"a")).await.unwrap(), None);
    assert_eq!(index.blob(&Digest::of(b"a")).await.unwrap(), None);
    assert_eq!(index.identity().await.unwrap(), None);
    index.apply(None, vec![drop_link("docker.io/a", "a")]).await.unwrap();
    index.bury(&key("a")).await.unwrap();
}

async fn what_was_applied_is_found(index: &dyn Index) {
    let record_of_tag = tagged("t");
    let tag = Change::Tag { of: of("docker.io/a"), record: record_of_tag.clone(), validated_at: Timestamp(9) };
    index.apply(None, vec![blob("b"), link("docker.io/a", "b"), tag]).await.unwrap();
    let row = index.tag(&of("docker.io/a"), &"t".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((row.record, row.validated_at), (record_of_tag, Timestamp(9)));
    assert_eq!(index.link(&of("docker.io/a"), &Digest::of(b"b")).await.unwrap(), Some(record("b")));
    assert_eq!(index.link(&of("docker.io/b"), &Digest::of(b"b")).await.unwrap(), None);
    let row = index.blob(&Digest::of(b"b")).await.unwrap().unwrap();
    assert_eq!((row.key, row.size, row.state, row.proxied), (key("b"), 1, BlobState::Live, 1));
    index.apply(None, vec![Change::DropTag { of: of("docker.io/a"), tag: "t".parse().unwrap() }]).await.unwrap();
    assert_eq!(index.tag(&of("docker.io/a"), &"t".parse().unwrap()).await.unwrap(), None);
}

async fn an_intent_stays_until_its_changes_are_applied(index: &dyn Index) {
    let intent = Intent { of: of("docker.io/a"), steps: vec![Step::Link { record: record("b"), before: None }] };
    let first = index.begin(intent.clone()).await.unwrap();
    let second = index.begin(intent.clone()).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(index.intents().await.unwrap(), [(first, intent.clone()), (second, intent.clone())]);
    index.apply(Some(first), vec![link("docker.io/a", "b")]).await.unwrap();
    assert_eq!(index.intents().await.unwrap(), [(second, intent)]);
}

async fn pages_go_on_where_they_ended(index: &dyn Index) {
    let tags = ["a", "b", "c", "d", "e"];
    for path in ["docker.io/a", "docker.io/a-b", "docker.io/a/b"] {
        let changes = tags.iter().map(|tag| Change::Tag {
            of: of(path),
            record: tagged(&format!("{tag}{}", path.len())),
            validated_at: Timestamp(7),
        });
        let links = tags.iter().map(|text| link(path, text));
        index.apply(None, changes.chain(links).collect()).await.unwrap();
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = index.tags(&of("docker.io/a"), after.as_ref(), 2).await.unwrap();
        found.extend(page.rows.iter().map(|row| row.record.tag.to_string()));
        after = page.rows.last().map(|row| row.record.tag.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(found, ["a11", "b11", "c11", "d11", "e11"]);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = index.repositories(after.as_ref(), 1).await.unwrap();
        after = page.rows.last().cloned();
        found.extend(page.rows);
        if !page.more {
            break;
        }
    }
    found.sort();
    assert_eq!(found, [of("docker.io/a"), of("docker.io/a-b"), of("docker.io/a/b")]);
    let page = index.links(&of("docker.io/a"), None, 5).await.unwrap();
    assert_eq!((page.rows.len(), page.more), (5, false));
    let page = index.blobs(Some(&index.blobs(None, 1).await.unwrap().rows[0].key), 10).await.unwrap();
    assert_eq!((page.rows.len(), page.more), (4, false));
}

async fn references_come_and_go_with_the_manifest(index: &dyn Index) {
    let repository = of("_hosted/cache/app");
    let subject = Digest::of(b"subject");
    let descriptor = Descriptor {
        media_type: MediaType::new(MediaType::OCI_MANIFEST),
        digest: Digest::of(b"m"),
        size: 1,
        artifact_type: Some("application/x".into()),
        annotations: None,
        platform: None,
    };
    let facts = Facts { children: vec![Digest::of(b"child")], referrer: Some((subject, descriptor.clone())) };
    let manifest = Change::Link { of: repository.clone(), record: record("m"), facts: Some(Box::new(facts.clone())) };
    index.apply(None, vec![manifest]).await.unwrap();
    assert_eq!(index.referrers(&repository, &subject, None, 9).await.unwrap().rows, [descriptor]);
    assert_eq!(index.parents(&repository, &Digest::of(b"child"), 9).await.unwrap(), [Digest::of(b"m")]);
    assert_eq!(index.facts(&repository, &Digest::of(b"m")).await.unwrap(), Some(facts));
    assert_eq!(index.parents(&of("_hosted/cache/other"), &Digest::of(b"child"), 9).await.unwrap(), []);
    index.apply(None, vec![drop_link("_hosted/cache/app", "m")]).await.unwrap();
    assert_eq!(index.referrers(&repository, &subject, None, 9).await.unwrap().rows, []);
    assert_eq!(index.parents(&repository, &Digest::of(b"child"), 9).await.unwrap(), []);
}

async fn the_tags_of_a_digest_are_those_that_mean_it(index: &dyn Index) {
    let repository = of("_hosted/cache/app");
    let put = |record: TagRecord| {
        index.apply(None, vec![Change::Tag { of: repository.clone(), record, validated_at: Timestamp(1) }])
    };
    let meaning = |tag: &str, what: &str| TagRecord { digest: Digest::of(what.as_bytes()), ..tagged(tag) };
    let tags_of = async |what: &str| index.tags_of(&repository, &Digest::of(what.as_bytes()), 9).await.unwrap();
    put(meaning("m1", "one")).await.unwrap();
    put(meaning("m2", "one")).await.unwrap();
    assert_eq!(tags_of("one").await, ["m1".parse().unwrap(), "m2".parse().unwrap()]);
    put(meaning("m1", "other")).await.unwrap();
    assert_eq!(tags_of("one").await, ["m2".parse().unwrap()]);
    assert_eq!(tags_of("other").await, ["m1".parse().unwrap()]);
    put(TagRecord { gone: Some(Timestamp(2)), ..meaning("m1", "other") }).await.unwrap();
    assert_eq!(tags_of("other").await, []);
    let tag = "m2".parse().unwrap();
    index.apply(None, vec![Change::DropTag { of: repository.clone(), tag }]).await.unwrap();
    assert_eq!(tags_of("one").await, []);
}

async fn bytes_go_only_when_nobody_links_them(index: &dyn Index) {
    complete(index).await;
    index.apply(None, vec![blob("x"), link("docker.io/a", "x"), link("_hosted/b", "x")]).await.unwrap();
    assert_eq!(index.holders(&key("x"), 9).await.unwrap(), [of("_hosted/b"), of("docker.io/a")]);
    assert_eq!(index.orphans(None, 9).await.unwrap(), []);
    assert_eq!(index.condemn(&key("x")).await.unwrap(), Verdict::Kept);
    index.apply(None, vec![drop_link("docker.io/a", "x")]).await.unwrap();
    assert_eq!(index.condemn(&key("x")).await.unwrap(), Verdict::Kept);
    index.apply(None, vec![drop_link("_hosted/b", "x")]).await.unwrap();
    assert_eq!(index.orphans(None, 9).await.unwrap().len(), 1);
    assert_eq!(index.condemn(&key("x")).await.unwrap(), Verdict::Condemned { size: 1 });
    assert_eq!(index.going(9).await.unwrap(), [key("x")]);
    assert_eq!(index.orphans(None, 9).await.unwrap(), []);
}

async fn a_link_to_bytes_that_are_nowhere_is_damaged(index: &dyn Index) {
    index.apply(None, vec![link("docker.io/a", "x")]).await.unwrap();
    let row = index.blob(&key("x").digest).await.unwrap().unwrap();
    assert_eq!((row.state, row.size), (BlobState::Damaged, 0));
    index.apply(None, vec![blob("x")]).await.unwrap();
    let row = index.blob(&key("x").digest).await.unwrap().unwrap();
    assert_eq!((row.state, row.size, row.proxied), (BlobState::Live, 1, 1));
}

async fn an_incomplete_index_condemns_nothing(index: &dyn Index) {
    index.apply(None, vec![Change::Blob { key: key("x"), size: 1, precious: false }]).await.unwrap();
    assert_eq!(index.condemn(&key("x")).await.unwrap(), Verdict::Incomplete);
    complete(index).await;
    assert_eq!(index.condemn(&key("unknown")).await.unwrap(), Verdict::Kept);
    assert_eq!(index.condemn(&key("x")).await.unwrap(), Verdict::Condemned { size: 1 });
}

async fn a_buried_blob_leaves_no_row(index: &dyn Index) {
    complete(index).await;
    index.apply(None, vec![Change::Blob { key: key("x"), size: 5, precious: false }]).await.unwrap();
    index.condemn(&key("x")).await.unwrap();
    index.bury(&key("x")).await.unwrap();
    assert_eq!(index.blob(&key("x").digest).await.unwrap(), None);
    assert_eq!(index.going(9).await.unwrap(), []);
    assert_eq!(index.totals().proxied, 0);
}

async fn bytes_that_are_live_again_are_not_buried(index: &dyn Index) {
    complete(index).await;
    let next = BlobKey { generation: 1, ..key("x") };
    index.apply(None, vec![Change::Blob { key: key("x"), size: 1, precious: false }]).await.unwrap();
    index.condemn(&key("x")).await.unwrap();
    assert_eq!(index.blob(&key("x").digest).await.unwrap().unwrap().state, BlobState::Going);
    index.apply(None, vec![Change::Blob { key: next, size: 1, precious: false }]).await.unwrap();
    index.bury(&key("x")).await.unwrap();
    let row = index.blob(&key("x").digest).await.unwrap().unwrap();
    assert_eq!((row.key, row.state), (next, BlobState::Live));
    index.bury(&next).await.unwrap();
    assert!(index.blob(&key("x").digest).await.unwrap().is_some());
}

async fn a_link_that_moves_to_another_generation_releases_the_first(index: &dyn Index) {
    complete(index).await;
    index.apply(None, vec![blob("x"), link("docker.io/a", "x")]).await.unwrap();
    let moved = LinkRecord { generation: 1, ..record("x") };
    index.apply(None, vec![Change::Link { of: of("docker.io/a"), record: moved, facts: None }]).await.unwrap();
    assert_eq!(index.condemn(&BlobKey { generation: 1, ..key("x") }).await.unwrap(), Verdict::Kept);
    assert_eq!(index.condemn(&key("x")).await.unwrap(), Verdict::Condemned { size: 1 });
}

async fn bytes_count_once_however_many_link_them(index: &dyn Index) {
    complete(index).await;
    index.apply(None, vec![blob("xxxx"), link("docker.io/a", "xxxx"), link("docker.io/b", "xxxx")]).await.unwrap();
    assert_eq!((index.totals().hosted, index.totals().proxied), (0, 4));
    index.apply(None, vec![link("_hosted/c", "xxxx")]).await.unwrap();
    assert_eq!((index.totals().hosted, index.totals().proxied), (4, 0));
    index.apply(None, vec![drop_link("_hosted/c", "xxxx"), drop_link("docker.io/b", "xxxx")]).await.unwrap();
    assert_eq!((index.totals().hosted, index.totals().proxied), (0, 4));
}

async fn times_are_kept_of_what_is_there(index: &dyn Index) {
    let repository = of("docker.io/a");
    let name = Name::Digest(Digest::of(b"x"));
    let used = || vec![Moment::Used { of: of("docker.io/a"), name: name.clone(), at: Timestamp(50) }];
    index.touch(used()).await.unwrap();
    assert_eq!(index.used(&repository, &name).await.unwrap(), None);
    let tag = Change::Tag { of: repository.clone(), record: tagged("t"), validated_at: Timestamp(9) };
    index.apply(None, vec![link("docker.io/a", "x"), tag]).await.unwrap();
    index.touch(used()).await.unwrap();
    assert_eq!(index.used(&repository, &name).await.unwrap(), Some(Timestamp(50)));
    let tag: crate::oci::Tag = "t".parse().unwrap();
    index.touch(vec![Moment::Validated { of: repository.clone(), tag: tag.clone(), at: Timestamp(60) }]).await.unwrap();
    assert_eq!(index.tag(&repository, &tag).await.unwrap().unwrap().validated_at, Timestamp(60));
    index.apply(None, vec![drop_link("docker.io/a", "x"), link("docker.io/a", "x")]).await.unwrap();
    assert_eq!(index.used(&repository, &name).await.unwrap(), None);
}

async fn a_cleared_index_is_empty(index: &dyn Index) {
    complete(index).await;
    index.apply(None, vec![link("docker.io/a", "x")]).await.unwrap();
    index.clear().await.unwrap();
    assert_eq!(index.identity().await.unwrap(), None);
    assert_eq!(index.link(&of("docker.io/a"), &Digest::of(b"x")).await.unwrap(), None);
    assert_eq!(index.totals().proxied, 0);
    index.apply(None, vec![link("docker.io/a", "x")]).await.unwrap();
    assert!(index.link(&of("docker.io/a"), &Digest::of(b"x")).await.unwrap().is_some());
}

async fn repeating_a_change_is_harmless(index: &dyn Index) {
    complete(index).await;
    for _ in 0..2 {
        index.apply(None, vec![blob("x"), link("docker.io/a", "x")]).await.unwrap();
    }
    assert_eq!(index.blob(&key("x").digest).await.unwrap().unwrap().proxied, 1);
    for _ in 0..2 {
        index.apply(None, vec![drop_link("docker.io/a", "x")]).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(index.condemn(&key("x")).await.unwrap(), Verdict::Condemned { size: 1 });
    }
    for _ in 0..2 {
        index.bury(&key("x")).await.unwrap();
    }
}

fn options(folder: &tempfile::TempDir, durability: Durability) -> Options {
    Options { path: folder.path().join("index.redb"), durability, queue: 16, cache_bytes: 1 << 20 }
}

#[tokio::test]
async fn redb_conforms() {
    for durability in [Durability::Strict, Durability::Relaxed] {
        let folders = std::sync::Mutex::new(Vec::new());
        let tasks = Tasks::new();
        conforms(async || {
            let folder = tempfile::tempdir().unwrap();
            let index = Redb::open(options(&folder, durability), &tasks).unwrap();
            folders.lock().unwrap().push(folder);
            Arc::new(index) as Arc<dyn Index>
        })
        .await;
    }
}

#[tokio::test]
async fn redb_keeps_what_it_acknowledged_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let index = Redb::open(options(&folder, Durability::Strict), &tasks).unwrap();
    let intent = Intent { of: of("docker.io/a"), steps: vec![] };
    let id = index.begin(intent.clone()).await.unwrap();
    index.apply(None, vec![blob("x"), link("docker.io/a", "x")]).await.unwrap();
    drop(index);
    tasks.join_threads();
    let index = Redb::open(options(&folder, Durability::Strict), &Tasks::new()).unwrap();
    assert_eq!(index.intents().await.unwrap(), [(id, intent.clone())]);
    assert!(index.link(&of("docker.io/a"), &Digest::of(b"x")).await.unwrap().is_some());
    assert!(index.begin(intent).await.unwrap() > id);
    assert_eq!(index.totals().proxied, 1);
}

#[tokio::test]
async fn redb_refuses_a_file_that_another_has_open() {
    for durability in [Durability::Strict, Durability::Relaxed] {
        let folder = tempfile::tempdir().unwrap();
        let _index = Redb::open(options(&folder, durability), &Tasks::new()).unwrap();
        assert!(Redb::open(options(&folder, durability), &Tasks::new()).is_err());
    }
}

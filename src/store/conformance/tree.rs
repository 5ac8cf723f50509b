//! What every tree must do.

use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;

use crate::config::store::Durability;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::store::BlobKey;
use crate::store::spool::Spool;
use crate::store::spool::Verified;
use crate::store::tree::Opened;
use crate::store::tree::RecordPath;
use crate::store::tree::StateId;
use crate::store::tree::Tree;
use crate::store::tree::filesystem::Filesystem;
use crate::store::tree::memory::Memory;

async fn verified(spool: &Spool, text: &'static str) -> (BlobKey, Verified) {
    let digest = Digest::of(text.as_bytes());
    let blob = spool.stage(Bytes::from_static(text.as_bytes()), digest).await.unwrap();
    (BlobKey { digest, generation: 0 }, blob)
}

fn text(opened: &Opened) -> String {
    let Opened::File(range) = opened;
    let mut bytes = vec![0; usize::try_from(range.length).unwrap()];
    range.file.read_exact_at(&mut bytes, range.offset).unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn bytes_are_published_and_removed(tree: &dyn Tree, spool: &Spool) {
    let (key, blob) = verified(spool, "layer").await;
    let next = BlobKey { generation: 1, ..key };
    assert!(tree.open(&key).await.unwrap().is_none());
    tree.remove(&[key]).await.unwrap();
    assert_eq!(text(&tree.publish(&key, blob).await.unwrap()), "layer");
    assert_eq!(spool.bytes(), 0);
    let opened = tree.open(&key).await.unwrap().unwrap();
    // Over the same key, and beside it.
    tree.publish(&key, verified(spool, "layer").await.1).await.unwrap();
    tree.publish(&next, verified(spool, "layer").await.1).await.unwrap();
    let mut all: Vec<_> = tree.blobs().try_collect().await.unwrap();
    all.sort_unstable();
    assert_eq!(all, [(key, 5), (next, 5)]);
    tree.remove(&[key]).await.unwrap();
    tree.remove(&[key]).await.unwrap();
    assert!(tree.open(&key).await.unwrap().is_none());
    assert_eq!(text(&tree.open(&next).await.unwrap().unwrap()), "layer");
    assert_eq!(text(&opened), "layer", "who has it open reads on");
}

async fn records_are_written_over_and_removed(tree: &dyn Tree) {
    let repository = |path: &str| RepositoryKey::from_path(path).unwrap();
    let long = RepositoryKey::from_path(&format!("_hosted/{}", "a".repeat(255))).unwrap();
    let mut paths = vec![
        RecordPath::link(&repository("docker.io/library/alpine"), &Digest::of(b"x")),
        RecordPath::tag(&repository("docker.io/library/alpine"), &"3".parse().unwrap()),
        RecordPath::tag(&repository("docker.io/library/alpine/deeper"), &"3".parse().unwrap()),
        RecordPath::tag(&repository("localhost:5000/a"), &"_tags".parse().unwrap()),
        RecordPath::tag(&long, &"t".repeat(128).parse().unwrap()),
    ];
    let state = RecordPath::state("store", "epoch").unwrap();
    for path in paths.iter().chain([&state]) {
        assert_eq!(tree.record(path).await.unwrap(), None);
        tree.remove_records(std::slice::from_ref(path)).await.unwrap();
        tree.put_record(path, Bytes::from_static(b"first")).await.unwrap();
        tree.put_record(path, Bytes::from_static(b"second")).await.unwrap();
        assert_eq!(tree.record(path).await.unwrap().unwrap(), "second");
    }
    let mut all: Vec<_> = tree.records().try_collect().await.unwrap();
    all.sort_unstable();
    paths.sort_unstable();
    assert_eq!(all, paths);
    paths.push(state);
    for _ in 0..2 {
        tree.remove_records(&paths).await.unwrap();
    }
    for path in &paths {
        assert_eq!(tree.record(path).await.unwrap(), None);
    }
    assert!(tree.records().next().await.is_none());
}

async fn states_are_listed_by_their_kind(tree: &dyn Tree) {
    let listed = async |kind| {
        let mut ids: Vec<_> = tree.states(kind).try_collect().await.unwrap();
        ids.sort_unstable();
        ids
    };
    assert!(listed("uploads").await.is_empty());
    let ids = ["0", "a.b_c-d", &"f".repeat(200)].map(|id| id.parse::<StateId>().unwrap());
    for id in &ids {
        tree.put_record(&RecordPath::State("runs", id.clone()), Bytes::from_static(b"durable")).await.unwrap();
        let path = RecordPath::State("uploads", id.clone());
        tree.note_record(&path, Bytes::from_static(b"first")).await.unwrap();
        tree.note_record(&path, Bytes::from_static(b"second")).await.unwrap();
        assert_eq!(tree.record(&path).await.unwrap().unwrap(), "second");
    }
    assert_eq!(listed("uploads").await, ids);
    assert!(tree.records().next().await.is_none(), "they are no repository's");
    for _ in 0..2 {
        tree.forget_record(&RecordPath::State("uploads", ids[0].clone())).await.unwrap();
    }
    assert_eq!(listed("uploads").await, ids[1..]);
    assert_eq!(listed("runs").await, ids);
}

#[test]
fn what_is_no_name_of_a_file_is_no_name_of_a_record() {
    for id in ["", ".", "..", ".hidden", "a/b", "A", "a b", "a\0", "ä", &"a".repeat(201)] {
        assert!(id.parse::<StateId>().is_err(), "{id:?}");
    }
}

#[tokio::test]
async fn the_tree_in_a_folder_keeps_the_contract() {
    for durability in [Durability::Strict, Durability::Relaxed] {
        let folder = tempfile::tempdir().unwrap();
        let tree = Filesystem::open(folder.path(), durability).unwrap();
        let spool = Spool::open(&folder.path().join("spool")).unwrap();
        bytes_are_published_and_removed(&tree, &spool).await;
        records_are_written_over_and_removed(&tree).await;
        states_are_listed_by_their_kind(&tree).await;
        assert_eq!(std::fs::read_dir(folder.path().join("spool/fills")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn the_tree_in_memory_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let tree = Memory::default();
    bytes_are_published_and_removed(&tree, &spool).await;
    records_are_written_over_and_removed(&tree).await;
    states_are_listed_by_their_kind(&tree).await;
}

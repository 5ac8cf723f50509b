use futures_util::TryStreamExt as _;

use crate::oci::RepositoryKey;

use super::*;

fn tag(name: &str) -> RecordPath {
    RecordPath::tag(&RepositoryKey::from_path("docker.io/a/b").unwrap(), &name.parse().unwrap())
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_no_absence() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Filesystem::open(folder.path(), Durability::Strict).unwrap();
    let tags = folder.path().join("repositories/docker.io/a/b/_tags");
    // A folder where a file is to be: neither root nor anybody else can read it as one.
    std::fs::create_dir_all(tags.join("v1")).unwrap();
    assert!(matches!(tree.record(&tag("v1")).await, Err(Error::Io { .. })));
    assert!(tree.put_record(&tag("v1"), Bytes::from_static(b"x")).await.is_err());
    assert_eq!(std::fs::read_dir(folder.path().join("spool/fills")).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn a_folder_that_somebody_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Filesystem::open(folder.path(), Durability::Strict).unwrap();
    tree.put_record(&tag("v1"), Bytes::from_static(b"x")).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("repositories/docker.io")).unwrap();
    tree.put_record(&tag("v1"), Bytes::from_static(b"x")).await.unwrap();
    assert!(tree.record(&tag("v1")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_walk_finds_everything_in_small_steps_and_passes_over_what_is_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Filesystem::open(folder.path(), Durability::Relaxed).unwrap();
    for n in 0..2500 {
        tree.put_record(&tag(&format!("v{n}")), Bytes::from_static(b"x")).await.unwrap();
    }
    std::fs::write(folder.path().join("repositories/docker.io/README"), "x").unwrap();
    let all: Vec<_> = tree.records().try_collect().await.unwrap();
    assert_eq!(all.len(), 2500);
}

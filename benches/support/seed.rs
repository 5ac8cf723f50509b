//! A store that is full before the server starts, filled through the one door that the server itself uses.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::clock::Clock;
use larder::config::Config;
use larder::config::store::Durability;
use larder::oci::Digest;
use larder::oci::Manifest;
use larder::oci::MediaType;
use larder::oci::RepositoryKey;
use larder::store::Origin;
use larder::store::Put;
use larder::store::Store;
use larder::store::StoreOptions;
use larder::tasks::Tasks;
use larder::telemetry::Metrics;

/// Manifests that one commit takes.
const BATCH: usize = 500;

/// Opens the store in `folder/data`, lets `work` fill it, and closes it in order.
pub fn fill(folder: &Path, durability: Durability, work: impl AsyncFnOnce(&Store)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut store = Config::default().store;
        store.path = folder.join("data");
        store.durability = durability;
        let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
        let options = StoreOptions { store, lease: Duration::ZERO };
        let opened = Store::open(options, Clock::system(), tasks.clone(), metrics).await.unwrap();
        work(&opened).await;
        opened.close().await.unwrap();
        tasks.stop().await;
        drop(opened);
        tokio::task::spawn_blocking(move || tasks.join_threads()).await.unwrap();
    });
}

pub fn key(path: &str) -> RepositoryKey {
    RepositoryKey::from_path(path).unwrap()
}

/// A blob of the repository.
pub async fn blob(store: &Store, of: &RepositoryKey, bytes: Vec<u8>) -> Digest {
    let digest = Digest::of(&bytes);
    let staged = store.spool().stage(Bytes::from(bytes), digest).await.unwrap();
    store.commit(of, Origin::Proxied, vec![Put::Blob(staged)]).await.unwrap();
    digest
}

/// The document of an image that names `layer` as its configuration and its one layer; `number` makes it another one.
pub fn document(layer: &Digest, size: usize, number: usize) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{layer}","size":{size}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{layer}","size":{size}}}],"annotations":{{"org.opencontainers.image.title":"{number:08}"}}}}"#,
        MediaType::OCI_MANIFEST
    )
}

/// `count` images in the repository, each with its own tag `v<number>`; they share one layer.
pub async fn images(store: &Store, of: &RepositoryKey, layer: &Digest, size: usize, count: usize) -> Vec<Digest> {
    let mut digests = Vec::with_capacity(count);
    let mut commits = tokio::task::JoinSet::new();
    for first in (0..count).step_by(BATCH) {
        let mut puts = Vec::new();
        for number in first..count.min(first + BATCH) {
            let manifest = Manifest::parse(document(layer, size, number).into(), MediaType::OCI_MANIFEST).unwrap();
            let (digest, media_type, bytes) = (manifest.digest(), manifest.media_type.clone(), manifest.size());
            let tag = format!("v{number}").parse().unwrap();
            puts.push(Put::Manifest { manifest, digest });
            puts.push(Put::Tag { tag, digest, media_type, size: bytes, pusher: None });
            digests.push(digest);
        }
        let (store, of) = (store.clone(), of.clone());
        commits.spawn(async move { store.commit(&of, Origin::Proxied, puts).await.unwrap() });
        if commits.len() >= 4 {
            commits.join_next().await;
        }
    }
    commits.join_all().await;
    digests
}

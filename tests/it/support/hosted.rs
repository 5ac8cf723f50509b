//! What lives here alone, put into a folder while no larder has it.

use std::path::Path;
use std::sync::Arc;

use larder::clock::Clock;
use larder::clock::Timestamp;
use larder::config::Config;
use larder::oci::Digest;
use larder::oci::Manifest;
use larder::oci::RegistryName;
use larder::oci::RepositoryKey;
use larder::store::Origin;
use larder::store::Put;
use larder::store::Store;
use larder::store::StoreOptions;
use larder::tasks::Tasks;
use larder::telemetry::Metrics;

use super::images::Image;

/// Puts images into hosted repositories: each with its repository and its tag; no tag where that is empty.
pub async fn put(data: &Path, images: &[(&str, &str, &Image)]) {
    let tasks = Tasks::new();
    let options = StoreOptions {
        store: larder::config::Store { path: data.to_owned(), ..Config::default().store },
        lease: std::time::Duration::from_secs(60),
    };
    let clock = Clock::manual(Timestamp(1_780_000_000_000));
    let store = Store::open(options, clock, tasks.clone(), Arc::new(Metrics::new())).await.unwrap();
    for (repository, tag, image) in images {
        let repository = RepositoryKey::new(RegistryName::hosted(), repository.parse().unwrap());
        put_one(&store, &repository, tag, image).await;
    }
    tasks.stop().await;
    store.close().await.unwrap();
    drop(store);
    tokio::task::spawn_blocking(move || tasks.join_threads()).await.unwrap();
}

async fn put_one(store: &Store, repository: &RepositoryKey, tag: &str, image: &Image) {
    for child in &image.children {
        Box::pin(put_one(store, repository, "", child)).await;
    }
    let mut puts = Vec::new();
    for (digest, bytes) in &image.blobs {
        puts.push(Put::Blob(store.spool().stage(bytes.clone().into(), *digest).await.unwrap()));
    }
    let manifest = Manifest::parse(image.manifest.clone().into(), &image.media_type).unwrap();
    let (digest, media_type, size) = (Digest::of(&image.manifest), manifest.media_type.clone(), manifest.size());
    puts.push(Put::Manifest { manifest, digest });
    if let Ok(tag) = tag.parse() {
        puts.push(Put::Tag { tag, digest, media_type, size, pusher: None });
    }
    store.commit(repository, Origin::Pushed, puts).await.unwrap();
}

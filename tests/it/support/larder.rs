//! larder in this process, with a folder and a clock of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use larder::clock::Clock;
use larder::clock::Timestamp;
use larder::config;
use larder::oci::Digest;
use larder::server::app;
use tokio_util::sync::CancellationToken;

use super::Answer;
use super::Upstream;
use super::client;

static PROVIDER: Once = Once::new();

pub struct Larder {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub clock: Clock,
    folder: tempfile::TempDir,
    data: std::path::PathBuf,
    config: String,
    stop: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Larder {
    /// larder in front of `upstream` as Docker Hub.
    pub async fn before(upstream: &Upstream) -> Self {
        Self::with(&format!(r#"{{"upstreams": {{"docker.io": {{"endpoints": ["{}"]}}}}}}"#, upstream.url())).await
    }

    /// larder before `upstream`, with more configuration: top-level keys, and keys of the upstream.
    pub async fn configured(upstream: &Upstream, more: &str, of_upstream: &str) -> Self {
        let upstreams =
            format!(r#""upstreams": {{"docker.io": {{"endpoints": ["{}"] {of_upstream}}}}}"#, upstream.url());
        Self::with(&format!("{{{upstreams} {more}}}")).await
    }

    /// larder before `upstream`, with its data in a folder of the caller's.
    pub async fn at(upstream: &Upstream, data: &Path) -> Self {
        let config = format!(r#"{{"upstreams": {{"docker.io": {{"endpoints": ["{}"]}}}}}}"#, upstream.url());
        Self::new(&config, tempfile::tempdir().unwrap(), data.to_owned()).await
    }

    /// The same, with more top-level configuration.
    pub async fn configured_at(upstream: &Upstream, data: &Path, more: &str) -> Self {
        let upstreams = format!(r#""upstreams": {{"docker.io": {{"endpoints": ["{}"]}}}}"#, upstream.url());
        Self::new(&format!("{{{upstreams} {more}}}"), tempfile::tempdir().unwrap(), data.to_owned()).await
    }

    /// The file of a stored blob.
    pub fn file_of(&self, digest: &Digest) -> std::path::PathBuf {
        let hex = digest.hex();
        let shard = hex.get(..2).unwrap();
        self.data().join(format!("blobs/sha256/{shard}/{hex}.0"))
    }

    /// Until `/readyz` says this.
    pub async fn says(&self, word: &str) {
        eventually(word, async || String::from_utf8_lossy(&self.get("/readyz").await.body).contains(word)).await;
    }

    /// larder with this configuration; addresses and folder are added to it.
    pub async fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::new(config, folder, data).await
    }

    async fn new(config: &str, folder: tempfile::TempDir, data: std::path::PathBuf) -> Self {
        let clock = Clock::manual(Timestamp(1_790_000_000_000));
        let mut larder = Self {
            address: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
            clock,
            folder,
            data,
            config: config.to_owned(),
            stop: CancellationToken::new(),
            running: None,
        };
        larder.start().await;
        larder
    }

    #[expect(clippy::disallowed_methods, reason = "the test holds the server by its handle")]
    pub async fn start(&mut self) {
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let mut document: serde_json::Value = serde_json::from_str(&self.config).unwrap();
        document["listen"] = "127.0.0.1:0".into();
        document["admin"] = serde_json::json!({"listen": "127.0.0.1:0"});
        if document["store"].is_null() {
            document["store"] = serde_json::json!({});
        }
        document["store"]["path"] = self.data().to_str().unwrap().into();
        let file = self.folder.path().join("larder.yaml");
        std::fs::write(&file, document.to_string()).unwrap();
        let sources = config::Sources { file: Some(file), ..config::Sources::default() };
        let loaded = config::load(&sources, &|_: &str| None).unwrap();
        let (_, current) = config::Reload::new(sources, |_| None, loaded);
        let app = app::build(current, None, self.clock.clone()).await.unwrap();
        self.address = app.registry[0];
        self.admin = app.admin;
        self.stop = CancellationToken::new();
        let stop = self.stop.clone();
        self.running = Some(tokio::spawn(async move { app.run(stop.cancelled_owned()).await.unwrap() }));
    }

    /// Stops in order, as by SIGTERM.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.data.clone()
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub async fn get(&self, path: &str) -> Answer {
        client::ask(self.address, "GET", path, &[("Accept", client::ACCEPT)], b"").await
    }

    pub async fn head(&self, path: &str) -> Answer {
        client::ask(self.address, "HEAD", path, &[("Accept", client::ACCEPT)], b"").await
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        client::ask(self.address, method, path, headers, b"").await
    }

    /// A request to the listener for whoever runs the server.
    pub async fn ask_admin(&self, method: &str, path: &str) -> Answer {
        client::ask(self.admin, method, path, &[], b"").await
    }

    pub async fn manifest(&self, repository: &str, reference: &str) -> Answer {
        self.get(&format!("/v2/{repository}/manifests/{reference}")).await
    }

    pub async fn blob(&self, repository: &str, digest: &Digest) -> Answer {
        self.get(&format!("/v2/{repository}/blobs/{digest}")).await
    }

    pub async fn ranged(&self, repository: &str, digest: &Digest, range: &str) -> Answer {
        self.ask("GET", &format!("/v2/{repository}/blobs/{digest}"), &[("Range", range)]).await
    }

    /// Waits until no transfer, look-up or commit is under way: until what clients asked for is in the store.
    pub async fn settled(&self) {
        eventually("no transfer is under way", async || {
            let metrics = client::ask(self.admin, "GET", "/metrics", &[], b"").await;
            let text = String::from_utf8_lossy(&metrics.body).into_owned();
            text.lines().filter(|l| l.starts_with("larder_fills{")).all(|l| l.ends_with(" 0"))
        })
        .await;
    }
}

/// Waits for a condition that the server brings about by itself; gives up after a while.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), wait).await.unwrap_or_else(|_| panic!("{what}: not within 90 s"));
}

/// The files below a folder.
pub fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|e| e.path()).flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

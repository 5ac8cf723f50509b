//! A scripted registry: a real server in this process that counts what it is asked, and can be slow, wrong or gone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use larder::oci::Digest;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::images::Image;

/// A request that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    pub fn is_blob(&self, digest: &Digest) -> bool {
        self.method == Method::GET && self.path.ends_with(&digest.to_string())
    }
}

/// What is done to an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This instead of the answer.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// Nothing more comes after so many bytes of the body, and the connection stays open.
    Stall(usize),
    /// The byte at this offset is wrong.
    Flip(usize),
    /// What follows the first so many bytes waits for a permit of the gate.
    Gate(usize, Arc<Semaphore>),
    /// No answer at all; the connection stays open.
    Silent,
}

type Script = Box<dyn Fn(&Seen) -> Option<Fault> + Send + Sync>;

#[derive(Default)]
struct Repository {
    tags: BTreeMap<String, String>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
    referrers: BTreeMap<String, Vec<serde_json::Value>>,
}

#[derive(Default)]
struct State {
    repositories: Mutex<BTreeMap<String, Repository>>,
    seen: Mutex<Vec<Seen>>,
    script: Mutex<Option<Script>>,
    no_referrers: std::sync::atomic::AtomicBool,
}

/// The registry; it is gone when it is dropped.
pub struct Upstream {
    state: Arc<State>,
    address: std::net::SocketAddr,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (state, address) = (Arc::new(State::default()), listener.local_addr().unwrap());
        let server = Some(serve(listener, Arc::clone(&state)));
        Self { state, address, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Gone: nothing listens, and open connections break.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Back at the same address.
    pub async fn restart(&mut self) {
        self.stop().await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.server = Some(serve(socket.listen(512).unwrap(), Arc::clone(&self.state)));
    }

    pub fn add(&self, repository: &str, tag: &str, image: &Image) {
        let mut repositories = self.state.repositories.lock().unwrap();
        let held = repositories.entry(repository.into()).or_default();
        if !tag.is_empty() {
            held.tags.insert(tag.into(), image.digest.to_string());
        }
        put(held, image);
    }

    pub fn remove_tag(&self, repository: &str, tag: &str) {
        self.state.repositories.lock().unwrap().get_mut(repository).unwrap().tags.remove(tag);
    }

    pub fn remove_repository(&self, repository: &str) {
        self.state.repositories.lock().unwrap().remove(repository);
    }

    pub fn has_no_referrers_api(&self) {
        self.state.no_referrers.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// What is done to the answers from now on.
    pub fn script(&self, script: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Some(Box::new(script));
    }

    /// The fault strikes the first request that matches, and no other.
    pub fn script_once(&self, matches: impl Fn(&Seen) -> bool + Send + Sync + 'static, fault: Fault) {
        let left = Mutex::new(Some(fault));
        self.script(move |seen| if matches(seen) { left.lock().unwrap().take() } else { None });
    }

    pub fn unscript(&self) {
        *self.state.script.lock().unwrap() = None;
    }

    /// What was asked so far, the version check left out.
    pub fn asked(&self, matches: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        self.state.seen.lock().unwrap().iter().filter(|s| s.path != "/v2/" && matches(s)).cloned().collect()
    }

    pub fn asked_anything(&self) -> usize {
        self.asked(|_| true).len()
    }

    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn put(held: &mut Repository, image: &Image) {
    held.manifests.insert(image.digest.to_string(), (image.media_type.clone(), image.manifest.clone()));
    for (digest, blob) in &image.blobs {
        held.blobs.insert(digest.to_string(), blob.clone());
    }
    for child in &image.children {
        put(held, child);
    }
    let document: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap_or_default();
    if let Some(subject) = document["subject"]["digest"].as_str() {
        held.referrers.entry(subject.into()).or_default().push(serde_json::json!({
            "mediaType": image.media_type, "digest": image.digest.to_string(), "size": image.manifest.len(),
            "artifactType": document["artifactType"], "annotations": document["annotations"],
        }));
    }
}

#[expect(clippy::disallowed_methods, reason = "the scripted upstream is no part of larder")]
fn serve(listener: TcpListener, state: Arc<State>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        // Dropped with this task: so an upstream that is stopped breaks its connections.
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let state = Arc::clone(&state);
            connections.spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    })
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let seen = Seen {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: request.headers().clone(),
    };
    state.seen.lock().unwrap().push(seen.clone());
    let fault = state.script.lock().unwrap().as_ref().and_then(|script| script(&seen));
    if let Some(Fault::Answer(status, headers, body)) = fault {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        return Ok(response.body(whole(body)).unwrap());
    }
    if let Some(Fault::Silent) = fault {
        std::future::pending::<()>().await;
    }
    let (status, headers, content) = look_up(&state, &seen);
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let response = response.header("Content-Length", content.len());
    let body = if seen.method == Method::HEAD { whole(Vec::new()) } else { faulty(content, fault) };
    Ok(response.body(body).unwrap())
}

type Answer = (StatusCode, Vec<(&'static str, String)>, Vec<u8>);

fn refused(status: StatusCode, code: &str) -> Answer {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{code}"}}]}}"#);
    (status, vec![("Content-Type", "application/json".into())], body.into_bytes())
}

fn look_up(state: &State, seen: &Seen) -> Answer {
    if seen.path == "/v2/" {
        return (StatusCode::OK, vec![("Docker-Distribution-API-Version", "registry/2.0".into())], b"{}".to_vec());
    }
    let parts: Vec<&str> = seen.path.trim_start_matches("/v2/").rsplitn(3, '/').collect();
    let [reference, verb, name] = parts[..] else { return refused(StatusCode::NOT_FOUND, "UNSUPPORTED") };
    let repositories = state.repositories.lock().unwrap();
    let Some(held) = repositories.get(name) else { return refused(StatusCode::NOT_FOUND, "NAME_UNKNOWN") };
    match verb {
        "manifests" => {
            let digest = held.tags.get(reference).map_or(reference, String::as_str);
            let Some((media_type, bytes)) = held.manifests.get(digest) else {
                return refused(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
            };
            let headers = vec![("Content-Type", media_type.clone()), ("Docker-Content-Digest", digest.to_owned())];
            (StatusCode::OK, headers, bytes.clone())
        }
        "blobs" => match held.blobs.get(reference) {
            Some(bytes) => ranged(reference, bytes, seen.header("range")),
            None => refused(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
        },
        "tags" => {
            let tags: Vec<&String> = held.tags.keys().collect();
            let body = serde_json::json!({"name": name, "tags": tags}).to_string();
            (StatusCode::OK, vec![("Content-Type", "application/json".into())], body.into_bytes())
        }
        "referrers" if !state.no_referrers.load(std::sync::atomic::Ordering::SeqCst) => {
            let listed = held.referrers.get(reference).cloned().unwrap_or_default();
            let index = "application/vnd.oci.image.index.v1+json";
            let body = serde_json::json!({"schemaVersion": 2, "mediaType": index, "manifests": listed}).to_string();
            (StatusCode::OK, vec![("Content-Type", index.into())], body.into_bytes())
        }
        _ => refused(StatusCode::NOT_FOUND, "UNSUPPORTED"),
    }
}

fn ranged(digest: &str, bytes: &[u8], range: &str) -> Answer {
    let mut headers = vec![
        ("Content-Type", "application/octet-stream".to_owned()),
        ("Docker-Content-Digest", digest.to_owned()),
        ("Accept-Ranges", "bytes".to_owned()),
        ("ETag", format!("\"{digest}\"")),
    ];
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return (StatusCode::OK, headers, bytes.to_vec());
    };
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(usize::MAX).min(bytes.len() - 1);
    headers.push(("Content-Range", format!("bytes {first}-{last}/{}", bytes.len())));
    (StatusCode::PARTIAL_CONTENT, headers, bytes[first..=last].to_vec())
}

fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

/// The body in parts, with what the fault does to it.
fn faulty(mut content: Vec<u8>, fault: Option<Fault>) -> Body {
    let (at, then) = match fault {
        None | Some(Fault::Answer(..) | Fault::Silent) => return whole(content),
        Some(Fault::Flip(at)) => {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= 1;
            }
            return whole(content);
        }
        Some(Fault::Cut(at)) => (at, Then::Break),
        Some(Fault::Stall(at)) => (at, Then::Stall),
        Some(Fault::Gate(at, gate)) => (at, Then::Wait(gate)),
    };
    let rest = content.split_off(at.min(content.len()));
    let stream = futures_util::stream::unfold((Some(content), Some(rest), then), |(first, rest, then)| async move {
        if let Some(first) = first {
            return Some((Ok(Frame::data(Bytes::from(first))), (None, rest, then)));
        }
        let rest = rest?;
        match &then {
            // The first part is on its way before the connection breaks.
            Then::Break => Some((Err(std::io::Error::other("cut on purpose")), (None, None, then))),
            Then::Stall => std::future::pending().await,
            Then::Wait(gate) => {
                gate.acquire().await.unwrap().forget();
                Some((Ok(Frame::data(Bytes::from(rest))), (None, None, then)))
            }
        }
    });
    BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(stream)))))
}

enum Then {
    Break,
    Stall,
    Wait(Arc<Semaphore>),
}

/// `BoxBody` wants `Sync`; nobody polls it from two places.
struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().unwrap().as_mut().poll_next(cx)
    }
}

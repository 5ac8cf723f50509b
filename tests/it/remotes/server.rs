//! A scripted registry of one dialect: a real server that knows what is documented and nothing else. A request that the
//! documentation does not have fails the test when the server is dropped.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use larder::clock::Clock;
use larder::config;
use larder::config::retention::Adapter;
use larder::events::Events;
use larder::net::Trust;
use larder::retention::remote;
use larder::retention::remote::Remote;
use larder::tasks::Tasks;
use larder::telemetry::Metrics;
use larder::upstream::Deps;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::model::Model;

/// A request that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// As it was sent, percent-encoded.
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The path's parts, decoded.
    pub fn parts(&self) -> Vec<String> {
        let decode = |part: &str| percent(part);
        self.path.trim_matches('/').split('/').map(decode).collect()
    }

    pub fn line(&self) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        format!("{} {}{query}", self.method, self.path)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::empty(status).with("content-type", "application/json").body(body.to_string())
    }

    /// An error as the specification writes it.
    pub fn error(status: u16, code: &str) -> Self {
        Self::json(status, &serde_json::json!({"errors": [{"code": code, "message": code}]}))
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// How a dialect answers: none where it does not know such a request.
pub type Front = fn(&mut Model, &Seen, &str) -> Option<Reply>;

type Script = Box<dyn Fn(&Seen) -> Option<Reply> + Send + Sync>;

struct State {
    model: Mutex<Model>,
    front: Front,
    seen: Mutex<Vec<Seen>>,
    script: Mutex<Option<Script>>,
    unexpected: Mutex<Vec<String>>,
    base: String,
}

/// The registry; it is gone when it is dropped.
pub struct Server {
    state: Arc<State>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(front: Front) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            model: Mutex::default(),
            front,
            seen: Mutex::default(),
            script: Mutex::default(),
            unexpected: Mutex::default(),
            base: format!("http://{address}"),
        });
        let task = serve(listener, Arc::clone(&state));
        Self { state, address, task }
    }

    pub fn url(&self) -> String {
        self.state.base.clone()
    }

    /// Looks at what it has, or changes it.
    pub fn model<T>(&self, with: impl FnOnce(&mut Model) -> T) -> T {
        with(&mut self.state.model.lock().unwrap())
    }

    /// What is answered instead from now on, where the script says something.
    pub fn script(&self, script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Some(Box::new(script));
    }

    pub fn unscript(&self) {
        *self.state.script.lock().unwrap() = None;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
    }

    /// The requests that would delete something, as lines.
    pub fn deletes(&self) -> Vec<String> {
        let is_delete =
            |seen: &&Seen| seen.method == Method::DELETE || seen.header("x-amz-target").ends_with(".BatchDeleteImage");
        self.seen().iter().filter(is_delete).map(Seen::line).collect()
    }

    /// The configuration of a remote that is at this server, with nothing else.
    pub fn config(&self, adapter: Adapter) -> config::retention::Remote {
        let url: url::Url = self.url().parse().unwrap();
        let mut remote = config::retention::Remote::of(adapter);
        remote.endpoint = Some(url.clone());
        remote.api = (adapter != Adapter::Oci).then_some(url);
        remote.credential = Some(config::upstream::Credential::Basic {
            username: super::USER.to_owned(),
            password: config::Secret::new(super::PASSWORD),
        });
        remote
    }

    /// The adapter, as the program opens it.
    pub fn open(&self, adapter: Adapter) -> Arc<dyn Remote> {
        let host = match adapter {
            Adapter::Ecr => super::ecr::HOST,
            Adapter::Gar => super::gar::HOST,
            _ => super::HOST,
        };
        open(host, &self.config(adapter))
    }
}

/// Opens a remote as the program does.
pub fn open(host: &str, config: &config::retention::Remote) -> Arc<dyn Remote> {
    let (metrics, events) = (Arc::new(Metrics::new()), Events::new(16, Arc::new(|_| ())));
    let deps = Deps { clock: Clock::system(), metrics, tasks: Tasks::new(), events, trust: Trust::nobody() };
    remote::open(host, config, None, &deps).unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let unexpected = self.state.unexpected.lock().unwrap();
        if !std::thread::panicking() {
            assert!(unexpected.is_empty(), "at {}: no such request is documented: {unexpected:#?}", self.address);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the scripted registry is no part of larder")]
fn serve(listener: TcpListener, state: Arc<State>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let _ = stream.set_nodelay(true);
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

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let seen = Seen {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
    };
    state.seen.lock().unwrap().push(seen.clone());
    let scripted = state.script.lock().unwrap().as_ref().and_then(|script| script(&seen));
    let reply = scripted.unwrap_or_else(|| {
        let known = (state.front)(&mut state.model.lock().unwrap(), &seen, &state.base);
        known.unwrap_or_else(|| {
            state.unexpected.lock().unwrap().push(seen.line());
            Reply::error(500, "UNEXPECTED")
        })
    });
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let body = if seen.method == Method::HEAD {
        response = response.header("content-length", reply.body.len());
        Bytes::new()
    } else {
        Bytes::from(reply.body)
    };
    Ok(response.body(Full::new(body)).unwrap())
}

/// Decodes `%2F` and its like, once.
pub fn percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap()
}

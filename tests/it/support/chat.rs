//! A chat that takes messages by POST: it remembers them, and answers as it is told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

#[derive(Default)]
struct State {
    taken: Mutex<Vec<(String, serde_json::Value)>>,
    answers: Mutex<VecDeque<u16>>,
    gate: Mutex<Option<Arc<Semaphore>>>,
}

pub struct Chat {
    state: Arc<State>,
    address: std::net::SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Chat {
    #[expect(clippy::disallowed_methods, reason = "the chat is no part of larder")]
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(State::default()));
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let stream = TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                });
            }
        });
        Self { state, address, server }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The statuses of the next answers, with `Retry-After: 0` where they are faults; after them 200.
    pub fn answers(&self, statuses: &[u16]) {
        self.state.answers.lock().unwrap().extend(statuses);
    }

    /// From now on each answer waits for a permit.
    pub fn gated(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.state.gate.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    /// What came: path and document.
    pub fn taken(&self) -> Vec<(String, serde_json::Value)> {
        self.state.taken.lock().unwrap().clone()
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    assert_eq!(
        (request.method().as_str(), &request.headers()["content-type"]),
        ("POST", &"application/json".parse().unwrap())
    );
    let body = request.into_body().collect().await.unwrap().to_bytes();
    state.taken.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap()));
    let gate = state.gate.lock().unwrap().clone();
    if let Some(gate) = gate {
        gate.acquire().await.unwrap().forget();
    }
    let status = state.answers.lock().unwrap().pop_front().unwrap_or(200);
    Ok(Response::builder().status(status).header("Retry-After", "0").body(Full::default()).unwrap())
}

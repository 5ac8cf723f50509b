//! The sockets: accepting, TLS, HTTP/1.1 and HTTP/2, time-outs, limits, and an orderly end.
//!
//! What is answered is not decided here: a [`Service`] does that. Listeners, time and shutdown are arguments.

pub mod app;
mod connection;
mod head;
mod listener;
mod sending;
mod shutdown;
mod tls;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use crate::api::Api;
use crate::api::Body;
use crate::api::Door;
use crate::api::Peer;
use crate::config;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

pub use listener::Error as ListenError;
pub use listener::bind;
pub use listener::files_allowed;
pub use shutdown::Shutdown;
pub use tls::Certificates;
pub use tls::Error as TlsError;

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one. What it does not read of the body is thrown away, or the connection closes after the answer.
    fn answer(&self, peer: Peer, head: Parts, body: &mut Incoming) -> impl Future<Output = Response<Body>> + Send;
}

/// The API behind one kind of listener.
#[derive(Debug)]
pub struct Site {
    /// What answers.
    pub api: Arc<Api>,
    /// For whom.
    pub door: Door,
}

impl Service for Site {
    async fn answer(&self, peer: Peer, head: Parts, body: &mut Incoming) -> Response<Body> {
        self.api.serve(self.door, peer, head, body).await
    }
}

/// A socket, and what stands behind it.
#[derive(Debug)]
pub struct Listener<S> {
    /// Bound and listening.
    pub socket: TcpListener,
    /// With a certificate it speaks TLS only.
    pub tls: Option<Arc<Certificates>>,
    /// Who answers.
    pub service: Arc<S>,
    /// Connections that may be open; several listeners may share them.
    pub places: Arc<Semaphore>,
}

/// What all connections have in common.
#[derive(Debug)]
struct Common {
    limits: config::Limits,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    open: AtomicUsize,
}

/// One open connection: counted while this lives.
#[derive(Debug)]
struct Open {
    common: Arc<Common>,
    /// Closed when the last connection is gone.
    _alive: mpsc::Sender<Infallible>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Open {
    fn new(common: &Arc<Common>, alive: &mpsc::Sender<Infallible>, place: tokio::sync::OwnedSemaphorePermit) -> Self {
        common.open.fetch_add(1, Ordering::Relaxed);
        common.metrics.connections(1);
        Self { common: Arc::clone(common), _alive: alive.clone(), _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.common.open.fetch_sub(1, Ordering::Relaxed);
        self.common.metrics.connections(-1);
    }
}

/// Serves until `shutdown` asks for the end; then the listeners close, transfers go on for at most `drain`, and what
/// is left is cut. Says how many connections were cut.
pub async fn run<S: Service>(
    listeners: Vec<Listener<S>>,
    limits: &config::Limits,
    drain: Duration,
    tasks: &Tasks,
    metrics: &Arc<Metrics>,
    shutdown: &Shutdown,
) -> usize {
    let common = Arc::new(Common {
        limits: limits.clone(),
        tasks: tasks.clone(),
        metrics: Arc::clone(metrics),
        shutdown: shutdown.clone(),
        open: AtomicUsize::new(0),
    });
    let (alive, mut gone) = mpsc::channel(1);
    let accepting = listeners.into_iter().map(|listener| listener::accept(listener, &common, &alive));
    join_all(accepting).await;
    drop(alive);
    tokio::select! {
        _ = gone.recv() => return 0,
        () = tokio::time::sleep(drain) => {}
        () = shutdown.at_once() => {}
    }
    let cut = common.open.load(Ordering::Relaxed);
    shutdown.cut();
    gone.recv().await;
    cut
}

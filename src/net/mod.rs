//! The one outbound HTTP client.
//!
//! Nothing else in the program opens a connection to somebody else. It resolves or parses a host, checks every address
//! against a [`Policy`], dials the checked one, speaks TLS, goes through a proxy where one is configured, and keeps idle
//! connections. It follows no redirect and knows no credential: what may be sent where is its caller's business.
//!
//! HTTP/1.1 only: layers are large, and one connection each moves them faster than streams that share one window.

pub mod address;
mod connector;
mod error;
pub mod fetch;
pub mod proxy;
pub mod tls;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;
use tokio::time::timeout_at;

use connector::Connector;

pub use address::Policy;
pub use error::Error;
pub use fetch::Fetch;
pub use fetch::FetchSettings;
pub use proxy::Proxies;
pub use tls::Trust;

/// How long an idle connection is kept; shorter than what registries keep theirs, so that it is not found closed.
const IDLE: Duration = Duration::from_secs(30);

/// What a client is made of.
#[derive(Debug)]
pub struct Options {
    /// Where it may connect to.
    pub policy: Policy,
    /// Whom it trusts.
    pub trust: Trust,
    /// Which proxies it uses.
    pub proxies: Proxies,
    /// From the look-up of a name to an open connection, TLS included.
    pub connect: Duration,
    /// Idle connections kept for each host.
    pub idle: usize,
}

/// An HTTP client with connections of its own.
#[derive(Clone, Debug)]
pub struct Client {
    pool: legacy::Client<Connector, Full<Bytes>>,
    proxies: Proxies,
}

impl Client {
    /// A client that has asked nobody yet.
    pub fn new(options: Options) -> Self {
        let Options { policy, trust, proxies, connect, idle } = options;
        let connector = Connector::new(policy, trust, proxies.clone(), connect);
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(idle)
            .build(connector);
        Self { pool, proxies }
    }

    /// Sends a request and waits, at most until `deadline`, for the headers of its answer.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Error> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        self.proxies.authorize(&mut request);
        match timeout_at(deadline, self.pool.request(request)).await {
            Ok(answer) => answer.map_err(|error| Error::from_client(&host, error)),
            Err(_) => Err(Error::Headers { host }),
        }
    }
}

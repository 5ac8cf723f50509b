//! Why a request got no answer, told apart.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use hyper_util::client::legacy;

/// A request got no answer. Its text names hosts, never a path, a query or a credential.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("resolving {host}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Nobody answers there.
    #[error("connecting to {host}")]
    Connect {
        /// Whom.
        host: String,
        /// What went wrong last.
        #[source]
        source: Arc<io::Error>,
    },
    /// No connection came about in time.
    #[error("connecting to {host} took too long")]
    ConnectTimeout {
        /// Whom.
        host: String,
    },
    /// TLS failed.
    #[error("agreeing on TLS with {host}")]
    Tls {
        /// Whom.
        host: String,
        /// What was wrong.
        #[source]
        source: Arc<io::Error>,
    },
    /// The proxy could not be used.
    #[error("connecting to {host} through the proxy {proxy}")]
    Proxy {
        /// Whom.
        host: String,
        /// The proxy, without user and password.
        proxy: String,
        /// What was wrong.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The address is not one that may be connected to.
    #[error("{host} is at {address}, which is private and not named by `may_connect_to`")]
    Address {
        /// Whom.
        host: String,
        /// Where it is.
        address: IpAddr,
    },
    /// No headers came in time.
    #[error("{host} did not answer in time")]
    Headers {
        /// Who.
        host: String,
    },
    /// The connection broke before the answer's headers, or they make no sense.
    #[error("asking {host}")]
    Exchange {
        /// Whom.
        host: String,
        /// What was wrong.
        #[source]
        source: Arc<legacy::Error>,
    },
}

impl Error {
    /// What the pool gave back: the connector's own error, or one of the exchange.
    pub(super) fn from_client(host: &str, error: legacy::Error) -> Self {
        let mut cause = error.source();
        while let Some(found) = cause {
            if let Some(ours) = found.downcast_ref::<Self>() {
                return ours.clone();
            }
            cause = found.source();
        }
        Self::Exchange { host: host.to_owned(), source: Arc::new(error) }
    }
}

//! What a call can end in: whose fault it was, and whether to try again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::net;

/// A call to an upstream failed. Cheap to clone: many clients wait for one call.
///
/// Its text names hosts and paths, never a credential or the query of a URL.
#[derive(Clone)]
pub struct Error {
    fault: Fault,
    message: Arc<str>,
    retry_after: Option<Duration>,
    was_asked: bool,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// There was no connection to ask over.
    NoConnection(NoConnection),
    /// No answer came in time.
    TimedOut,
    /// It answered with this status, a 5xx or one that makes no sense.
    Status(u16),
    /// It said 429, or its budget is kept for somebody more important.
    RateLimited,
    /// It answered with something that can't be used: HTML, another type, a token or a page that is no JSON, a realm or a
    /// redirect that must not be followed, too many bytes.
    Unusable,
    /// It answered 401 or 403 to a valid token.
    Denied,
    /// Its token service refused our own credential, or the credential could not be had.
    CredentialRefused,
    /// The configuration does not allow this repository.
    NotAllowed,
    /// The body was cut or stalled. Concerns that transfer alone.
    Broken,
    /// A name, a realm or a redirect led to an address that must not be connected to.
    AddressRefused,
}

/// Why there was no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoConnection {
    /// The name has no address.
    Dns,
    /// Nobody answered at the address, or the connection broke before the answer.
    Connect,
    /// TLS failed: an unknown authority, another name.
    Tls,
    /// The proxy refused or failed.
    Proxy,
    /// The circuit is open: it failed a moment ago and was not asked again.
    CircuitOpen,
    /// All connections were busy for too long.
    Overloaded,
}

impl Fault {
    /// Whose fault it is that there was no answer.
    pub fn of_net(error: &net::Error) -> Self {
        match error {
            net::Error::Dns { .. } => Self::NoConnection(NoConnection::Dns),
            net::Error::Connect { .. } | net::Error::Exchange { .. } => Self::NoConnection(NoConnection::Connect),
            net::Error::Tls { .. } => Self::NoConnection(NoConnection::Tls),
            net::Error::Proxy { .. } => Self::NoConnection(NoConnection::Proxy),
            net::Error::ConnectTimeout { .. } | net::Error::Headers { .. } => Self::TimedOut,
            net::Error::Address { .. } => Self::AddressRefused,
        }
    }
}

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same question gets the same answer.
    No,
    /// At once, with what was received so far kept.
    Now,
    /// Not before so long.
    After(Duration),
}

impl Error {
    /// A fault, with a sentence saying what was being done to what.
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into().into(), retry_after: None, was_asked: true, source: None }
    }

    /// With what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// With the time after which the upstream wants to be asked again.
    #[must_use]
    pub fn after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Said for the upstream, which was not asked: it failed or refused a moment ago.
    #[must_use]
    pub fn unasked(mut self) -> Self {
        self.was_asked = false;
        self
    }

    /// Whether the upstream was asked.
    pub fn was_asked(&self) -> bool {
        self.was_asked
            && !matches!(self.fault, Fault::NoConnection(NoConnection::CircuitOpen | NoConnection::Overloaded))
    }

    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// When to ask again, where the upstream or the circuit says so. Not jittered, not rounded.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match (self.fault, self.retry_after) {
            (
                Fault::Unusable
                | Fault::Denied
                | Fault::CredentialRefused
                | Fault::NotAllowed
                | Fault::AddressRefused
                | Fault::NoConnection(NoConnection::Tls),
                _,
            ) => Retry::No,
            (_, Some(after)) => Retry::After(after),
            (Fault::RateLimited, None) => Retry::After(Duration::from_mins(1)),
            (Fault::NoConnection(NoConnection::CircuitOpen), None) => Retry::After(Duration::from_secs(5)),
            (Fault::NoConnection(_) | Fault::TimedOut | Fault::Status(_) | Fault::Broken, None) => Retry::Now,
        }
    }

    /// Whether the upstream could not be asked or gave no usable answer, so that a stale copy may be served. A refusal is
    /// an answer: it never is.
    pub fn is_unavailable(&self) -> bool {
        match self.fault {
            Fault::NoConnection(_)
            | Fault::TimedOut
            | Fault::Status(_)
            | Fault::RateLimited
            | Fault::Unusable
            | Fault::CredentialRefused
            | Fault::Broken
            | Fault::AddressRefused => true,
            Fault::Denied | Fault::NotAllowed => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.fault, self.message)?;
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_an_answer_and_everything_else_is_none() {
        for (fault, want) in [
            (Fault::NoConnection(NoConnection::Dns), true),
            (Fault::TimedOut, true),
            (Fault::Status(503), true),
            (Fault::RateLimited, true),
            (Fault::Unusable, true),
            (Fault::CredentialRefused, true),
            (Fault::AddressRefused, true),
            (Fault::Denied, false),
            (Fault::NotAllowed, false),
        ] {
            assert_eq!(Error::new(fault, "x").is_unavailable(), want, "{fault:?}");
        }
    }

    #[test]
    fn causes_are_told() {
        let cause = std::io::Error::other("no route");
        let error = Error::new(Fault::NoConnection(NoConnection::Connect), "connecting to a.test").caused_by(cause);
        assert_eq!(format!("{error:?}"), "NoConnection(Connect): connecting to a.test: no route");
    }
}

//! Who is asking.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::Credentials;

/// What is known of a request's sender before anything was checked.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What it sent as `Authorization`, parsed.
    pub credentials: Option<Credentials>,
    /// Where it connects from.
    pub address: IpAddr,
    /// Whether it sent an `Origin` header, as pages in browsers do and registry clients do not.
    pub origin_header: bool,
}

/// Who a request was found to come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody in particular: no credential, or one that means nothing here.
    Anonymous,
    /// A user of the htpasswd file.
    User(Arc<str>),
    /// Our own work in the background, by its name.
    Job(&'static str),
}

impl Principal {
    /// Whether a credential told who it is.
    pub fn is_authenticated(&self) -> bool {
        matches!(self, Self::User(_))
    }
}

/// `anonymous`, the user's name, `job:<name>`: for logs and the pusher in records.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => f.write_str(name),
            Self::Job(name) => write!(f, "job:{name}"),
        }
    }
}

//! Small documents over HTTP: the APIs of forges and registries, and what is delivered to a chat.
//!
//! One request, one answer, read whole and bounded. Nothing is tried again, no redirect is followed and no cookie kept: what
//! an answer means, and what may be sent where it leads, is its caller's to decide. Nothing is asked to be encoded.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use ipnet::IpNet;
use tokio::time::Instant;
use tokio::time::timeout_at;
use url::Url;

use crate::clock::Timestamp;
use crate::config::Contents;
use crate::config::upstream::Proxy;

use super::Client;
use super::Options;
use super::Policy;
use super::Proxies;
use super::Trust;
use super::tls;

/// How we call ourselves.
const USER_AGENT: &str = concat!("larder/", env!("CARGO_PKG_VERSION"));

/// Idle connections that are kept to a host: documents are asked for one after the other.
const IDLE: usize = 4;

/// The longest that a server's own word is taken for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Where documents come from, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// The URLs that the configuration names: exactly their scheme, host and port may have whatever address they have.
    pub written: Vec<Url>,
    /// Private addresses that other hosts may have: of redirects that the caller follows, of pages that an answer names.
    pub may_connect_to: Vec<IpNet>,
    /// Certificates that are trusted besides the usual ones.
    pub ca_file: Option<Contents>,
    /// The proxy that leads there; none: what the environment says.
    pub proxy: Option<Proxy>,
    /// From the look-up of a name to an open connection.
    pub connect: Duration,
    /// From the request to the last byte of its answer.
    pub timeout: Duration,
    /// Bytes of an answer's body; a longer one is an error, never a part.
    pub body_max: u64,
}

/// Asks for documents. Cheap to clone; connections are shared.
#[derive(Clone, Debug)]
pub struct Fetch {
    client: Client,
    timeout: Duration,
    body_max: u64,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

/// No usable answer came. The texts name hosts, never a path, a query or a credential.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The `ca_file` can't be used.
    #[error("the ca_file {path} can't be used")]
    Certificates {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: Arc<tls::Error>,
    },
    /// The proxy can't be used.
    #[error("the proxy can't be used; write one like http://proxy.example.com:3128")]
    Proxy,
    /// There was no answer.
    #[error(transparent)]
    Net(#[from] super::Error),
    /// The answer did not come to its end in time.
    #[error("the answer of {host} took longer than {seconds} s")]
    Late {
        /// Whose.
        host: String,
        /// The limit.
        seconds: u64,
    },
    /// The answer is larger than is read.
    #[error("the answer of {host} is larger than {max} bytes")]
    Large {
        /// Whose.
        host: String,
        /// The limit.
        max: u64,
    },
    /// The answer broke off.
    #[error("reading the answer of {host}")]
    Broken {
        /// Whose.
        host: String,
        /// Why.
        #[source]
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The answer has a coding that was not asked for.
    #[error("the answer of {host} has a content encoding that was not asked for")]
    Encoded {
        /// Whose.
        host: String,
    },
}

impl Fetch {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// The `ca_file` or the proxy can't be used.
    pub fn new(trust: &Trust, settings: FetchSettings) -> Result<Self, Error> {
        let FetchSettings { written, may_connect_to, ca_file, proxy, connect, timeout, body_max } = settings;
        let trust = match &ca_file {
            None => trust.clone(),
            Some(file) => trust.with(&file.bytes).map_err(|error| Error::Certificates {
                path: file.path.display().to_string(),
                source: Arc::new(error),
            })?,
        };
        let proxies = Proxies::configured(proxy.as_ref()).ok_or(Error::Proxy)?;
        let policy = Policy::new(&written, &may_connect_to);
        let client = Client::new(Options { policy, trust, proxies, connect, idle: IDLE });
        Ok(Self { client, timeout, body_max })
    }

    /// Sends a request with an absolute URL, and reads its answer whole. An answer of any status is an answer.
    ///
    /// # Errors
    /// There was none, or it is late, broken, too large, or encoded though that was not asked for.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Answer, Error> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let deadline = Instant::now() + self.timeout;
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let (head, body) = self.client.send(request, deadline).await?.into_parts();
        let large = || Error::Large { host: host.clone(), max: self.body_max };
        if hyper::body::Body::size_hint(&body).lower() > self.body_max {
            return Err(large());
        }
        let limited = Limited::new(body, usize::try_from(self.body_max).unwrap_or(usize::MAX));
        let Ok(read) = timeout_at(deadline, limited.collect()).await else {
            return Err(Error::Late { host, seconds: self.timeout.as_secs() });
        };
        let body = match read {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(large()),
            Err(error) => return Err(Error::Broken { host, source: Arc::from(error) }),
        };
        if is_encoded(&head.headers) && !body.is_empty() {
            return Err(Error::Encoded { host });
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// When to ask again, where the answer says so.
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        retry_after(&self.headers, now)
    }

    /// The target of the `Link` header with this relation (RFC 8288), as it stands there: absolute or relative.
    pub fn link(&self, relation: &str) -> Option<&str> {
        link(&self.headers, relation)
    }
}

/// Whether a body comes in a coding other than its own.
pub fn is_encoded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// `Retry-After`, as seconds or as a date (RFC 9110, 10.2.3); an hour at most.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(Duration::from_millis(now.0)).min(RETRY_AFTER_MAX))
}

/// The target of the `Link` header with this relation (RFC 8288), as it stands there.
pub fn link<'a>(headers: &'a HeaderMap, relation: &str) -> Option<&'a str> {
    let mut lines = headers.get_all(header::LINK).into_iter().filter_map(|line| line.to_str().ok());
    lines.find_map(|line| link_of(line, relation))
}

/// `<https://a/?page=2>; rel="next", <…>; rel="last"`.
fn link_of<'a>(line: &'a str, relation: &str) -> Option<&'a str> {
    let mut rest = line;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        // Parameters go up to the next target; none that is served has a `<` in them.
        let parameters = after.split('<').next().unwrap_or(after);
        let is_it = parameters.split([';', ',']).any(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else { return false };
            let words = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && words.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case(relation))
        });
        if is_it {
            return Some(target);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests;

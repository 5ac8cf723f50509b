//! The account of one request: what is counted and logged when its answer is done with.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use http::Method;
use http::header;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::access::Principal;
use crate::body::Tally;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::telemetry::Metrics;

/// The longest name of a client's program that is logged.
const CLIENT_BYTES_MAX: usize = 32;

/// What is known of a request.
#[derive(Debug)]
pub(super) struct Account {
    metrics: Arc<Metrics>,
    pub(super) route: &'static str,
    method: &'static str,
    address: IpAddr,
    client: Option<Box<str>>,
    began: Instant,
    /// The repository, once it is found.
    pub(super) repository: Option<RepositoryKey>,
    /// The tag or digest.
    pub(super) reference: Option<Reference>,
    /// The host that the client named by `ns`.
    pub(super) namespace: Option<String>,
    /// Who it came from.
    pub(super) principal: Option<Principal>,
    /// The word of `Cache-Status`.
    pub(super) cache: &'static str,
    /// Why it failed, for the log.
    pub(super) cause: Option<String>,
    status: u16,
    seconds: f64,
    /// Bytes of the body that were taken.
    bytes: AtomicU64,
    /// Bytes of files that the connection will send by itself and did not yet.
    to_come: AtomicU64,
    /// Whether every byte of the body was asked for. Else the client went away first.
    whole: AtomicBool,
    /// Why the body broke off on our side.
    broken: OnceLock<String>,
    /// Bytes of an upload that came with the request.
    received: u64,
    /// The place among the requests that are answered at the same time.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Account {
    /// A request begins.
    pub(super) fn open(metrics: &Arc<Metrics>, method: &Method, headers: &HeaderMap, address: IpAddr) -> Self {
        metrics.requests_running(1);
        Self {
            metrics: Arc::clone(metrics),
            route: "none",
            method: label(method),
            address,
            client: client(headers),
            began: Instant::now(),
            repository: None,
            reference: None,
            namespace: None,
            principal: None,
            cache: "none",
            cause: None,
            status: 0,
            seconds: 0.0,
            bytes: AtomicU64::new(0),
            to_come: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            broken: OnceLock::new(),
            received: 0,
            permit: None,
        }
    }

    /// The headers are ready.
    pub(super) fn answered(&mut self, status: u16, without_body: bool) {
        self.status = status;
        self.seconds = self.began.elapsed().as_secs_f64();
        self.metrics.first_byte(self.seconds);
        self.metrics.request(self.route, self.method, status, self.cache);
        if without_body {
            self.whole();
        }
    }

    /// Bytes of an upload came.
    pub(super) fn received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Bytes were taken.
    pub(super) fn sent(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of the body was taken, or handed to the connection.
    pub(super) fn whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// How the body's end came, and why where the fault is ours.
    fn end(&self) -> (&'static str, Option<&str>) {
        match self.broken.get() {
            Some(error) => ("broken", Some(error)),
            None if self.whole.load(Ordering::Relaxed) && self.to_come.load(Ordering::Relaxed) == 0 => ("whole", None),
            None => ("cut", None),
        }
    }

    /// One line of the access log. Probes and scrapes are for who looks for them.
    fn log(&self) {
        let (end, broken) = self.end();
        let error = broken.or(self.cause.as_deref());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "larder::access",
                    method = self.method,
                    route = self.route,
                    repository = self.repository.as_ref().map(display),
                    reference = self.reference.as_ref().map(display),
                    ns = self.namespace.as_deref(),
                    status = self.status,
                    cache = self.cache,
                    bytes = self.bytes.load(Ordering::Relaxed),
                    received = (self.received > 0).then_some(self.received),
                    end,
                    first_byte_seconds = (self.seconds * 1e6).round() / 1e6,
                    seconds = (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e6,
                    address = %self.address,
                    client = self.client.as_deref(),
                    principal = self.principal.as_ref().map(display),
                    error,
                    "request"
                )
            };
        }
        match (self.route, self.status) {
            ("healthz" | "readyz" | "metrics" | "version", 0..400) => line!(debug),
            (_, 500..) => line!(warn),
            _ if broken.is_some() => line!(warn),
            _ => line!(info),
        }
    }
}

impl Tally for Account {
    fn handed(&self, bytes: u64) {
        self.to_come.fetch_add(bytes, Ordering::Relaxed);
    }

    fn taken(&self, bytes: u64) {
        self.to_come.fetch_sub(bytes, Ordering::Relaxed);
        self.sent(bytes);
    }

    fn broken(&self, error: &io::Error) {
        // The first cause is the one.
        let _ = self.broken.set(crate::telemetry::chain(error));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.metrics.requests_running(-1);
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.metrics.sent(self.cache, bytes);
        }
        self.log();
    }
}

/// The method as a label: what a client makes up has none of its own.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

/// The program that asks: the product's name at the front of `User-Agent`, where it is a plain word.
fn client(headers: &HeaderMap) -> Option<Box<str>> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
    let name = agent.split(['/', ' ']).next()?;
    let plain = !name.is_empty()
        && name.len() <= CLIENT_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    plain.then(|| name.into())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_client_is_the_products_name() {
        for (agent, want) in [
            ("docker/27.1 go/go1.22 UpstreamClient(Docker-Client/27)", Some("docker")),
            ("containerd/1.6.20~ds1", Some("containerd")),
            ("containers/5.23.1 (github.com/containers/image)", Some("containers")),
            ("\"evil\"/1", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static(agent))]);
            assert_eq!(client(&headers).as_deref(), want, "{agent}");
        }
    }

    #[test]
    fn a_request_is_counted_once_with_what_was_sent() {
        let metrics = Arc::new(Metrics::new());
        let mut account = Account::open(&metrics, &Method::GET, &HeaderMap::new(), IpAddr::from([127, 0, 0, 1]));
        account.route = "blob";
        account.cache = "hit";
        account.answered(200, false);
        account.sent(7);
        account.whole();
        drop(account);
        let text = metrics.encode();
        for line in [
            r#"larder_requests_total{route="blob",method="GET",status="200",cache="hit"} 1"#,
            r#"larder_sent_bytes_total{cache="hit"} 7"#,
            "larder_requests_running 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_body_is_whole_when_the_connection_has_sent_what_it_was_handed() {
        let metrics = Arc::new(Metrics::new());
        let opened = || Account::open(&metrics, &Method::GET, &HeaderMap::new(), IpAddr::from([127, 0, 0, 1]));
        let account = opened();
        assert_eq!(account.end(), ("cut", None));
        account.handed(10);
        account.whole();
        account.taken(9);
        assert_eq!(account.end(), ("cut", None));
        account.taken(1);
        assert_eq!((account.end(), account.bytes.load(Ordering::Relaxed)), (("whole", None), 10));
        account.broken(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(account.end().0, "broken");
    }
}

//! One connection: which protocol it speaks, its requests, and its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use futures_util::FutureExt as _;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::Version;
use http::header;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::api;
use crate::api::Body;
use crate::api::Peer;
use crate::body::Outlet;
use crate::config;
use crate::tasks::Tasks;

use super::Certificates;
use super::Common;
use super::Listener;
use super::Open;
use super::Service;
use super::head::Framing;
use super::wire::Patience;
use super::wire::Running;
use super::wire::Shared;
use super::wire::Stream;
use super::wire::Wire;

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a request's body that are read and thrown away so that the connection can go on.
const UNREAD_BYTES_MAX: usize = 64 << 10;

/// How long that may take.
const UNREAD_FOR: Duration = Duration::from_secs(2);

/// How long an idle HTTP/2 connection has to take its farewell.
const FAREWELL: Duration = Duration::from_secs(5);

/// HTTP/2: bytes of a request's headers, decompressed.
const HEADER_LIST_BYTES: u32 = 16 << 10;

/// HTTP/2: streams that a client reset before they were looked at, and that it made us reset [CVE-2023-44487,
/// CVE-2025-8671].
const RESETS_MAX: usize = 32;

/// HTTP/2: how often a silent connection is asked whether it lives, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);

/// HTTP/2: bytes of one stream that wait to be sent.
const SEND_BUFFER_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Serves one connection until it ends.
pub(super) async fn serve<S: Service>(stream: TcpStream, peer: SocketAddr, listener: Arc<Listener<S>>, open: Open) {
    let common = Arc::clone(&open.common);
    let limits = &common.limits;
    let Some((stream, protocol, first)) = begin(stream, peer, listener.tls.as_deref(), &common).await else { return };
    let shared = Shared::new();
    let head = (protocol == Protocol::Http1).then_some(limits.headers);
    // HTTP/1.1 in the clear is what can go from a file to the socket as it is.
    let sends_files = protocol == Protocol::Http1 && matches!(stream, Stream::Plain(_));
    let outlet = sends_files.then(|| Arc::new(Outlet::default()));
    let patience = Patience { head, stall: limits.stall };
    let wire = Wire::new(stream, first, Arc::clone(&shared), patience, outlet.clone());
    let requests = Requests(Arc::new(Connection {
        peer: Peer { address: peer.ip().to_canonical(), secure: listener.tls.is_some() },
        listener,
        shared: Arc::clone(&shared),
        open,
        outlet,
        http1: protocol == Protocol::Http1,
    }));
    let io = TokioIo::new(wire);
    let ended = match protocol {
        Protocol::Http1 => {
            let mut connection = Box::pin(http1_builder(limits).serve_connection(io, requests));
            tokio::select! {
                ended = &mut connection => ended,
                () = over(&common, &shared) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! { ended = connection => ended, () = common.shutdown.at_once() => return }
                }
            }
        }
        Protocol::Http2 => {
            let mut connection = Box::pin(http2_builder(limits, &common.tasks).serve_connection(io, requests));
            tokio::select! {
                ended = &mut connection => ended,
                () = over(&common, &shared) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = shared.idle_for(limits.idle + FAREWELL) => return,
                        () = common.shutdown.at_once() => return,
                    }
                }
            }
        }
    };
    if let Err(error) = ended {
        // A client that went away, or one that sent what is no HTTP; the request's own line says what it cost.
        tracing::debug!(%peer, error = crate::telemetry::chain(&error), "a connection ended");
    }
}

/// Comes when no more requests are to be taken: larder stops, or the connection was idle for long. One timer for the
/// connection, which is not touched by its requests.
async fn over(common: &Common, shared: &Shared) {
    tokio::select! {
        () = common.shutdown.draining() => {}
        () = shared.idle_for(common.limits.idle) => {}
    }
}

/// Makes a connection ready for its first request, within the time that has; `None` where there is none.
async fn begin(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<&Certificates>,
    common: &Common,
) -> Option<(Stream, Protocol, Bytes)> {
    // Without it the kernel holds back the last packet of an answer until the client has confirmed the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting up a connection");
    }
    let opened = tokio::select! {
        () = common.shutdown.draining() => return None,
        opened = tokio::time::timeout(common.limits.first_byte, establish(stream, tls)) => opened,
    };
    match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            common.metrics.connection_refused(if tls.is_some() { "tls" } else { "malformed" });
            tracing::debug!(%error, %peer, "opening a connection");
            None
        }
        Err(_) => {
            common.metrics.connection_refused("first_byte");
            None
        }
    }
}

/// Does the TLS handshake, or reads until it is clear which protocol is spoken; `None` where the client left.
async fn establish(mut stream: TcpStream, tls: Option<&Certificates>) -> io::Result<Option<(Stream, Protocol, Bytes)>> {
    if let Some(certificates) = tls {
        let stream = TlsAcceptor::from(certificates.current()).accept(stream).await?;
        let protocol =
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        return Ok(Some((Stream::Tls(Box::new(stream)), protocol, Bytes::new())));
    }
    let mut first = BytesMut::with_capacity(PREFACE.len());
    loop {
        let wanted = PREFACE.len() - first.len();
        let mut rest = [0; PREFACE.len()];
        let count = stream.read(rest.get_mut(..wanted).unwrap_or_default()).await?;
        if count == 0 && first.is_empty() {
            return Ok(None);
        }
        first.extend_from_slice(rest.get(..count).unwrap_or_default());
        let protocol = match PREFACE.strip_prefix(&*first) {
            Some([]) => Protocol::Http2,
            Some(_) if count > 0 => continue,
            _ => Protocol::Http1,
        };
        return Ok(Some((Stream::Plain(stream), protocol, first.freeze())));
    }
}

fn http1_builder(limits: &config::Limits) -> http1::Builder {
    let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX).clamp(8 << 10, 1 << 20);
    let mut http = http1::Builder::new();
    // hyper's timer would be set anew with each request; how long a head may take is kept in `wire`.
    http.header_read_timeout(None).max_buf_size(header_bytes).max_header_size(header_bytes);
    http
}

fn http2_builder(limits: &config::Limits, tasks: &Tasks) -> http2::Builder<Spawn> {
    let mut http = http2::Builder::new(Spawn(tasks.clone()));
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    http
}

/// Runs the streams of HTTP/2 connections.
#[derive(Clone)]
struct Spawn(Tasks);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("stream", stream);
    }
}

/// The requests of one connection.
struct Requests<S>(Arc<Connection<S>>);

/// What they have in common.
struct Connection<S> {
    listener: Arc<Listener<S>>,
    peer: Peer,
    shared: Arc<Shared>,
    open: Open,
    outlet: Option<Arc<Outlet>>,
    http1: bool,
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response<Tracked>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Tracked>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = Arc::clone(&self.0);
        let running = connection.shared.begin();
        let chunked = connection.http1 && request.headers().contains_key(header::TRANSFER_ENCODING);
        let framing = if chunked { connection.shared.framing() } else { Framing::Clean };
        let malformed = framing == Framing::Conflict || (connection.http1 && !names_host(&request));
        Box::pin(async move {
            let (head, mut body) = request.into_parts();
            let expects = head.headers.contains_key(header::EXPECT);
            let mut response = if malformed {
                api::malformed()
            } else {
                let answering = AssertUnwindSafe(connection.listener.service.answer(connection.peer, head, &mut body));
                answering.catch_unwind().await.unwrap_or_else(|panic| failed(&*panic, &connection.open))
            };
            if connection.http1 {
                let read = !malformed && read_rest(&mut body, expects).await;
                if !read || framing == Framing::Unknown {
                    connection.shared.leave_unread();
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
            }
            Ok(response.map(|body| {
                let body = if let Some(outlet) = &connection.outlet { body.through(outlet) } else { body };
                Tracked { body, _running: running }
            }))
        })
    }
}

/// Whether a request of HTTP/1.1 says to whom it goes, and once (RFC 9112 §3.2): what is in front of us may go by
/// another of two hosts than we would.
fn names_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_plain =
        |b: &u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'\\' | b'@' | b'?' | b'#' | b'"' | b'<' | b'>');
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes().iter().all(is_plain),
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// A request panicked: this one fails, and nothing else does.
fn failed(panic: &(dyn std::any::Any + Send), open: &Open) -> Response<Body> {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = said.unwrap_or("no message"), "a request failed by a fault of the program");
    open.common.metrics.panic();
    api::failed()
}

/// Reads what is left of a request's body and throws it away; whether that was all of it. A client that waits to be
/// told to go on is not told, so nothing comes.
async fn read_rest(body: &mut Incoming, expects: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if expects || body.size_hint().lower() > UNREAD_BYTES_MAX as u64 {
        return false;
    }
    let rest = async {
        let mut left = UNREAD_BYTES_MAX;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let count = frame.data_ref().map_or(0, Bytes::len);
            let Some(after) = left.checked_sub(count) else { return false };
            left = after;
        }
        true
    };
    tokio::time::timeout(UNREAD_FOR, rest).await.unwrap_or(false)
}

/// The body of an answer; the request runs until it is dropped.
struct Tracked {
    body: Body,
    _running: Running,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! Raw sockets against the server, with a service that counts what it is asked.

use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::body::Content;

use super::*;

/// Answers by path, and remembers what it was asked.
#[derive(Default)]
struct Echo {
    asked: Mutex<Vec<String>>,
    release: Notify,
    begun: Notify,
}

impl Service for Echo {
    async fn answer(&self, _peer: Peer, head: Parts, body: &mut Incoming) -> Response<Body> {
        self.asked.lock().unwrap().push(format!("{} {}", head.method, head.uri.path()));
        match head.uri.path() {
            "/panic" => panic!("on purpose"),
            "/read" => Response::new(Body::from(body.collect().await.unwrap().to_bytes())),
            "/held" => {
                self.begun.notify_one();
                self.release.notified().await;
                Response::new(Body::from("held".to_owned()))
            }
            "/endless" => {
                self.begun.notify_one();
                let bytes = Box::pin(stream::repeat_with(|| Ok(Bytes::from(vec![7; 65_536]))));
                Response::new(Body::from(Content::Stream { bytes, length: None }))
            }
            _ => Response::new(Body::from("hello".to_owned())),
        }
    }
}

struct Running {
    address: SocketAddr,
    echo: Arc<Echo>,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    ended: JoinHandle<usize>,
}

fn limits() -> config::Limits {
    config::Limits { stall: Duration::from_secs(30), ..config::Limits::default() }
}

fn start(limits: &config::Limits, tls: Option<Arc<Certificates>>, places: usize, drain: Duration) -> Running {
    let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let (echo, shutdown, metrics) = (Arc::new(Echo::default()), Shutdown::new(), Arc::new(Metrics::new()));
    let places = Arc::new(Semaphore::new(places));
    let listener = Listener { socket, tls, service: Arc::clone(&echo), places };
    let (limits, tasks, all, stop) = (limits.clone(), Tasks::new(), Arc::clone(&metrics), shutdown.clone());
    let ended =
        tasks.clone().spawn("server", async move { run(vec![listener], &limits, drain, &tasks, &all, &stop).await });
    Running { address, echo, shutdown, metrics, ended }
}

fn started() -> Running {
    start(&limits(), None, 100, Duration::from_secs(60))
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    async fn exchange(&self, sent: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is a close, too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn asked(&self) -> Vec<String> {
        self.echo.asked.lock().unwrap().clone()
    }
}

/// Reads one answer whose body ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let server = started();
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(read_until(&mut stream, "hello").await.starts_with("HTTP/1.1 200"));
    }
    // In pieces, and two at once.
    for piece in ["GE", "T /b HT", "TP/1.1\r\nHost: x\r", "\n\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    read_until(&mut stream, "hello").await;
    stream.write_all(&b"GET /c HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2)).await.unwrap();
    let answers = read_until(&mut stream, "hello").await;
    if answers.matches("HTTP/1.1 200").count() == 1 {
        read_until(&mut stream, "hello").await;
    }
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn no_request_is_read_out_of_a_body() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for (name, head) in [
        (
            "both lengths",
            "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "both, other order",
            "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        ),
        (
            "two codings",
            "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        ),
        ("an odd coding", "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("a signed length", "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello"),
        ("two lengths", "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("a length in hex", "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello"),
        ("a folded line", "POST /p HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        ("a space before the colon", "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello"),
        ("chunks in HTTP/1.0", "POST /p HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two hosts", "GET /p HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
        ("no host", "GET /p HTTP/1.1\r\n\r\n"),
        ("a host that is none", "GET /p HTTP/1.1\r\nHost: x/y@z\r\n\r\n"),
        ("a null in the name", "POST /p HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n"),
    ] {
        let server = started();
        let answer = server.exchange(format!("{head}{smuggled}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{name}: {answer}");
        assert!(!server.asked().iter().any(|asked| asked.contains("/smuggled")), "{name}");
    }
}

#[tokio::test]
async fn a_bad_chunk_ends_the_connection() {
    let server = started();
    let sent = "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nGET /smuggled HTTP/1.1\r\n\r\n";
    server.exchange(sent.as_bytes()).await;
    assert_eq!(server.asked(), ["POST /p"]);
}

#[tokio::test]
async fn a_small_unread_body_is_drained_and_a_large_one_closes() {
    let server = started();
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(b"PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        stream.write_all(b"123456789").await.unwrap();
        assert!(!read_until(&mut stream, "hello").await.contains("connection: close"));
    }
    let mut large = b"PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n".to_vec();
    large.extend(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5_000));
    let answer = server.exchange(&large).await;
    assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
    assert!(!server.asked().iter().any(|asked| asked.contains("/smuggled")));
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_is_answered_without_its_body() {
    let server = started();
    let head = b"PUT /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    let answer = server.exchange(head).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_slow_head_and_a_silent_client_are_cut() {
    let limits = config::Limits {
        headers: Duration::from_millis(50),
        first_byte: Duration::from_millis(50),
        idle: Duration::from_secs(3_600),
        ..limits()
    };
    let server = start(&limits, None, 100, Duration::from_secs(60));
    assert_eq!(server.exchange(b"").await, "");
    assert_eq!(server.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await, "");
    assert_eq!(server.exchange(b"PRI * HTTP").await, "");
    // Between requests the figure for idle connections holds, and the next head has its own time.
    let mut stream = server.connect().await;
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "hello").await;
    stream.write_all(b"GET /b").await.unwrap();
    assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert_eq!(server.asked(), ["GET /a"]);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let limits = config::Limits { idle: Duration::from_millis(50), ..limits() };
    let server = start(&limits, None, 100, Duration::from_secs(60));
    let answer = server.exchange(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let limits = config::Limits { stall: Duration::from_millis(100), ..limits() };
    let server = start(&limits, None, 1, Duration::from_secs(60));
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.echo.begun.notified().await;
    // Its place is free again when it is cut.
    loop {
        let answer = server.exchange(b"GET /a HTTP/1.0\r\n\r\n").await;
        if answer.ends_with("hello") {
            break;
        }
    }
}

#[tokio::test]
async fn headers_without_end_are_431() {
    let server = started();
    let answer =
        server.exchange(format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(1 << 20)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_panic_is_one_requests_own() {
    let server = started();
    let mut stream = server.connect().await;
    stream.write_all(b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "}]}").await.starts_with("HTTP/1.1 500"));
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "hello").await;
    assert!(server.metrics.encode().contains("larder_panics_total 1"));
}

#[tokio::test]
async fn there_is_no_place_for_one_more() {
    let server = start(&limits(), None, 1, Duration::from_secs(60));
    let mut first = server.connect().await;
    first.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut first, "hello").await;
    let answer = server.exchange(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert_eq!(server.asked(), ["GET /a"]);
}

#[tokio::test]
async fn http_2_is_told_by_its_preface() {
    let server = started();
    let io = TokioIo::new(server.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    Tasks::new().spawn("client", connection);
    for _ in 0..2 {
        let request = Request::get("http://x/a").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    }
    let request = Request::get("http://x/panic").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 500);
}

#[tokio::test]
async fn draining_lets_requests_finish_and_closes_the_rest() {
    let server = started();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut idle, "hello").await;
    let silent = server.connect().await;
    let mut held = server.connect().await;
    held.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.echo.begun.notified().await;
    server.shutdown.ask();
    assert_eq!(idle.read(&mut [0; 64]).await.unwrap(), 0);
    drop(silent);
    server.echo.release.notify_one();
    let mut answer = String::new();
    held.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("held"), "{answer}");
    assert_eq!(server.ended.await.unwrap(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn asked_twice_it_stops_at_once() {
    let server = started();
    let mut held = server.connect().await;
    held.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.echo.begun.notified().await;
    server.shutdown.ask();
    server.shutdown.ask();
    assert_eq!(server.ended.await.unwrap(), 1);
    assert_eq!(held.read(&mut [0; 64]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let server = start(&limits(), None, 100, Duration::from_millis(50));
    let mut held = server.connect().await;
    held.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.echo.begun.notified().await;
    server.shutdown.ask();
    assert_eq!(server.ended.await.unwrap(), 1);
}

/// A certificate as the configuration holds it, and what a client must trust.
pub(super) fn certificate() -> (config::Tls, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let contents = |text: String| config::Contents { path: "x.pem".into(), bytes: text.into_bytes().into() };
    let tls = config::Tls { certificate: contents(made.cert.pem()), key: contents(made.signing_key.serialize_pem()) };
    (tls, made.cert.der().clone())
}

/// Does a handshake; says which protocol was agreed on.
async fn handshake(
    address: SocketAddr,
    trusted: rustls::pki_types::CertificateDer<'static>,
    alpn: &[&[u8]],
) -> std::io::Result<Option<Vec<u8>>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    if agreed.as_deref() != Some(b"h2") {
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        // The end of the stream is checked by HTTP's own length.
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.ends_with("hello"), "{answer}");
    }
    Ok(agreed)
}

#[tokio::test]
async fn tls_agrees_on_a_protocol_and_takes_a_new_certificate() {
    let (first, trusted) = certificate();
    let certificates = Arc::new(Certificates::new(&first).unwrap());
    let server = start(&limits(), Some(Arc::clone(&certificates)), 100, Duration::from_secs(60));
    let agreed = handshake(server.address, trusted.clone(), &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(agreed.as_deref(), Some(&b"h2"[..]));
    let agreed = handshake(server.address, trusted.clone(), &[b"http/1.1"]).await.unwrap();
    assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(handshake(server.address, trusted.clone(), &[]).await.unwrap(), None);
    let (second, trusted_then) = certificate();
    let broken = config::Tls { key: first.certificate.clone(), ..second.clone() };
    certificates.reload(&broken).unwrap_err();
    handshake(server.address, trusted.clone(), &[]).await.unwrap();
    certificates.reload(&second).unwrap();
    handshake(server.address, trusted_then, &[]).await.unwrap();
    handshake(server.address, trusted, &[]).await.unwrap_err();
}

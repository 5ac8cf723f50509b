//! Files through real sockets: in the clear, where the kernel sends them, and where the bytes are touched.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::request::Parts;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::api::Body;
use crate::api::Peer;
use crate::body::Content;
use crate::body::FileRange;
use crate::body::PIECE_BYTES;
use crate::config;
use crate::server::Certificates;
use crate::server::Listener;
use crate::server::Service;
use crate::server::Shutdown;
use crate::server::bind;
use crate::server::run;
use crate::server::tests::certificate;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

const SIZE: usize = 5 * PIECE_BYTES + 7;

/// One file, of which `/<start>/<length>` is served.
struct Shelf(FileRange);

impl Service for Shelf {
    async fn answer(&self, _peer: Peer, head: Parts, _body: &mut Incoming) -> Response<Body> {
        let mut numbers = head.uri.path().split('/').skip(1).map(|number| number.parse::<u64>().unwrap());
        let range = self.0.slice(numbers.next().unwrap(), numbers.next().unwrap());
        Response::new(Body::from(Content::File(range)))
    }
}

struct Running {
    address: SocketAddr,
    file: Arc<std::fs::File>,
    bytes: Vec<u8>,
    _tasks: Tasks,
}

fn start(tls: Option<Arc<Certificates>>) -> Running {
    let mut random = fastrand::Rng::with_seed(7);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(SIZE).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let file = Arc::new(file);
    let shelf = Shelf(FileRange { file: Arc::clone(&file), offset: 0, length: SIZE as u64 });
    let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener { socket, tls, service: Arc::new(shelf), places: Arc::new(Semaphore::new(100)) };
    let (tasks, limits) = (Tasks::new(), config::Limits::default());
    let of_server = tasks.clone();
    tasks.spawn("server", async move {
        let (metrics, shutdown) = (Arc::new(Metrics::new()), Shutdown::new());
        run(vec![listener], &limits, Duration::from_secs(60), &of_server, &metrics, &shutdown).await
    });
    Running { address, file, bytes, _tasks: tasks }
}

/// A connection that takes little at a time.
async fn narrow(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(to).await.unwrap()
}

/// Asks for parts of the file, all at once, and takes the answers in reads of random size; how many bytes came
/// where the connection ended early.
async fn take(stream: &mut TcpStream, server: &Running, parts: &[(usize, usize)]) -> Result<(), usize> {
    let mut requests = String::new();
    for (start, length) in parts {
        write!(requests, "GET /{start}/{length} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    stream.write_all(requests.as_bytes()).await.unwrap();
    let (mut random, mut got, mut scratch) = (fastrand::Rng::with_seed(8), Vec::new(), vec![0; 300_000]);
    for (start, length) in parts {
        let wanted = &server.bytes[*start..start + length];
        let body = loop {
            if let Some(at) = got.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(got[..at].to_ascii_lowercase()).unwrap();
                assert!(head.contains(&format!("content-length: {length}")), "{head}");
                break at + 4;
            }
            let count = stream.read(&mut scratch[..1000]).await.unwrap();
            assert!(count > 0);
            got.extend_from_slice(&scratch[..count]);
        };
        got.drain(..body);
        while got.len() < *length {
            let count = stream.read(&mut scratch[..random.usize(1..300_000)]).await.unwrap_or(0);
            if count == 0 {
                assert!(got == wanted[..got.len()]);
                return Err(got.len());
            }
            got.extend_from_slice(&scratch[..count]);
        }
        assert!(got[..*length] == *wanted, "{length} bytes from {start} are others");
        got.drain(..length);
    }
    assert_eq!(got, b"");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arrive_byte_for_byte_one_answer_after_the_other() {
    let server = start(None);
    let parts = [
        (0, SIZE),
        (5, 0),
        (1, 1),
        (9, 65_536),
        (100_000, 65_537),
        (3, PIECE_BYTES),
        (0, PIECE_BYTES + 65_536),
        (11, PIECE_BYTES + 65_537),
        (SIZE - 1, 1),
        (77, 3 * PIECE_BYTES),
    ];
    let mut wide = TcpStream::connect(server.address).await.unwrap();
    let mut slow = narrow(server.address).await;
    for _ in 0..2 {
        // Pipelined, and each for itself on the same connection.
        let (one, other) = tokio::join!(take(&mut wide, &server, &parts), take(&mut slow, &server, &parts));
        one.and(other).unwrap();
        for part in &parts {
            take(&mut wide, &server, &[*part]).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_parts_arrive_byte_for_byte() {
    let server = start(None);
    let mut random = fastrand::Rng::new();
    let mut taking = tokio::task::JoinSet::new();
    let server = Arc::new(server);
    for narrowed in [true, false, true, false] {
        let parts: Vec<(usize, usize)> = std::iter::repeat_with(|| {
            let (start, shift) = (random.usize(..SIZE), random.usize(0..12));
            (start, random.usize(..=(SIZE - start) >> shift))
        })
        .take(40)
        .collect();
        let server = Arc::clone(&server);
        taking.spawn(async move {
            let connected = TcpStream::connect(server.address);
            let mut stream = if narrowed { narrow(server.address).await } else { connected.await.unwrap() };
            take(&mut stream, &server, &parts).await.unwrap_or_else(|got| panic!("ended after {got}: {parts:?}"));
        });
    }
    taking.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_shorter_breaks_the_connection() {
    let server = start(None);
    let mut stream = narrow(server.address).await;
    server.file.set_len(1_000_000).unwrap();
    let got = take(&mut stream, &server, &[(0, SIZE)]).await.unwrap_err();
    assert!(got <= 1_000_000, "{got}");
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_bytes_are_touched_they_are_the_files_too() {
    let server = start(None);
    let io = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let tasks = Tasks::new();
    tasks.spawn("client", connection);
    let request = Request::get(format!("http://x/3/{}", SIZE - 3)).body(Empty::<Bytes>::new()).unwrap();
    let got = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(got == server.bytes[3..], "HTTP/2");

    let (ours, trusted) = certificate();
    let server = start(Some(Arc::new(Certificates::new(&ours).unwrap())));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector =
        tokio_rustls::TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let io = TokioIo::new(connector.connect("localhost".try_into().unwrap(), stream).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tasks.spawn("client", connection);
    let request = Request::get(format!("/3/{}", SIZE - 3)).header("host", "x").body(Empty::<Bytes>::new()).unwrap();
    let got = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(got == server.bytes[3..], "TLS");
}

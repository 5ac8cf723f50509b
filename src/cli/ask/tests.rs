use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::Error;
use super::Server;
use super::query;
use crate::tasks::Tasks;

/// Answers one connection with `answer`, and hands back what it was asked.
async fn answer_once(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Tasks::new().spawn("answer", async move {
        let (stream, _) = listener.accept().await.expect("a client");
        converse(stream, answer).await
    });
    (address, asked)
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str) -> String {
    let mut asked = Vec::new();
    while !is_whole(&asked) {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await.expect("a request");
        assert!(read > 0, "the client left in the middle of {:?}", String::from_utf8_lossy(&asked));
        asked.extend_from_slice(&piece[..read]);
    }
    stream.write_all(answer.as_bytes()).await.expect("the answer");
    stream.shutdown().await.expect("the end");
    String::from_utf8(asked).expect("text")
}

/// Whether headers and as many bytes as they announce are here.
fn is_whole(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().expect("a length"))
}

fn server(address: SocketAddr) -> Server {
    Server::at(&format!("http://{address}"), "--admin").expect("an address")
}

#[tokio::test]
async fn a_document_is_asked_for_and_read() {
    let (address, asked) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"fills\":3}").await;
    let answer =
        server(address).get(&format!("/api/v1/tags?{}", query("repository", "a/b:c d"))).await.expect("an answer");
    assert_eq!(answer, json!({ "fills": 3 }));
    let asked = asked.await.expect("asked");
    assert!(asked.starts_with("GET /api/v1/tags?repository=a%2Fb%3Ac+d HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: {address}\r\n")), "{asked}");
}

#[tokio::test]
async fn an_order_carries_its_references() {
    let (address, asked) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"results\":[]}").await;
    server(address).post("/api/v1/evict", &json!({ "refs": ["a"] })).await.expect("an answer");
    let asked = asked.await.expect("asked");
    assert!(asked.ends_with("{\"refs\":[\"a\"]}") && asked.contains("content-type: application/json"), "{asked}");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words() {
    for (answer, said) in [
        (
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 61\r\n\r\n{\"errors\":[{\"code\":\"NAME_INVALID\",\"message\":\"no such name\"}]} ",
            "the server answers 400 Bad Request: no such name",
        ),
        (
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno",
            "the server answers 500 Internal Server Error",
        ),
    ] {
        let (address, _asked) = answer_once(answer).await;
        let error = server(address).get("/").await.expect_err("refused");
        assert!(matches!(error, Error::Refused(_)));
        assert_eq!(error.to_string(), said);
    }
}

#[tokio::test]
async fn nobody_is_told_apart_from_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let error = server(address).get("/").await.expect_err("nobody listens");
    assert!(matches!(error, Error::Nobody { .. }) && error.to_string().contains("--admin"), "{error}");
    let error = Server::at("ftp://x", "--admin").expect_err("no such scheme");
    assert!(matches!(error, Error::Usage(_)));
}

#[tokio::test]
async fn lines_are_handed_on_one_by_one() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                  9\r\n{\"a\":1}\n{\r\n8\r\n\"a\":2}\n\n\r\n7\r\n{\"a\":3}\r\n0\r\n\r\n";
    let (address, _asked) = answer_once(answer).await;
    let mut seen = Vec::new();
    let line = |value: &Value| seen.push(value["a"].as_u64());
    server(address).lines("/api/v1/scrub", line).await.expect("the whole stream");
    assert_eq!(seen, [Some(1), Some(2), Some(3)]);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error() {
    let (address, _asked) =
        answer_once("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{\"a\":1}\n{\r\n").await;
    let error = server(address).lines("/api/v1/scrub", |_| {}).await.expect_err("broken");
    assert!(error.to_string().starts_with("the server broke off"), "{error}");
}

#[tokio::test]
async fn with_tls_the_configured_certificate_is_trusted_and_no_other() {
    let ours = rcgen::generate_simple_self_signed(["larder.example.com".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["larder.example.com".to_owned()]).expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let key = rustls::pki_types::PrivateKeyDer::try_from(ours.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![ours.cert.der().clone()], key)
        .expect("a server");
    Tasks::new().spawn("answer", async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            if let Ok(stream) = acceptor.accept(stream).await {
                converse(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
            }
        }
    });
    for (certificate, trusted) in [(other.cert.pem(), false), (ours.cert.pem(), true)] {
        let mut server = Server::at(&format!("https://{address}"), "--admin").expect("an address");
        server.certificate = Some(certificate.into_bytes());
        assert_eq!(server.get("/").await.is_ok(), trusted);
    }
}

#[tokio::test]
async fn a_user_and_password_of_the_url_are_sent_and_not_shown() {
    let (address, asked) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let server = Server::at(&format!("http://ci:p%40s+&s@{address}"), "--server").expect("an address");
    assert_eq!(server.url().as_str(), format!("http://{address}/"));
    assert!(!format!("{server:?}").contains("p%40s"), "{server:?}");
    server.delete("/api/v1/runs/1").await.expect("an answer");
    let asked = asked.await.expect("asked");
    assert!(asked.starts_with("DELETE /api/v1/runs/1 HTTP/1.1\r\n"), "{asked}");
    // ci:p@s+&s
    assert!(asked.contains("authorization: Basic Y2k6cEBzKyZz\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: {address}\r\n")), "{asked}");
}

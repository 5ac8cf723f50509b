use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

/// Answers each connection with the same bytes; gives its address.
async fn serve(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's own server ends with the test")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer).await;
        }
    });
    address
}

fn fetch(address: SocketAddr, is_written: bool) -> Fetch {
    let url = Url::parse(&format!("http://{address}/")).unwrap();
    let settings = FetchSettings {
        written: if is_written { vec![url] } else { Vec::new() },
        may_connect_to: Vec::new(),
        ca_file: None,
        proxy: None,
        connect: Duration::from_secs(3),
        timeout: Duration::from_secs(5),
        body_max: 16,
    };
    Fetch::new(&Trust::nobody(), settings).unwrap()
}

async fn send(answer: &'static [u8], is_written: bool) -> Result<Answer, Error> {
    let address = serve(answer).await;
    let request = Request::builder().uri(format!("http://{address}/x")).body(Bytes::new()).unwrap();
    fetch(address, is_written).send(request).await
}

#[tokio::test]
async fn an_answer_of_any_status_is_read_whole() {
    let found = send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nretry-after: 7\r\n\r\nno", true).await.unwrap();
    assert_eq!((found.status.as_u16(), &found.body[..]), (404, &b"no"[..]));
    assert_eq!(found.retry_after(Timestamp(0)), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let found = send(b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n", true).await;
    assert_eq!(found.unwrap().status.as_u16(), 302);
}

#[tokio::test]
async fn what_is_not_whole_is_an_error() {
    let announced = send(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n01234567890123456", true).await;
    assert!(matches!(announced, Err(Error::Large { max: 16, .. })), "{announced:?}");
    let unannounced = send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n01234567890123456789", true).await;
    assert!(matches!(unannounced, Err(Error::Large { .. })), "{unannounced:?}");
    let cut = send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n0123", true).await;
    assert!(matches!(cut, Err(Error::Broken { .. })), "{cut:?}");
    let encoded = send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-encoding: gzip\r\n\r\nab", true).await;
    assert!(matches!(encoded, Err(Error::Encoded { .. })), "{encoded:?}");
}

#[tokio::test]
async fn only_what_the_configuration_names_is_connected_to() {
    let refused = send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    assert!(matches!(refused, Err(Error::Net(super::super::Error::Address { .. }))), "{refused:?}");
}

#[test]
fn links_are_found_by_their_relation() {
    let line = r#"<https://a/?page=2&x=1,2>; rel="next", <https://a/?page=9>; title="x"; rel="last prefetch""#;
    for (relation, want) in
        [("next", Some("https://a/?page=2&x=1,2")), ("LAST", Some("https://a/?page=9")), ("prev", None)]
    {
        assert_eq!(link_of(line, relation), want, "{relation}");
    }
    assert_eq!(link_of("</v2/_catalog?n=2&last=b>; rel=next", "next"), Some("/v2/_catalog?n=2&last=b"));
    for broken in ["", "<", "<a", "a>; rel=next", "<a>", "<a>; rel", "next"] {
        assert_eq!(link_of(broken, "next"), None, "{broken}");
    }
}

//! What is sent to clients from files, and what is said of it.

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::images::image;
use crate::support::larder::eventually;

/// More than sockets hold.
const SIZE: usize = 24 << 20;

/// The value of a metric.
async fn metric(larder: &Larder, name: &str) -> u64 {
    let metrics = client::ask(larder.admin, "GET", "/metrics", &[], b"").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_as_they_go_out() {
    let upstream = Upstream::start().await;
    let image = image(120, &[SIZE]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = image.blob(1);
    larder.blob("library/app", &digest).await;
    larder.settled().await;
    let sent = r#"larder_sent_bytes_total{cache="hit"}"#;
    let hits = metric(&larder, sent).await;
    for round in 1..=2 {
        assert!(larder.blob("library/app", &digest).await.body[..] == bytes[..]);
        eventually("all of it is counted", async || metric(&larder, sent).await == hits + round * SIZE as u64).await;
    }
    let part = larder.ranged("library/app", &digest, "bytes=1000000-3999999").await;
    assert!(part.status == 206 && part.body[..] == bytes[1_000_000..4_000_000]);
    let so_far = hits + 2 * SIZE as u64 + 3_000_000;
    eventually("the part is counted", async || metric(&larder, sent).await == so_far).await;

    // A client that takes a little and goes away.
    let mut stream = tokio::net::TcpStream::connect(larder.address).await.unwrap();
    let head = format!("GET /v2/library/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut vec![0; 100_000]).await.unwrap();
    drop(stream);
    eventually("it is counted", async || metric(&larder, sent).await > so_far).await;
    let of_cut = metric(&larder, sent).await - so_far;
    assert!((90_000..SIZE as u64).contains(&of_cut), "{of_cut}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_file_that_is_cut_under_a_transfer_breaks_it() {
    let upstream = Upstream::start().await;
    let image = image(121, &[SIZE]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = image.blob(1);
    larder.blob("library/app", &digest).await;
    larder.settled().await;
    let path = format!("/v2/library/app/blobs/{digest}");
    let begun = client::begin(larder.address, "GET", &path, &[], b"").await;
    assert_eq!(begun.status(), 200);
    std::fs::OpenOptions::new().write(true).open(larder.file_of(&digest)).unwrap().set_len(SIZE as u64 - 1).unwrap();
    let answer = client::finish(begun).await;
    assert!(!answer.complete && answer.body[..] == bytes[..answer.body.len()], "{}", answer.body.len());
    // The next one has all of it.
    assert!(larder.blob("library/app", &digest).await.body[..] == bytes[..]);
}

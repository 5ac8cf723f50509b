//! A client that pushes blobs, one request after another.

use larder::oci::Digest;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::Answer;
use super::Larder;
use super::client;
use super::images::Image;
use super::larder::eventually;

/// Begins an upload; where it goes on.
pub async fn begin(larder: &Larder, repository: &str, headers: &[(&str, &str)]) -> String {
    let answer = larder.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), headers).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.header("location").to_owned()
}

pub async fn send(larder: &Larder, method: &str, location: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    client::ask(larder.address, method, location, headers, body).await
}

/// The same address with a digest: as clients add it, whatever stands in the query already.
pub fn with_digest(location: &str, digest: &Digest) -> String {
    format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' })
}

/// Pushes a blob as containerd does.
pub async fn push(larder: &Larder, repository: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let location = begin(larder, repository, &[]).await;
    let answer = send(larder, "PUT", &with_digest(&location, &digest), &[], bytes).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    digest
}

/// The range that an upload says it has.
pub async fn range(larder: &Larder, location: &str) -> String {
    let answer = larder.get(location).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.header("range").to_owned()
}

/// A request whose body has begun and does not go on until it is told to.
pub struct Slow(TcpStream);

impl Slow {
    /// Says that `length` bytes come, and sends these.
    pub async fn send(larder: &Larder, method: &str, location: &str, length: usize, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(larder.address).await.unwrap();
        let head = format!("{method} {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        Self(stream)
    }

    /// A body in pieces, of a length that nobody says.
    pub async fn chunked(larder: &Larder, method: &str, location: &str) -> Self {
        Self::chunked_with(larder, method, location, "").await
    }

    /// The same with a header.
    pub async fn chunked_with(larder: &Larder, method: &str, location: &str, header: &str) -> Self {
        let mut stream = TcpStream::connect(larder.address).await.unwrap();
        let head = format!("{method} {location} HTTP/1.1\r\nHost: x\r\n{header}Transfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// A piece. Where the answer has come already nobody may take it.
    pub async fn piece(&mut self, bytes: &[u8]) {
        let piece = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        let _ = self.0.write_all(&piece).await;
    }

    pub async fn end(&mut self) {
        let _ = self.0.write_all(b"0\r\n\r\n").await;
    }

    pub async fn more(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The answer, as text; empty where the connection ended without one.
    pub async fn answer(mut self) -> String {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count) = self.0.read(&mut piece).await
            && count > 0
        {
            text.extend_from_slice(&piece[..count]);
            if text.windows(4).any(|end| end == b"\r\n\r\n") {
                break;
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Until an upload has come so far.
pub async fn until(larder: &Larder, location: &str, wanted: &str) {
    eventually(wanted, async || larder.get(location).await.header("range") == wanted).await;
}

/// The files of uploads.
pub fn left(larder: &Larder) -> usize {
    super::larder::files(&larder.data().join("spool/uploads")).len()
        + super::larder::files(&larder.data().join("state/uploads")).len()
}

/// Pushes the blobs of an image and of all that it names, and the images of an index by their digests.
pub async fn blobs(larder: &Larder, repository: &str, image: &Image) {
    for (_, bytes) in &image.blobs {
        push(larder, repository, bytes).await;
    }
    for child in &image.children {
        Box::pin(blobs(larder, repository, child)).await;
        assert_eq!(manifest(larder, repository, &child.digest.to_string(), child).await.status, 201);
    }
}

/// Pushes a manifest as `reference`, which may have a query.
pub async fn manifest(larder: &Larder, repository: &str, reference: &str, image: &Image) -> Answer {
    let headers = [("Content-Type", image.media_type.as_str())];
    send(larder, "PUT", &format!("/v2/{repository}/manifests/{reference}"), &headers, &image.manifest).await
}

/// Pushes a whole image.
pub async fn image(larder: &Larder, repository: &str, reference: &str, image: &Image) -> Answer {
    blobs(larder, repository, image).await;
    manifest(larder, repository, reference, image).await
}

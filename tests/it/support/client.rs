//! A client that takes answers as they are: no redirects, no decoding, no pool.

use std::net::SocketAddr;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// An answer that was read to its end, or as far as it went.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether the body came to its proper end.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The first error code of the specification's error body.
    pub fn code(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        document["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Asks, and gives the answer once its headers are in.
#[expect(clippy::disallowed_methods, reason = "the client is no part of larder")]
pub async fn begin(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> http::Response<Incoming> {
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("Host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    sender.send_request(request).await.unwrap()
}

/// Asks where the connection may break before there is an answer.
#[expect(clippy::disallowed_methods, reason = "the client is no part of larder")]
pub async fn try_ask(to: SocketAddr, path: &str) -> Option<http::Response<Incoming>> {
    let stream = tokio::net::TcpStream::connect(to).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get(path).header("Host", to.to_string()).body(Full::new(Bytes::new())).ok()?;
    sender.send_request(request).await.ok()
}

/// Reads the rest of an answer.
pub async fn finish(response: http::Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    let (mut read, mut complete) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            complete = false;
            break;
        };
        read.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
    }
    Answer { status: head.status.as_u16(), headers: head.headers, body: read.into(), complete }
}

pub async fn ask(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    finish(begin(to, method, path, headers, body).await).await
}

//! Asking a running server through its admin API: JSON over HTTP/1.1, one connection a question.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::Method;
use http::Request;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use url::Url;

use crate::config::Config;
use crate::config::Secret;
use crate::config::client;

use super::Error;
use super::Global;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a server may be silent: a refresh waits for upstreams.
const SILENCE: Duration = Duration::from_mins(1);
/// The longest answer that is read whole, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A server that can be asked.
#[derive(Debug)]
pub(super) struct Server {
    url: Url,
    /// What it is asked with: the user and password that stood in the URL, as `Authorization` has them.
    credential: Option<Secret>,
    /// The flag that names another server, for messages.
    flag: &'static str,
    /// The certificate that the configuration says the server has.
    certificate: Option<Vec<u8>>,
}

/// An answer with its body still to come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: http::StatusCode,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Incoming,
}

impl Server {
    /// The admin listener of the configured server, or the one that `--admin` names.
    pub(super) fn admin(global: &Global) -> Result<Self, Error> {
        if let Some(text) = &global.admin {
            return Self::at(text, "--admin");
        }
        let config = global.load()?.config;
        Self::configured(&config, config.admin.listen, "--admin")
    }

    /// A listener of the configured server.
    pub(super) fn configured(config: &Config, listen: std::net::SocketAddr, flag: &'static str) -> Result<Self, Error> {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let mut server = Self::at(&format!("{scheme}://{}", client::reachable(listen)), flag)?;
        server.certificate = config.tls.as_ref().map(|tls| tls.certificate.bytes.to_vec());
        Ok(server)
    }

    /// The server at a URL, or at a host with a port.
    pub(super) fn at(text: &str, flag: &'static str) -> Result<Self, Error> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&full).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut url =
            url.ok_or_else(|| Error::Usage(format!("{flag}: `{text}` is not a URL like http://127.0.0.1:5001")))?;
        let credential = credential(&url);
        // What is printed of it holds no password; a URL with a host takes both.
        let _ = (url.set_username(""), url.set_password(None));
        Ok(Self { url, credential, flag, certificate: None })
    }

    /// Where it is.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Reads a document.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Error> {
        let answer = self.send(Method::GET, path, None, &[]).await?;
        document(answer).await
    }

    /// Removes something, and reads what became of it.
    pub(super) async fn delete(&self, path: &str) -> Result<Value, Error> {
        let answer = self.send(Method::DELETE, path, None, &[]).await?;
        document(answer).await
    }

    /// Sends a document and reads one.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let answer = self.send(Method::POST, path, Some(body), &[]).await?;
        document(answer).await
    }

    /// The same, of what may take long: `wait` for the answer.
    pub(super) async fn post_patiently(&self, path: &str, body: &Value, wait: Duration) -> Result<Value, Error> {
        let answer = self.send_within(wait, Method::POST, path, Some(body), &[]).await?;
        document(answer).await
    }

    /// Sends a request, and hands each line of the answer to `line` as it comes.
    pub(super) async fn lines(&self, path: &str, mut line: impl FnMut(&Value)) -> Result<(), Error> {
        let mut answer = self.send(Method::POST, path, None, &[]).await?;
        if !answer.status.is_success() {
            return Err(refusal(answer).await);
        }
        let mut rest = Vec::new();
        loop {
            let frame = tokio::time::timeout(SILENCE * 10, answer.body.frame()).await;
            let frame = frame.map_err(|_| Error::Refused("the server went silent".to_owned()))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| Error::Refused(format!("the server broke off: {error}")))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let whole: Vec<u8> = rest.drain(..=end).collect();
                if let Ok(value) = serde_json::from_slice(&whole) {
                    line(&value);
                }
            }
            if rest.len() > ANSWER_BYTES_MAX {
                return Err(Error::Refused("the server sent a line without end".to_owned()));
            }
        }
        if let Ok(value) = serde_json::from_slice(&rest) {
            line(&value);
        }
        Ok(())
    }

    /// Sends one request and returns as soon as the answer's headers are here.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(header::HeaderName, &str)],
    ) -> Result<Answer, Error> {
        self.send_within(SILENCE, method, path, body, headers).await
    }

    async fn send_within(
        &self,
        wait: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(header::HeaderName, &str)],
    ) -> Result<Answer, Error> {
        let stream = self.connect().await?;
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.authority());
        request = request.header(header::USER_AGENT, concat!("larder/", env!("CARGO_PKG_VERSION")));
        if let Some(credential) = &self.credential {
            request = request.header(header::AUTHORIZATION, credential.reveal());
        }
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(|value| Bytes::from(value.to_string())).unwrap_or_default();
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| Error::Usage(format!("`{path}` can't be asked for: {error}")))?;
        let sent = tokio::time::timeout(wait, exchange(stream, request)).await;
        match sent {
            Ok(answer) => answer.map_err(|error| self.nobody(io::Error::other(error))),
            Err(_) => Err(self.nobody(io::ErrorKind::TimedOut.into())),
        }
    }

    fn authority(&self) -> &str {
        self.url.authority()
    }

    fn nobody(&self, source: io::Error) -> Error {
        Error::Nobody { address: self.url.to_string(), flag: self.flag, source }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Error> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.url.port_or_known_default().unwrap_or(80);
        let opened = tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await;
        let stream = match opened {
            Ok(stream) => stream.map_err(|source| self.nobody(source))?,
            Err(_) => return Err(self.nobody(io::ErrorKind::TimedOut.into())),
        };
        if self.url.scheme() != "https" {
            return Ok(Box::new(stream));
        }
        let config = super::ask_tls::client(self.certificate.as_deref()).map_err(Error::Usage)?;
        let name = ServerName::try_from(host).map_err(|error| Error::Usage(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let opened = tokio::time::timeout(CONNECT, connector.connect(name, stream)).await;
        match opened {
            Ok(stream) => Ok(Box::new(stream.map_err(|source| self.nobody(source))?)),
            Err(_) => Err(self.nobody(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// What a connection is made of, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Sends the request over its own connection, which lives until the body was read.
async fn exchange(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The process ends with its command, and the connection with it.
    crate::tasks::Tasks::new().spawn("ask", async move {
        let _ = connection.await;
    });
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// Reads the body as JSON, or as the reason of a refusal.
async fn document(answer: Answer) -> Result<Value, Error> {
    if !answer.status.is_success() {
        return Err(refusal(answer).await);
    }
    let bytes = whole(answer.body).await?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Refused(format!("the answer is not JSON: {error}")))
}

async fn whole(body: Incoming) -> Result<Bytes, Error> {
    let collected = tokio::time::timeout(SILENCE, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Error::Refused(format!("the answer broke off: {error}"))),
        Err(_) => Err(Error::Refused("the server went silent".to_owned())),
    }
}

/// What the server said when it did not do what it was asked: the message of its error body, or its status.
async fn refusal(answer: Answer) -> Error {
    let status = answer.status;
    let body = whole(answer.body).await.unwrap_or_default();
    let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = ["/errors/0/message", "/error/message", "/error", "/message"]
        .into_iter()
        .find_map(|pointer| parsed.pointer(pointer).and_then(Value::as_str));
    match said {
        Some(said) => Error::Refused(format!("the server answers {status}: {said}")),
        None => Error::Refused(format!("the server answers {status}")),
    }
}

/// The user and password of a URL, as `Authorization` has them.
fn credential(url: &Url) -> Option<Secret> {
    let decoded = |text: &str| {
        // As a value of a form, in which a plus means itself.
        let form = format!("_={}", text.replace('+', "%2B").replace('&', "%26"));
        url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    let word = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    (!user.is_empty()).then(|| Secret::new(&format!("Basic {word}")))
}

/// A value for a query: everything but letters, digits and what names are made of is escaped.
pub(super) fn query(name: &str, value: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish()
}

#[cfg(test)]
mod tests;

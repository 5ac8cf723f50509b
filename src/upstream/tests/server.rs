//! A scripted registry: it answers what the script says, and remembers what it was asked.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use url::Url;

use crate::clock::Clock;
use crate::config::upstream::Upstream as Config;
use crate::events::Events;
use crate::net::Trust;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::Ask;
use crate::upstream::Deps;
use crate::upstream::Remote;
use crate::upstream::Upstream;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What is answered.
pub(super) struct Reply {
    response: http::response::Builder,
    chunks: Vec<Bytes>,
    ending: Ending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Clean,
    Cut,
    Stall,
    /// No headers at all.
    Silent,
}

pub(super) fn reply(status: u16) -> Reply {
    Reply {
        response: Response::builder().status(StatusCode::from_u16(status).unwrap()),
        chunks: Vec::new(),
        ending: Ending::Clean,
    }
}

/// Never answers.
pub(super) fn silence() -> Reply {
    Reply { ending: Ending::Silent, ..reply(200) }
}

impl Reply {
    pub(super) fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.response = self.response.header(name, value.as_ref());
        self
    }

    /// A body in one piece, with its length.
    pub(super) fn body(self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.header("content-length", bytes.len().to_string()).chunk(bytes)
    }

    /// A piece of a body.
    pub(super) fn chunk(mut self, bytes: impl Into<Bytes>) -> Self {
        self.chunks.push(bytes.into());
        self
    }

    /// The connection breaks behind the pieces.
    pub(super) fn cut(mut self) -> Self {
        self.ending = Ending::Cut;
        self
    }

    /// Nothing more comes behind the pieces.
    pub(super) fn stall(mut self) -> Self {
        self.ending = Ending::Stall;
        self
    }
}

type Script = Arc<dyn Fn(Asked) -> BoxFuture<'static, Reply> + Send + Sync>;

/// A server that runs until its test ends.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) tasks: Tasks,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers by `script`; an error makes the connection break.
    pub(super) async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let script = Arc::new(script);
        Self::start_async(move |asked| {
            let script = Arc::clone(&script);
            Box::pin(async move { script(&asked) })
        })
        .await
    }

    pub(super) async fn start_async(
        script: impl Fn(Asked) -> BoxFuture<'static, Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (tasks, log, script) = (Tasks::new(), Arc::clone(&asked), Arc::new(script) as Script);
        let serving = tasks.clone();
        tasks.spawn("server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(&serving, TokioIo::new(stream), Arc::clone(&log), Arc::clone(&script));
            }
        });
        Self { address, tasks, asked }
    }

    /// One that speaks TLS with that certificate.
    pub(super) async fn start_tls(
        certificate: &rcgen::CertifiedKey<rcgen::KeyPair>,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let script = Arc::new(script);
        let script: Script = Arc::new(move |asked| {
            let script = Arc::clone(&script);
            Box::pin(async move { script(&asked) })
        });
        let (tasks, log) = (Tasks::new(), Arc::clone(&asked));
        let serving = tasks.clone();
        tasks.spawn("server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(&serving, TokioIo::new(stream), Arc::clone(&log), Arc::clone(&script));
                }
            }
        });
        Self { address, tasks, asked }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often that path was asked.
    pub(super) fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path == path).count()
    }

    /// An upstream `reg.test` that is asked there.
    pub(super) fn config(&self) -> Config {
        config(&[&self.url()])
    }
}

fn serve<S>(tasks: &Tasks, stream: S, log: Arc<Mutex<Vec<Asked>>>, script: Script)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (log, script) = (Arc::clone(&log), Arc::clone(&script));
        async move {
            let (parts, body) = request.into_parts();
            drop(body.collect().await);
            let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
            let asked = Asked { method: parts.method, path, query, headers: parts.headers };
            log.lock().unwrap().push(asked.clone());
            Ok::<_, Infallible>(answer(script(asked).await).await)
        }
    });
    tasks.spawn("connection", async move {
        drop(hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await);
    });
}

async fn answer(reply: Reply) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    if reply.ending == Ending::Silent {
        std::future::pending::<()>().await;
    }
    let chunks = stream::iter(reply.chunks.into_iter().map(|bytes| Ok(Frame::data(bytes))));
    let end = match reply.ending {
        Ending::Cut => stream::once(async {
            // Behind the bytes, not instead of them: hyper drops what it has not written when a body fails.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(io::Error::other("cut"))
        })
        .boxed(),
        Ending::Stall => stream::pending().boxed(),
        Ending::Clean | Ending::Silent => stream::empty().boxed(),
    };
    reply.response.body(UnsyncBoxBody::new(StreamBody::new(chunks.chain(end)))).unwrap()
}

/// An upstream `reg.test` with those endpoints.
pub(super) fn config(endpoints: &[&str]) -> Config {
    let mut config = Config::of("reg.test").unwrap();
    config.endpoints = endpoints.iter().map(|url| Url::parse(url).unwrap()).collect();
    config
}

pub(super) fn deps() -> Deps {
    let (metrics, events) = (Arc::new(Metrics::new()), Events::new(16, Arc::new(|_| ())));
    Deps { clock: Clock::system(), metrics, tasks: Tasks::new(), events, trust: Trust::nobody() }
}

pub(super) fn open(config: &Config) -> Arc<dyn Upstream> {
    Remote::open(&config.host, config, &deps()).unwrap()
}

pub(super) fn ask(name: &str) -> Ask {
    Ask::client(name.parse().unwrap())
}

/// An address at which nothing listens.
pub(super) async fn nobody() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

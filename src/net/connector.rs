//! How a connection comes about: resolve or parse, check, dial the checked address, TLS.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::Connected;
use hyper_util::client::legacy::connect::Connection as PooledConnection;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::address::Origin;
use super::address::Policy;
use super::error::Error;
use super::proxy::Proxies;
use super::proxy::Proxy;
use super::tls::Trust;

/// How long one address may keep the next from being tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Opens connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connector(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: Policy,
    trust: Trust,
    proxies: Proxies,
    limit: Duration,
}

impl Connector {
    pub(super) fn new(policy: Policy, trust: Trust, proxies: Proxies, limit: Duration) -> Self {
        Self(Arc::new(Inner { policy, trust, proxies, limit }))
    }
}

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Connection, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let host = to.host().unwrap_or_default().to_owned();
            timeout(inner.limit, inner.connect(&to)).await.unwrap_or(Err(Error::ConnectTimeout { host }))
        })
    }
}

impl Inner {
    async fn connect(&self, to: &Uri) -> Result<Connection, Error> {
        let host = to.host().unwrap_or_default();
        let Some(origin) = Origin::of_uri(to) else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "neither http nor https, or no host");
            return Err(Error::Connect { host: host.to_owned(), source: Arc::new(source) });
        };
        let Some(proxy) = self.proxies.to(to) else {
            let stream = dial(&origin, |address| self.policy.permits(&origin, address)).await?;
            let stream: Box<dyn Stream> =
                if origin.is_tls() { self.encrypt(&origin, stream).await? } else { Box::new(stream) };
            return Ok(Connection::new(stream, false));
        };
        self.check_behind_proxy(&origin).await?;
        if origin.is_tls() {
            let tunnel = self.tunnel(to, &origin, &proxy).await?;
            Ok(Connection::new(self.encrypt(&origin, tunnel).await?, false))
        } else {
            Ok(Connection::new(self.reach(&origin, &proxy).await?, true))
        }
    }

    /// What lies behind a proxy is dialled by the proxy; what can be known of it here is checked here.
    async fn check_behind_proxy(&self, origin: &Origin) -> Result<(), Error> {
        let addresses = match origin.literal() {
            Some(address) => vec![address],
            // Behind a proxy names need not resolve.
            None => resolve(origin).await.unwrap_or_default(),
        };
        match addresses.into_iter().find(|address| !self.policy.permits(origin, *address)) {
            Some(address) => Err(Error::Address { host: origin.host().to_owned(), address }),
            None => Ok(()),
        }
    }

    /// A connection to the proxy itself, which whoever runs larder named: its address is as it is.
    async fn reach(&self, origin: &Origin, proxy: &Proxy) -> Result<Box<dyn Stream>, Error> {
        let failed = |source: Arc<dyn std::error::Error + Send + Sync>| Error::Proxy {
            host: origin.host().to_owned(),
            proxy: proxy.uri.to_string(),
            source,
        };
        let Some(at) = Origin::of_uri(&proxy.uri) else {
            let source = io::Error::new(io::ErrorKind::Unsupported, "only http and https proxies are known");
            return Err(failed(Arc::new(source)));
        };
        let stream = dial(&at, |_| true).await.map_err(|error| failed(Arc::new(error)))?;
        if !at.is_tls() {
            return Ok(Box::new(stream));
        }
        self.encrypt(&at, stream).await.map_err(|error| failed(Arc::new(error)))
    }

    /// A tunnel through the proxy (RFC 9110, CONNECT).
    async fn tunnel(&self, to: &Uri, origin: &Origin, proxy: &Proxy) -> Result<TokioIo<Connection>, Error> {
        let mut tunnel = Tunnel::new(proxy.uri.clone(), Ready(Some(self.reach(origin, proxy).await?)));
        if let Some(authorization) = proxy.authorization() {
            tunnel = tunnel.with_auth(authorization);
        }
        let made = tunnel.call(to.clone()).await;
        made.map(TokioIo::new).map_err(|error| Error::Proxy {
            host: origin.host().to_owned(),
            proxy: proxy.uri.to_string(),
            source: Arc::new(io::Error::other(error.to_string())),
        })
    }

    async fn encrypt<S: Stream + 'static>(&self, origin: &Origin, stream: S) -> Result<Box<dyn Stream>, Error> {
        let failed = |source: io::Error| Error::Tls { host: origin.host().to_owned(), source: Arc::new(source) };
        let name = match origin.literal() {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(origin.host().to_owned()).map_err(|error| failed(io::Error::other(error)))?,
        };
        let stream = TlsConnector::from(self.trust.config()).connect(name, stream).await.map_err(failed)?;
        Ok(Box::new(stream))
    }
}

async fn resolve(origin: &Origin) -> Result<Vec<IpAddr>, Error> {
    let found = tokio::net::lookup_host((origin.host(), origin.port())).await;
    let failed = |source| Error::Dns { host: origin.host().to_owned(), source: Arc::new(source) };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map_err(failed)? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

/// Connects to one of the addresses that may be connected to: each gets a head start on the next.
async fn dial(origin: &Origin, permits: impl Fn(IpAddr) -> bool) -> Result<TcpStream, Error> {
    let found = match origin.literal() {
        Some(address) => vec![address],
        None => resolve(origin).await?,
    };
    let (permitted, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| permits(*address));
    if let ([], Some(address)) = (&*permitted, refused.first()) {
        return Err(Error::Address { host: origin.host().to_owned(), address: *address });
    }
    let mut waiting = interleave(permitted).into_iter().take(ADDRESSES_MAX);
    let mut dialling = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address to connect to");
    loop {
        if let Some(address) = waiting.next() {
            dialling.push(TcpStream::connect(SocketAddr::new(address, origin.port())));
        } else if dialling.is_empty() {
            return Err(Error::Connect { host: origin.host().to_owned(), source: Arc::new(last) });
        }
        let more = waiting.len() > 0;
        let ended =
            if more { timeout(HEAD_START, dialling.next()).await.ok().flatten() } else { dialling.next().await };
        match ended {
            Some(Ok(stream)) => {
                // Requests are small and wait for their answers.
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Some(Err(error)) => last = error,
            None => {}
        }
    }
}

/// Both families in turn, so that one that leads nowhere costs one head start.
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// What a connection runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An open connection.
pub(super) struct Connection {
    stream: TokioIo<Box<dyn Stream>>,
    is_proxied: bool,
}

impl Connection {
    fn new(stream: Box<dyn Stream>, is_proxied: bool) -> Self {
        Self { stream: TokioIo::new(stream), is_proxied }
    }
}

impl PooledConnection for Connection {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxied)
    }
}

impl hyper::rt::Read for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl hyper::rt::Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection that is there already, as the tunnel's connector.
struct Ready(Option<Box<dyn Stream>>);

impl Service<Uri> for Ready {
    type Response = Connection;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Connection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let taken = self.0.take().ok_or_else(|| io::Error::other("the connection was used already"));
        std::future::ready(taken.map(|stream| Connection::new(stream, false)))
    }
}

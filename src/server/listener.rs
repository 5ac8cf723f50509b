//! Accepting connections, and turning away those that there is no place for.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use super::Common;
use super::Listener;
use super::Open;
use super::Service;
use super::connection;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 1_024;

/// How long nothing is accepted after the process ran out of files or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections that are being told that there is no place; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// How long a client that is turned away has to take its answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a client gets for which there is no place. Written by hand: nothing of it is read first.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 91\r\n\r\n\
{\"errors\":[{\"code\":\"UNAVAILABLE\",\"message\":\"too many connections are open\",\"detail\":null}]}";

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address}")]
pub struct Error {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Listens.
///
/// # Errors
///
/// The address is in use, or not one of this machine.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart need not wait for the connections of the process before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| Error { address, source })
}

/// How many files this process may have open: the soft limit, raised to the hard one. Connections should take half of
/// them at most; stored blobs and transfers need the rest.
pub fn files_allowed() -> u64 {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // Where it can't be raised it stays; what holds then is read again.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Accepts until the end is asked for, then closes the socket. No fault of a single connection ends it.
pub(super) async fn accept<S: Service>(listener: Listener<S>, common: &Arc<Common>, alive: &mpsc::Sender<Infallible>) {
    let listener = Arc::new(listener);
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    // Given up when the process runs out of files, so that one more client can be told.
    let mut spare = File::open("/dev/null").ok();
    loop {
        let accepted = tokio::select! {
            biased;
            () = common.shutdown.draining() => return,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&listener.places).try_acquire_owned() {
                Ok(place) => {
                    let open = Open::new(common, alive, place);
                    common.tasks.spawn("connection", connection::serve(stream, peer, Arc::clone(&listener), open));
                }
                Err(_) => turn_away(stream, listener.tls.is_some(), common, &turned_away),
            },
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                spare = None;
                if let Ok(Ok((stream, _))) = tokio::time::timeout(PAUSE, listener.socket.accept()).await {
                    common.metrics.connection_refused("limit");
                    // The descriptor is needed back at once, so the client has no time to read slowly.
                    drop(stream.try_write(NO_PLACE));
                }
                tokio::select! {
                    () = common.shutdown.draining() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
        if spare.is_none() {
            spare = File::open("/dev/null").ok();
        }
    }
}

/// Whether the fault is of the connection that was being accepted, and not of the process.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}

/// Says that there is no place, for at most a second, and closes. Over TLS there is no way to say it without work.
fn turn_away(mut stream: TcpStream, tls: bool, common: &Common, turned_away: &Arc<Semaphore>) {
    common.metrics.connection_refused("limit");
    let Ok(permit) = Arc::clone(turned_away).try_acquire_owned() else { return };
    if tls {
        return;
    }
    common.tasks.spawn("farewell", async move {
        let farewell = async {
            stream.write_all(NO_PLACE).await?;
            stream.shutdown().await?;
            // Closed with bytes unread, the connection would be reset and the answer lost.
            let mut scratch = [0; 1024];
            while stream.read(&mut scratch).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether the client took its answer makes no difference.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        drop(permit);
    });
}

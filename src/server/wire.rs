//! The bytes of one connection, with the time-outs that hyper does not have.
//!
//! * From a request's first byte to the end of its head: hyper's own timer runs while a connection is idle too, and is
//!   made and dropped with each request.
//! * A client that takes no byte of an answer.
//! * Closing with bytes unread would reset the connection, and the answer would be lost: some are read first.

use std::future::Future as _;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Buf as _;
use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use crate::body::Outlet;

use super::head::Framing;
use super::head::HeadScan;
use super::sending;

/// How much is read and thrown away before a connection closes, and for how long.
const UNREAD_BYTES_MAX: usize = 256 << 10;
const UNREAD_FOR: Duration = Duration::from_secs(1);

/// The connection as it was opened.
#[derive(Debug)]
pub(super) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// A request's head began then.
    Head(Instant),
    /// Requests are being answered.
    Busy,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    running: usize,
    scan: HeadScan,
    /// Whether something may be unread when it closes.
    unread: bool,
    /// Since when no request runs.
    idle_since: Instant,
}

/// What the connection's bytes and its requests know of each other.
#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

/// A request that is being answered, until its body is sent or dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Shared>);

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            phase: Phase::Idle,
            running: 0,
            scan: HeadScan::default(),
            unread: false,
            idle_since: Instant::now(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's head is complete.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        let mut state = self.state();
        state.running += 1;
        state.phase = Phase::Busy;
        Running(Arc::clone(self))
    }

    /// What the head of the request that is being answered says of its body.
    pub(super) fn framing(&self) -> Framing {
        self.state().scan.framing()
    }

    /// The connection will close with something unread.
    pub(super) fn leave_unread(&self) {
        self.state().unread = true;
    }

    /// Comes when no request ran for so long.
    pub(super) async fn idle_for(&self, long: Duration) {
        loop {
            let since = {
                let state = self.state();
                if state.running == 0 { state.idle_since } else { Instant::now() }
            };
            if since.elapsed() >= long {
                return;
            }
            tokio::time::sleep_until(since + long).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running = state.running.saturating_sub(1);
        if state.running == 0 {
            state.phase = Phase::Idle;
            state.scan.next();
            state.idle_since = Instant::now();
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From a request's first byte to the end of its head; none where heads are not lines (HTTP/2).
    pub(super) head: Option<Duration>,
    /// For the client to take a byte.
    pub(super) stall: Duration,
}

/// The bytes of one connection.
pub(super) struct Wire {
    stream: Stream,
    /// What was read to tell the protocol.
    first: Bytes,
    shared: Arc<Shared>,
    patience: Patience,
    /// What of files it sends by itself; none where the bytes must be touched (TLS) or don't go out in order (HTTP/2).
    outlet: Option<Arc<Outlet>>,
    head_timer: Option<Pin<Box<Sleep>>>,
    stall_timer: Option<Pin<Box<Sleep>>>,
    /// Since when the client takes nothing.
    stalled: Option<Instant>,
    leaving: Option<Leaving>,
}

/// Reading what nobody wants, before closing.
struct Leaving {
    timer: Pin<Box<Sleep>>,
    left: usize,
}

impl Wire {
    pub(super) fn new(
        stream: Stream,
        first: Bytes,
        shared: Arc<Shared>,
        patience: Patience,
        outlet: Option<Arc<Outlet>>,
    ) -> Self {
        Self {
            stream,
            first,
            shared,
            patience,
            outlet,
            head_timer: None,
            stall_timer: None,
            stalled: None,
            leaving: None,
        }
    }

    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => {
                if let Some(outlet) = &self.outlet
                    && let Some(turn) = outlet.turn(slices)?
                {
                    let before = slices.get(..turn.before).unwrap_or_default();
                    return sending::poll_send(stream, cx, before, &turn.range, outlet);
                }
                Pin::new(stream).poll_write_vectored(cx, slices)
            }
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Notes what arrived.
    fn arrived(&mut self, bytes: &[u8]) {
        if self.patience.head.is_none() || bytes.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        state.scan.feed(bytes);
        if state.phase == Phase::Idle {
            state.phase = Phase::Head(Instant::now());
        }
    }

    /// Fails when a head takes too long; called when there is nothing to read.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(patience) = self.patience.head else { return Poll::Pending };
        let Phase::Head(since) = self.shared.state().phase else {
            self.head_timer = None;
            return Poll::Pending;
        };
        let timer = self.head_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + patience)));
        if timer.deadline() != since + patience {
            timer.as_mut().reset(since + patience);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request's head took too long")))
    }

    /// Notes whether the client takes what is written; fails when it takes nothing for too long.
    fn poll_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        let deadline = since + self.patience.stall;
        // The timer is not set anew with each byte: it is looked at when it goes off.
        let timer = self.stall_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                let error = io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing");
                return Poll::Ready(Err(error));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let begun = buffer.filled().len();
        if !this.first.is_empty() {
            let count = this.first.len().min(buffer.remaining());
            let first = this.first.split_to(count);
            buffer.put_slice(&first);
            this.arrived(&first);
            // What came with it goes into the same piece of memory: two reads would make hyper take twice as much.
            if !this.first.is_empty() || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let before = buffer.filled().len();
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        match read {
            Poll::Ready(Ok(())) => {
                this.arrived(buffer.filled().get(before..).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            // What was there is read; the next call tells.
            Poll::Pending | Poll::Ready(Err(_)) if before > begun => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_head(cx),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.poll_write_slices(cx, slices);
        this.poll_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        this.poll_stall(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.leaving.is_none() {
            let shut = match &mut this.stream {
                Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
                Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            };
            ready!(this.poll_stall(cx, shut))?;
            if !this.shared.state().unread {
                return Poll::Ready(Ok(()));
            }
            this.first.advance(this.first.len());
        }
        let leaving = this
            .leaving
            .get_or_insert_with(|| Leaving { timer: Box::pin(tokio::time::sleep(UNREAD_FOR)), left: UNREAD_BYTES_MAX });
        let mut scratch = [0; 4096];
        while leaving.left > 0 && leaving.timer.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            match &mut this.stream {
                Stream::Plain(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buffer))?,
                Stream::Tls(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buffer))?,
            }
            match buffer.filled().len() {
                0 => break,
                count => leaving.left = leaving.left.saturating_sub(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

//! The body of an answer: [`Content`] as hyper takes it, and its account.
//!
//! Where the connection sends files by itself a body hands it ranges. Elsewhere (TLS, HTTP/2, what is not in the page
//! cache) it reads them in chunks, allocated for each poll and not for each connection: a thousand slow readers cost
//! nothing while they wait.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;

use crate::body::ByteStream;
use crate::body::CHUNK_BYTES;
use crate::body::Content;
use crate::body::FileRange;
use crate::body::Outlet;
use crate::body::PIECE_BYTES;
use crate::body::Reading;
use crate::body::Tally;

use super::account::Account;

/// The body of an answer.
#[derive(Debug)]
pub struct Body {
    content: Inner,
    account: Option<Arc<Account>>,
}

enum Inner {
    Bytes(Bytes),
    File(Sending),
    Stream { bytes: ByteStream, left: Option<u64> },
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File(sending) => sending.range.fmt(f),
            Self::Stream { left, .. } => write!(f, "Stream({left:?})"),
        }
    }
}

/// A file being sent: what is left of it, the read that is under way, and the connection where that sends files itself.
struct Sending {
    range: FileRange,
    read: Option<Reading>,
    outlet: Option<Arc<Outlet>>,
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// Counts what is sent, and closes the account when the body is done with or dropped.
    #[must_use]
    pub(super) fn accounted(mut self, account: Account) -> Self {
        self.account = Some(Arc::new(account));
        self
    }

    /// The same on a connection that sends files by itself. There nothing but this body's frames may be written, in
    /// order, until the outlet has sent what they stand for.
    #[must_use]
    pub fn through(mut self, outlet: &Arc<Outlet>) -> Self {
        if let Inner::File(sending) = &mut self.content {
            sending.outlet = Some(Arc::clone(outlet));
        }
        self
    }

    /// The count of bytes to come, where it is known.
    pub fn length(&self) -> Option<u64> {
        match &self.content {
            Inner::Bytes(bytes) => Some(bytes.len() as u64),
            Inner::File(sending) => Some(sending.range.length),
            Inner::Stream { left, .. } => *left,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { content: Inner::Bytes(bytes), account: None }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<Content> for Body {
    fn from(content: Content) -> Self {
        let content = match content {
            Content::Bytes(bytes) => Inner::Bytes(bytes),
            Content::File(range) => Inner::File(Sending { range, read: None, outlet: None }),
            Content::Stream { bytes, length } => Inner::Stream { bytes, left: length },
        };
        Self { content, account: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Inner::File(sending) = &mut this.content
            && let Some(bytes) = sending.hand_over(this.account.as_ref())
        {
            // Counted as it goes out.
            if let (Some(account), true) = (&this.account, this.content.is_done()) {
                account.whole();
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let next = ready!(this.content.poll_next(cx));
        if let Some(account) = &this.account {
            match &next {
                Some(Ok(bytes)) => account.sent(bytes.len() as u64),
                Some(Err(error)) => account.broken(error),
                None => account.whole(),
            }
            // hyper does not ask again where the length says that this was all.
            if matches!(next, Some(Ok(_))) && this.content.is_done() {
                account.whole();
            }
        }
        Poll::Ready(next.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Inner {
    fn is_done(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::File(sending) => sending.range.length == 0,
            Self::Stream { left, .. } => *left == Some(0),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_done() {
            return Poll::Ready(None);
        }
        match self {
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::File(sending) => sending.poll_read(cx).map(Some),
            Self::Stream { bytes, left } => {
                let next = ready!(bytes.as_mut().poll_next(cx));
                Poll::Ready(match (next, left) {
                    (Some(Ok(bytes)), Some(left)) => match left.checked_sub(bytes.len() as u64) {
                        Some(rest) => {
                            *left = rest;
                            Some(Ok(bytes))
                        }
                        None => Some(Err(io::Error::other("the body has more bytes than were announced"))),
                    },
                    // A body that ends early is broken off, never ended cleanly.
                    (None, Some(_)) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                    (next, _) => next,
                })
            }
        }
    }
}

impl Sending {
    /// The next part as a stand-in, where the connection can send it without a wait for the disk.
    fn hand_over(&mut self, account: Option<&Arc<Account>>) -> Option<Bytes> {
        let outlet = self.outlet.as_ref().filter(|_| self.read.is_none())?;
        let piece = self.range.slice(0, next_piece(self.range.length));
        if piece.length == 0 || !piece.is_at_hand() {
            return None;
        }
        let tally = account.map(|account| Arc::clone(account) as Arc<dyn Tally>);
        let bytes = outlet.announce(&piece, tally);
        self.range.advance(piece.length);
        Some(bytes)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let read = self.read.get_or_insert_with(|| self.range.read());
        let result = ready!(Pin::new(read).poll(cx));
        self.read = None;
        if let Ok(bytes) = &result {
            self.range.advance(bytes.len() as u64);
        }
        Poll::Ready(result)
    }
}

/// How many bytes of those that are left go out at once. The last ones go by themselves: a body is over for hyper when
/// its last part is handed over, and the time that a connection may be idle begins, however slowly the client takes it.
fn next_piece(left: u64) -> u64 {
    let (most, last) = (PIECE_BYTES as u64, CHUNK_BYTES as u64);
    if left <= last { left } else { most.min(left - last) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    fn file_of(bytes: &[u8]) -> FileRange {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        FileRange { file: Arc::new(file), offset: 0, length: bytes.len() as u64 }
    }

    #[tokio::test]
    async fn a_file_arrives_byte_for_byte() {
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let body = Body::from(Content::File(file_of(&bytes)));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(1_200_000));
        assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
        let slice = Body::from(Content::File(file_of(&bytes).slice(131_071, 200_000)));
        assert_eq!(slice.collect().await.unwrap().to_bytes(), bytes[131_071..331_071]);
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_breaks_the_body() {
        let mut range = file_of(&[7; 1000]);
        range.length = 2000;
        assert!(Body::from(Content::File(range)).collect().await.is_err());
    }

    #[tokio::test]
    async fn a_connection_that_sends_files_gets_stand_ins_and_the_end_by_itself() {
        let (last, rest) = (CHUNK_BYTES, 2 * PIECE_BYTES + 9);
        let outlet = Arc::new(Outlet::default());
        let range = file_of(&vec![7; rest + last]);
        if !range.is_at_hand() {
            // A file system that can't say what is in memory, as tmpfs: nothing is handed over.
            return;
        }
        let mut body = Body::from(Content::File(range)).through(&outlet);
        let mut at = 0;
        for length in [PIECE_BYTES, PIECE_BYTES, 9, last] {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            let turn = outlet.turn(&[io::IoSlice::new(&frame)]).unwrap().unwrap();
            assert_eq!((frame.len(), turn.range.offset), (length, at));
            outlet.taken(length);
            at += length as u64;
        }
        assert!(http_body::Body::is_end_stream(&body) && body.frame().await.is_none());
    }

    #[tokio::test]
    async fn what_is_not_there_is_read_and_not_promised() {
        let outlet = Arc::new(Outlet::default());
        let range = FileRange { offset: 100, ..file_of(&[7; 100]) };
        assert!(Body::from(Content::File(range)).through(&outlet).frame().await.unwrap().is_err());
        assert!(outlet.turn(&[]).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_stream_must_have_the_bytes_that_were_announced() {
        let parts = |count: usize| -> ByteStream {
            Box::pin(stream::iter((0..count).map(|_| Ok(Bytes::from_static(b"1234")))))
        };
        for (count, length, fine) in [(3, Some(12), true), (2, Some(12), false), (3, Some(10), false), (2, None, true)]
        {
            let body = Body::from(Content::Stream { bytes: parts(count), length });
            assert_eq!(body.collect().await.is_ok(), fine, "{count} {length:?}");
        }
    }
}

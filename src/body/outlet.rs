//! Sending files without a copy: the agreement between a body and the connection that it goes out on.
//!
//! An HTTP library asks a body for bytes and gives them to the connection. The body of a file hands out a *stand-in*: so
//! many bytes of a region that is never written and never read; and it tells the connection's [`Outlet`] which bytes of
//! which file are meant. The connection knows the region by its address and sends from the file instead (`sendfile`).
//!
//! That no stand-in ever goes out as it is does not rest on the library: every write is held against what was announced,
//! and where the stand-in that comes next is not the one that was announced next, or does not come at all, because
//! something in between copied it, the connection breaks.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::Bytes;

use super::FileRange;

/// The most bytes that one stand-in is for: what a connection sends before others of its thread have their turn.
pub const PIECE_BYTES: usize = 1 << 20;

/// The region that stand-ins are cut from. Nothing reads it, so it takes no memory.
static REGION: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// Who is told of the bytes of a body that went out.
pub trait Tally: Send + Sync {
    /// So many were handed to the connection, and will be sent.
    fn handed(&self, bytes: u64);
    /// So many of these were taken by the socket.
    fn taken(&self, bytes: u64);
    /// The rest will not be: the fault is ours.
    fn broken(&self, error: &io::Error);
}

/// What of files a connection will send, in order.
#[derive(Default)]
pub struct Outlet(Mutex<VecDeque<Piece>>);

/// What a stand-in stands for.
struct Piece {
    /// What of it was not sent.
    range: FileRange,
    /// How many bytes of the stand-in were.
    sent: usize,
    tally: Option<Arc<dyn Tally>>,
}

/// What is to be written now.
#[derive(Debug)]
pub struct Turn {
    /// How many of the slices come first, as they are.
    pub before: usize,
    /// The bytes that come then.
    pub range: FileRange,
}

impl Outlet {
    fn pieces(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces the first bytes of `range`, [`PIECE_BYTES`] at most; the stand-in is as long as what it is for, and
    /// must be the next thing that is written.
    pub fn announce(&self, range: &FileRange, tally: Option<Arc<dyn Tally>>) -> Bytes {
        let length = usize::try_from(range.length).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let range = range.slice(0, length as u64);
        if let Some(tally) = &tally {
            tally.handed(range.length);
        }
        self.pieces().push_back(Piece { range, sent: 0, tally });
        Bytes::from_static(REGION.get(..length).unwrap_or_default())
    }

    /// Looks what of `slices` are stand-ins: the first of them, with what it is for; `None` where there is none and none
    /// was announced.
    ///
    /// # Errors
    ///
    /// Something else is written than what was announced. The connection must break.
    pub fn turn(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<Turn>> {
        let found =
            slices.iter().position(|slice| !slice.is_empty() && REGION.as_ptr_range().contains(&slice.as_ptr()));
        let pieces = self.pieces();
        match (found.and_then(|before| Some((before, slices.get(before)?))), pieces.front()) {
            (None, None) => Ok(None),
            (Some((before, slice)), Some(piece)) if piece.is(slice) => {
                Ok(Some(Turn { before, range: piece.range.clone() }))
            }
            _ => Err(io::Error::other("what is written is not what was announced")),
        }
    }

    /// So many bytes of the turn's range were taken by the socket.
    pub fn taken(&self, count: usize) {
        let mut pieces = self.pieces();
        let Some(piece) = pieces.front_mut() else { return };
        piece.sent += count;
        piece.range.advance(count as u64);
        if let Some(tally) = &piece.tally {
            tally.taken(count as u64);
        }
        if piece.range.length == 0 {
            // Not under the lock: the last that is told of a body writes its line in the log.
            let done = pieces.pop_front();
            drop(pieces);
            drop(done);
        }
    }

    /// The turn's range can't be sent.
    pub fn broken(&self, error: &io::Error) {
        if let Some(tally) = self.pieces().front().and_then(|piece| piece.tally.as_ref()) {
            tally.broken(error);
        }
    }
}

impl Piece {
    /// Whether these bytes are what is left of its stand-in.
    fn is(&self, slice: &[u8]) -> bool {
        let begin = REGION.get(self.sent..).unwrap_or_default();
        slice.as_ptr() == begin.as_ptr() && slice.len() as u64 == self.range.length
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outlet({})", self.pieces().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(length: u64) -> FileRange {
        FileRange { file: Arc::new(tempfile::tempfile().unwrap()), offset: 7, length }
    }

    #[test]
    fn a_stand_in_is_known_again_however_it_is_taken() {
        let outlet = Outlet::default();
        assert!(outlet.turn(&[IoSlice::new(b"head")]).unwrap().is_none());
        let first = outlet.announce(&range(2 * PIECE_BYTES as u64), None);
        let second = outlet.announce(&range(10), None);
        assert_eq!((first.len(), second.len()), (PIECE_BYTES, 10));
        let turn = outlet.turn(&[IoSlice::new(b"head"), IoSlice::new(&first), IoSlice::new(&second)]).unwrap().unwrap();
        assert_eq!((turn.before, turn.range.offset, turn.range.length), (1, 7, PIECE_BYTES as u64));
        outlet.taken(PIECE_BYTES - 1);
        let rest = first.slice(PIECE_BYTES - 1..);
        let turn = outlet.turn(&[IoSlice::new(&rest), IoSlice::new(&second)]).unwrap().unwrap();
        assert_eq!((turn.before, turn.range.offset, turn.range.length), (0, 6 + PIECE_BYTES as u64, 1));
        outlet.taken(1);
        assert_eq!(outlet.turn(&[IoSlice::new(&second)]).unwrap().unwrap().range.length, 10);
        outlet.taken(10);
        assert!(outlet.turn(&[IoSlice::new(b"head")]).unwrap().is_none());
    }

    #[test]
    fn what_was_not_announced_or_was_copied_is_refused() {
        let outlet = Outlet::default();
        let first = outlet.announce(&range(100), None);
        // Copied, cut, not from its beginning, or left out.
        for slice in [&first.to_vec()[..], &first[..99], &first[1..], b"head"] {
            assert!(outlet.turn(&[IoSlice::new(slice)]).is_err());
        }
        outlet.taken(100);
        assert!(outlet.turn(&[IoSlice::new(&first)]).is_err());
    }
}

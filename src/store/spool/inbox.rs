//! Bytes that came and are not written yet, gathered into pieces that are worth a write.
//!
//! They are copied. What a network stack hands out is a small part of a large buffer: kept until it is written, it would
//! keep that buffer, and the next would be memory that the kernel has to clear first, which costs more than the copy.

use std::time::Duration;

use tokio::time::Instant;

use crate::oci::range::Extent;

use super::extents::Extents;

/// Bytes are written when so many came: hashing and writing 16 KiB at a time costs four times the processor time.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// Bytes that may wait while a batch is written: so receiving goes on beside hashing, and memory is bounded.
pub(super) const PENDING_BYTES_MAX: usize = 1 << 20;

/// The first bytes are written at once, so that a client's first byte does not wait for a batch.
const FIRST_BYTES: usize = 64 << 10;

/// Bytes that came this long ago are written, whole batch or not.
const BATCH_WAIT: Duration = Duration::from_millis(10);

/// Buffers that were written and wait to be filled again.
const SPARE_MAX: usize = PENDING_BYTES_MAX / BATCH_BYTES;

/// Bytes without a hole, and their place.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

impl Piece {
    pub(super) fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// What came, written or not.
    accepted: Extents,
    pieces: Vec<Piece>,
    bytes: usize,
    /// When the oldest of the pieces came.
    since: Option<Instant>,
    /// Bytes that were taken out to be written, at most as many as count.
    taken: usize,
    spare: Vec<Vec<u8>>,
}

impl Inbox {
    /// Of a file that has the bytes before `here` already.
    pub(super) fn after(here: u64) -> Self {
        let mut inbox = Self::default();
        inbox.accepted.insert(0, here);
        inbox
    }

    /// Takes in those of the bytes whose place is still empty; `size` is that of the whole, where it is known.
    pub(super) fn accept(&mut self, at: u64, bytes: &[u8], size: Option<u64>) {
        let end = at + bytes.len() as u64;
        let mut from = at;
        while from < end {
            let hole = self.accepted.hole(from);
            let (start, stop) = (hole.start, hole.end.min(end));
            if start >= end {
                break;
            }
            let place = |offset: u64| usize::try_from(offset - at).unwrap_or(bytes.len());
            let part = bytes.get(place(start)..place(stop)).unwrap_or_default();
            self.gather(start, part, size);
            self.accepted.insert(start, stop);
            self.since.get_or_insert_with(Instant::now);
            from = stop;
        }
    }

    fn gather(&mut self, mut at: u64, mut bytes: &[u8], size: Option<u64>) {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            let open = self.pieces.iter().rposition(|piece| piece.end() == at && piece.room() > 0);
            let piece = if let Some(piece) = open.and_then(|open| self.pieces.get_mut(open)) {
                piece
            } else {
                let left = size.map_or(u64::MAX, |size| size.saturating_sub(at));
                let bytes = self.buffer(usize::try_from(left).unwrap_or(usize::MAX).min(BATCH_BYTES));
                self.pieces.push_mut(Piece { at, bytes })
            };
            let (now, later) = bytes.split_at(piece.room().min(bytes.len()));
            piece.bytes.extend_from_slice(now);
            at += now.len() as u64;
            bytes = later;
        }
    }

    /// An empty buffer for so many bytes.
    fn buffer(&mut self, bytes: usize) -> Vec<u8> {
        match self.spare.pop() {
            Some(spare) if spare.capacity() >= bytes => spare,
            _ => Vec::with_capacity(bytes.max(1)),
        }
    }

    /// Whether there is something that ought to be written now.
    pub(super) fn is_due(&self) -> bool {
        self.bytes > 0
            && (self.bytes >= BATCH_BYTES
                || self.taken < FIRST_BYTES
                || self.since.is_some_and(|since| since.elapsed() >= BATCH_WAIT))
    }

    /// Bytes that are not written yet.
    pub(super) fn pending(&self) -> usize {
        self.bytes
    }

    /// The first hole at or after `at` in what came.
    pub(super) fn hole(&self, at: u64) -> Extent {
        self.accepted.hole(at)
    }

    /// Everything there is, in the order of its places.
    pub(super) fn take(&mut self) -> Vec<Piece> {
        self.taken = self.taken.saturating_add(std::mem::take(&mut self.bytes));
        self.since = None;
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.sort_unstable_by_key(|piece| piece.at);
        pieces
    }

    /// Gives buffers back that were written.
    pub(super) fn reuse(&mut self, pieces: Vec<Piece>) {
        let room = SPARE_MAX.saturating_sub(self.spare.len());
        self.spare.extend(pieces.into_iter().take(room).map(|piece| {
            let mut bytes = piece.bytes;
            bytes.clear();
            bytes
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(pieces: &[Piece]) -> Vec<(u64, usize)> {
        pieces.iter().map(|piece| (piece.at, piece.bytes.len())).collect()
    }

    #[test]
    fn bytes_that_follow_each_other_become_one_piece() {
        let mut inbox = Inbox::default();
        for at in 0..20 {
            inbox.accept(at * 16_384, &vec![7; 16_384], Some(400_000));
            // A second fetch brings a part ahead meanwhile.
            inbox.accept(1_000_000 + at * 10, &[8; 10], None);
        }
        assert_eq!(inbox.pending(), 20 * (16_384 + 10));
        let pieces = inbox.take();
        assert_eq!(places(&pieces), [(0, BATCH_BYTES), (BATCH_BYTES as u64, 65_536), (1_000_000, 200)]);
        assert_eq!(pieces[1].bytes.capacity(), 400_000 - BATCH_BYTES, "no more room than there are bytes to come");
        assert!(pieces.iter().take(2).all(|piece| piece.bytes.iter().all(|byte| *byte == 7)));
    }

    #[test]
    fn the_first_bytes_for_a_place_win() {
        let mut inbox = Inbox::default();
        inbox.accept(2, b"cd", None);
        inbox.accept(0, b"ABCDEF", None);
        let mut all = [0; 6];
        for piece in inbox.take() {
            let at = usize::try_from(piece.at).unwrap();
            all[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
        assert_eq!(&all, b"ABcdEF");
        assert_eq!(inbox.hole(0).start, 6);
    }

    #[test]
    fn a_buffer_that_was_written_is_filled_again() {
        let mut inbox = Inbox::default();
        inbox.accept(0, &vec![1; BATCH_BYTES], None);
        let first = inbox.take();
        let address = first[0].bytes.as_ptr();
        inbox.reuse(first);
        inbox.accept(BATCH_BYTES as u64, &[2; 100], None);
        let second = inbox.take();
        assert_eq!(second[0].bytes.as_ptr(), address);
        assert_eq!(second[0].bytes, [2; 100]);
    }
}

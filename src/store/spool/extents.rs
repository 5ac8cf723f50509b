//! Which bytes of a sparse file are there: pure.

use crate::oci::range::Extent;

/// Extents, in order, none touching the next.
#[derive(Debug, Default)]
pub(super) struct Extents(Vec<Extent>);

impl Extents {
    /// Adds the bytes from `start` to `end`.
    pub(super) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|e| e.end < start);
        let last = self.0.partition_point(|e| e.start <= end);
        let touched = self.0.get(first..last).unwrap_or_default();
        let start = touched.first().map_or(start, |e| e.start.min(start));
        let end = touched.last().map_or(end, |e| e.end.max(end));
        self.0.splice(first..last, [Extent { start, end }]);
    }

    /// One past the last byte that is there without a hole from `at` on; `at` itself where it is not there.
    pub(super) fn reach(&self, at: u64) -> u64 {
        let next = self.0.partition_point(|e| e.end <= at);
        self.0.get(next).filter(|e| e.start <= at).map_or(at, |e| e.end)
    }

    /// One past the last byte that is there.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |e| e.end)
    }

    /// The first hole at or after `at`; its end is open (`u64::MAX`) where nothing follows.
    pub(super) fn hole(&self, at: u64) -> Extent {
        let start = self.reach(at);
        let next = self.0.partition_point(|e| e.end <= start);
        Extent { start, end: self.0.get(next).map_or(u64::MAX, |e| e.start) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn extents_say_what_a_list_of_bytes_says(inserts in proptest::collection::vec((0_u64..60, 0_u64..20), 0..20), at in 0_u64..90) {
            let (mut extents, mut bytes) = (Extents::default(), [false; 100]);
            for (start, length) in inserts {
                extents.insert(start, start + length);
                bytes[usize::try_from(start).unwrap()..usize::try_from(start + length).unwrap()].fill(true);
            }
            let from = usize::try_from(at).unwrap();
            let reach = at + bytes[from..].iter().take_while(|b| **b).count() as u64;
            prop_assert_eq!(extents.reach(at), reach);
            let hole = extents.hole(at);
            prop_assert_eq!(hole.start, reach);
            let rest = &bytes[usize::try_from(reach).unwrap()..];
            let end = rest.iter().position(|b| *b).map_or(u64::MAX, |n| reach + n as u64);
            prop_assert_eq!(hole.end, end);
            prop_assert_eq!(extents.end(), bytes.iter().rposition(|b| *b).map_or(0, |n| n as u64 + 1));
            prop_assert!(extents.0.windows(2).all(|w| w[0].end < w[1].start));
        }
    }
}

//! Who fetches which bytes of a blob: claims over its extents, so that no byte is asked for twice.
//!
//! The fill's own fetch claims from the front; a client that asks for a part far ahead makes a second claim there, which
//! cuts the claim around it short. Parallel ranges of one transfer are more claims of the same kind. Pure.

/// Claims over one blob's bytes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Claims that are being fetched, in no order: there are a handful.
    active: Vec<Claim>,
    next_id: u64,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    id: u64,
    /// The next byte that this claim will fetch.
    at: u64,
    /// One past its last byte; `None` while the blob's size is not known.
    end: Option<u64>,
}

/// A claim that was made: what to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    /// Names it in later calls.
    pub(super) id: u64,
    /// The first byte.
    pub(super) start: u64,
    /// One past the last byte, where the size is known.
    pub(super) end: Option<u64>,
}

impl Claims {
    /// Claims the bytes from `start` on, up to `end` or to the next claim. Another claim that covers `start` ends there
    /// from now on. `None` when `start` itself is about to be fetched: within `near` bytes of another claim's next one.
    pub(super) fn claim(&mut self, start: u64, end: Option<u64>, near: u64) -> Option<Claimed> {
        let covers = |c: &Claim| c.at <= start && c.end.is_none_or(|e| start < e);
        if self.active.iter().any(|c| covers(c) && start.saturating_sub(c.at) <= near) {
            return None;
        }
        let mut end = end;
        for claim in &mut self.active {
            if covers(claim) {
                end = match (claim.end, end) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                claim.end = Some(start);
            } else if claim.at > start {
                end = Some(end.map_or(claim.at, |e| e.min(claim.at)));
            }
        }
        self.next_id += 1;
        let id = self.next_id;
        self.active.push(Claim { id, at: start, end });
        Some(Claimed { id, start, end })
    }

    /// Says that the claim has fetched up to `at`; returns how far it may go on (`None`: to the end, not yet known).
    pub(super) fn advance(&mut self, id: u64, at: u64) -> Option<u64> {
        let claim = self.active.iter_mut().find(|c| c.id == id)?;
        claim.at = claim.at.max(at);
        claim.end
    }

    /// Gives the claim up, fetched or not.
    pub(super) fn release(&mut self, id: u64) {
        self.active.retain(|c| c.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_ahead_cuts_the_one_around_it_short() {
        let mut claims = Claims::default();
        let front = claims.claim(0, Some(100), 10).unwrap();
        assert_eq!((front.start, front.end), (0, Some(100)));
        let ahead = claims.claim(50, Some(100), 10).unwrap();
        assert_eq!((ahead.start, ahead.end), (50, Some(100)));
        assert_eq!(claims.advance(front.id, 20), Some(50));
        let between = claims.claim(40, None, 10).unwrap();
        assert_eq!((between.start, between.end), (40, Some(50)));
    }

    #[test]
    fn what_is_about_to_come_is_not_claimed_again() {
        let mut claims = Claims::default();
        let front = claims.claim(0, Some(100), 10).unwrap();
        assert_eq!(claims.claim(10, None, 10), None);
        claims.advance(front.id, 60);
        assert_eq!(claims.claim(65, None, 10), None);
        // Behind a claim's next byte nothing is claimed by it any more.
        assert!(claims.claim(30, Some(60), 10).is_some());
    }

    #[test]
    fn a_claim_that_is_given_up_is_free_again() {
        let mut claims = Claims::default();
        let front = claims.claim(0, None, 10).unwrap();
        assert!(claims.claim(5, None, 10).is_none());
        claims.release(front.id);
        assert!(claims.claim(0, None, 10).is_some());
    }
}

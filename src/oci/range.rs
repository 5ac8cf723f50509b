//! Byte ranges of requests (RFC 9110 §14).

use std::str::FromStr;

/// One range as a client asks for it, before the size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=first-last`, both included; `bytes=first-` without a last.
    From {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: Option<u64>,
    },
    /// `bytes=-count`: the last bytes.
    Last(u64),
}

/// A span of bytes within a body of known size: never empty, never past the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Extent {
    /// The count of bytes.
    pub fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// The range lies outside of the body: 416.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside of the {size} bytes")]
pub struct Unsatisfiable {
    /// The body's size.
    pub size: u64,
}

/// The header is not one range of bytes: it is ignored, as RFC 9110 §14.2 allows, and the whole is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a single range of bytes")]
pub struct NotOneRange;

impl ByteRange {
    /// What it means in a body of `size` bytes; an end past the body's is taken back to it.
    pub fn within(self, size: u64) -> Result<Extent, Unsatisfiable> {
        let (start, end) = match self {
            Self::From { first, last: Some(last) } => (first, last.saturating_add(1).min(size)),
            Self::From { first, last: None } => (first, size),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        if start >= end || start >= size { Err(Unsatisfiable { size }) } else { Ok(Extent { start, end }) }
    }
}

impl FromStr for ByteRange {
    type Err = NotOneRange;

    /// Reads a `Range` header. `first > last` is read as a range that no body satisfies, as the conformance suite asks.
    fn from_str(header: &str) -> Result<Self, NotOneRange> {
        let number = |text: &str| {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(NotOneRange);
            }
            // A number beyond every number is a large one.
            Ok(text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let (unit, spec) = header.split_once('=').ok_or(NotOneRange)?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Err(NotOneRange);
        }
        match spec.trim().split_once('-').ok_or(NotOneRange)? {
            ("", count) => Ok(Self::Last(number(count)?)),
            (first, "") => Ok(Self::From { first: number(first)?, last: None }),
            (first, last) => Ok(Self::From { first: number(first)?, last: Some(number(last)?) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_the_rfc_says() {
        for (header, size, want) in [
            ("bytes=0-99", 1000, Some((0, 100))),
            ("bytes=500-1499", 2000, Some((500, 1500))),
            ("bytes=500-", 2000, Some((500, 2000))),
            ("bytes=-500", 2000, Some((1500, 2000))),
            ("bytes=-5000", 2000, Some((0, 2000))),
            ("bytes=1000-5000", 2000, Some((1000, 2000))),
            ("bytes=0-18446744073709551615", 5, Some((0, 5))),
            ("bytes=0-99999999999999999999999", 5, Some((0, 5))),
            ("bytes=99999999999999999999999-", 5, None),
            ("bytes=500-0", 2000, None),
            ("bytes=2000-", 2000, None),
            ("bytes=-0", 2000, None),
            ("bytes=0-0", 0, None),
        ] {
            let seen = header.parse::<ByteRange>().ok().and_then(|r| r.within(size).ok()).map(|e| (e.start, e.end));
            assert_eq!(seen, want, "{header} of {size}");
        }
    }

    #[test]
    fn what_is_not_one_range_is_none() {
        for header in
            ["", "bytes", "bytes=", "bytes=-", "items=0-1", "bytes=a-b", "bytes=0-1,3-4", "bytes=+1-2", "bytes=1 -2"]
        {
            assert!(header.parse::<ByteRange>().is_err(), "{header}");
        }
    }
}

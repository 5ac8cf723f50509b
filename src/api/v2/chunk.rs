//! What a request says of the bytes that it sends: how many, and for which place of the blob. Pure.

use http::HeaderMap;
use http::header;

/// What is said of a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// `Content-Length`; none where the body comes in pieces.
    length: Option<u64>,
    /// `Content-Range`: the places of the first and the last byte.
    range: Option<(u64, u64)>,
}

/// `Content-Range` is no range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRange;

impl Chunk {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, NoRange> {
        let whole = Self::length_of(headers);
        let Some(range) = headers.get(header::CONTENT_RANGE) else { return Ok(whole) };
        let range = range.to_str().ok().and_then(range_of).ok_or(NoRange)?;
        Ok(Self { range: Some(range), ..whole })
    }

    /// What is said where the body is all of the blob.
    pub(super) fn length_of(headers: &HeaderMap) -> Self {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| number(value.to_str().ok()?));
        Self { length, range: None }
    }

    /// Whether it may be appended where an upload has come to `at`.
    pub(super) fn fits(&self, at: u64) -> bool {
        let Some((first, last)) = self.range else { return true };
        let counted = match self.length {
            // There is no way to write an empty range; some clients write the place.
            Some(0) => last == first,
            Some(length) => last.checked_sub(first).and_then(|n| n.checked_add(1)) == Some(length),
            None => first <= last,
        };
        first == at && counted
    }

    /// How many bytes come, as far as it is said.
    pub(super) fn expected(&self) -> Option<u64> {
        self.length.or_else(|| self.range.and_then(|(first, last)| last.checked_sub(first)?.checked_add(1)))
    }
}

/// The specification's form is `a-b`; others send RFC 9110's, `bytes a-b/*`, or what lies between the two.
fn range_of(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
    let text = match text.split_once('/') {
        Some((range, whole)) if whole == "*" || number(whole).is_some() => range,
        Some(_) => return None,
        None => text,
    };
    let (first, last) = text.split_once('-')?;
    Some((number(first)?, number(last)?))
}

/// Digits alone: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn chunk(length: Option<&'static str>, range: &'static str) -> Result<Chunk, NoRange> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_RANGE, HeaderValue::from_static(range));
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
        }
        Chunk::of(&headers)
    }

    #[test]
    fn the_forms_that_clients_send_are_read() {
        for range in ["5-14", "bytes 5-14", "bytes 5-14/*", "bytes 5-14/99", "bytes=5-14", "5-14/*"] {
            let chunk = chunk(Some("10"), range).unwrap();
            assert!(chunk.fits(5) && !chunk.fits(4) && !chunk.fits(6), "{range}");
        }
        for range in ["", "5", "5-", "-5", "a-b", "+5-14", "bytes", "5-14/x", "5-99999999999999999999", "5 - 14"] {
            assert_eq!(chunk(Some("10"), range), Err(NoRange), "{range}");
        }
    }

    #[test]
    fn the_length_must_be_that_of_the_range() {
        for (length, range, fits) in [
            (Some("10"), "0-9", true),
            (Some("9"), "0-9", false),
            (Some("11"), "0-9", false),
            (Some("1"), "0-0", true),
            (Some("0"), "0-0", true),
            (Some("0"), "0-9", false),
            (Some("10"), "9-0", false),
            (None, "0-9", true),
            (None, "9-0", false),
            (Some("0"), "0-18446744073709551615", false),
            (Some("18446744073709551615"), "0-18446744073709551615", false),
        ] {
            assert_eq!(chunk(length, range).unwrap().fits(0), fits, "{length:?} {range}");
        }
        assert!(Chunk::default().fits(7));
        assert_eq!(chunk(None, "5-14").unwrap().expected(), Some(10));
    }
}

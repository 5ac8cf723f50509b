//! Looks at the raw head of an HTTP/1.1 request for what hyper does not tell: a `Content-Length` beside a
//! `Transfer-Encoding`. Servers that disagree on which one counts can be made to take a body for a request
//! [CVE-2025-4366 and its relatives]; so such a request is refused (RFC 9112 §6.1 allows it). Pure.

/// The longest name that matters, with its colon.
const NAME_BYTES: usize = "transfer-encoding:".len();

/// What the head says of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// At most one of the two headers.
    Clean,
    /// Both.
    Conflict,
    /// The head came with the bytes before it, so it was not seen.
    Unknown,
}

/// Which part of a request the bytes belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Blank lines before it, which are passed over.
    #[default]
    Before,
    /// Its head.
    Head,
    /// Whatever comes after the head.
    After,
}

/// The state of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadScan {
    /// The beginning of the line, in lower case.
    line: [u8; NAME_BYTES],
    line_bytes: usize,
    part: Part,
    /// `Content-Length` and `Transfer-Encoding`.
    seen: (bool, bool),
    /// Bytes came after the head: a body, or the next request.
    more: bool,
    unknown: bool,
}

impl HeadScan {
    /// Takes bytes in as they arrive.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes.iter();
        while self.part != Part::After
            && let Some(byte) = rest.next()
        {
            if *byte == b'\n' {
                self.end_line();
            } else if let Some(slot) = self.line.get_mut(self.line_bytes) {
                *slot = byte.to_ascii_lowercase();
                self.line_bytes += 1;
            }
        }
        self.more |= rest.next().is_some();
    }

    fn end_line(&mut self) {
        let line = self.line.get(..self.line_bytes).unwrap_or_default();
        let empty = matches!(line, b"" | b"\r");
        self.seen.0 |= line.starts_with(b"content-length:");
        self.seen.1 |= line.starts_with(b"transfer-encoding:");
        self.part = match (self.part, empty) {
            (Part::Before, true) => Part::Before,
            (Part::Before | Part::Head, false) => Part::Head,
            (Part::Head, true) | (Part::After, _) => Part::After,
        };
        self.line_bytes = 0;
    }

    /// What was seen of the head of the request that is being answered.
    pub(super) fn framing(&self) -> Framing {
        match (self.unknown, self.seen) {
            (true, _) => Framing::Unknown,
            (false, (true, true)) => Framing::Conflict,
            (false, _) => Framing::Clean,
        }
    }

    /// The request is answered; the next one begins. Where bytes came after its head nobody knows where that is.
    pub(super) fn next(&mut self) {
        *self = Self { unknown: self.unknown || self.more, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(parts: &[&str]) -> HeadScan {
        let mut scan = HeadScan::default();
        for part in parts {
            scan.feed(part.as_bytes());
        }
        scan
    }

    #[test]
    fn both_headers_are_a_conflict_however_they_arrive() {
        let head = "\r\nPUT / HTTP/1.1\r\ncontent-LENGTH: 5\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(scanned(&[head]).framing(), Framing::Conflict);
        let letters: Vec<String> = head.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(scanned(&letters).framing(), Framing::Conflict);
    }

    #[test]
    fn what_stands_in_the_body_does_not_count() {
        let put = "PUT / HTTP/1.1\nTransfer-Encoding: chunked\n\nContent-Length: 5\n";
        let mut scan = scanned(&[put]);
        assert_eq!(scan.framing(), Framing::Clean);
        scan.next();
        assert_eq!(scan.framing(), Framing::Unknown);
        let mut alone = scanned(&["GET / HTTP/1.1\r\n\r\n"]);
        alone.next();
        assert_eq!(alone.framing(), Framing::Clean);
    }
}

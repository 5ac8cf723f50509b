//! Globs on whole names: `*` stays within a segment, `**` crosses `/` and `:`, also inside a word.
//!
//! `**:latest` is every `latest`. Libraries give `**` inside a word another meaning (it matches nothing), so this is ours.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 512;

/// A glob, anchored at both ends. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    text: Arc<str>,
    parts: Arc<[Part]>,
    /// The same in words, where the pattern is short enough: nearly all are.
    short: Option<Arc<Short>>,
}

/// A pattern of up to 63 parts: a set of states is a word, and a byte of the name takes a few operations on it.
#[derive(PartialEq, Eq, Hash)]
struct Short {
    /// For each byte, the states that it leads on from.
    moves: [u64; 256],
    /// The states that any byte stays in.
    any: u64,
    /// The states that a byte other than `/` and `:` stays in.
    segment: u64,
    /// The state after the last part.
    end: u64,
}

impl Short {
    fn new(parts: &[Part]) -> Option<Self> {
        let end = 1_u64.checked_shl(u32::try_from(parts.len()).ok()?)?;
        let mut new = Self { moves: [0; 256], any: 0, segment: 0, end };
        for (i, part) in parts.iter().enumerate() {
            let state = 1 << i;
            match part {
                Part::Literal(byte) => *new.moves.get_mut(usize::from(*byte))? |= state,
                Part::One => {
                    let bytes = (0_u8..=255).zip(&mut new.moves).filter(|(byte, _)| !matches!(byte, b'/' | b':'));
                    bytes.for_each(|(_, states)| *states |= state);
                }
                Part::Segment => new.segment |= state,
                Part::Any => new.any |= state,
            }
        }
        Some(new)
    }

    fn matches(&self, name: impl Iterator<Item = u8>) -> bool {
        let stars = self.any | self.segment;
        // A star matches nothing too: its state reaches the next one at once. Two stars never stand side by side.
        let skip = |states: u64| states | ((states & stars) << 1);
        let mut states = skip(1);
        for byte in name {
            let moves = self.moves.get(usize::from(byte)).copied().unwrap_or(0);
            let stays = if matches!(byte, b'/' | b':') { self.any } else { stars };
            states = skip(((states & moves) << 1) | (states & stays));
            if states == 0 {
                return false;
            }
        }
        states & self.end != 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Literal(u8),
    /// `?`: one byte that is neither `/` nor `:`.
    One,
    /// `*`: any bytes that are neither `/` nor `:`.
    Segment,
    /// `**`: any bytes.
    Any,
}

impl Part {
    fn is_star(&self) -> bool {
        matches!(self, Self::Segment | Self::Any)
    }

    /// Whether there is a byte that both match.
    fn shares_a_byte(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a == b,
            (Self::Literal(byte), Self::One | Self::Segment) | (Self::One | Self::Segment, Self::Literal(byte)) => {
                !matches!(byte, b'/' | b':')
            }
            _ => true,
        }
    }
}

/// Why a text is not a glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// There is nothing to match.
    #[error("a pattern can't be empty")]
    Empty,
    /// The pattern is too long.
    #[error("a pattern has at most 512 bytes")]
    Long,
    /// Three stars or more in a row.
    #[error("`***` means nothing: `*` stays within a segment, `**` crosses `/` and `:`")]
    Stars,
    /// A character that no name has.
    #[error("no name has a `{0}`; patterns know `*`, `**` and `?`")]
    Character(char),
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(GlobError::Long);
        }
        let mut parts = Vec::with_capacity(text.len());
        for c in text.chars() {
            let part = match (c, parts.last()) {
                ('*', Some(Part::Segment)) => {
                    parts.pop();
                    Part::Any
                }
                ('*', Some(Part::Any)) => return Err(GlobError::Stars),
                ('*', _) => Part::Segment,
                ('?', _) => Part::One,
                (c, _) if c.is_ascii_alphanumeric() || "-._/:@+".contains(c) => {
                    Part::Literal(u8::try_from(c).unwrap_or(b'?'))
                }
                (c, _) => return Err(GlobError::Character(c)),
            };
            parts.push(part);
        }
        let short = Short::new(&parts).map(Arc::new);
        Ok(Self { text: text.into(), parts: parts.into(), short })
    }
}

impl Glob {
    /// The pattern in writing.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has no wildcard: it names one thing.
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|p| matches!(p, Part::Literal(_)))
    }

    /// Whether it matches every name.
    pub fn is_everything(&self) -> bool {
        matches!(&*self.parts, [Part::Any])
    }

    /// Whether the whole of `name` matches. Time is at most the product of both lengths: states are kept as a set,
    /// so no pattern makes it explode.
    pub fn matches(&self, name: &str) -> bool {
        self.matches_parts(&[name])
    }

    /// Whether a name matches that is these parts, one after the other: it need not be put together.
    pub fn matches_parts(&self, name: &[&str]) -> bool {
        let bytes = name.iter().flat_map(|part| part.bytes());
        match &self.short {
            Some(short) => short.matches(bytes),
            None => self.matches_long(bytes),
        }
    }

    /// Whether there is any name that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        let width = other.parts.len() + 1;
        let mut seen = vec![false; (self.parts.len() + 1) * width];
        let mut places = vec![(0, 0)];
        while let Some((at, there)) = places.pop() {
            let Some(seen) = seen.get_mut(at * width + there).filter(|seen| !**seen) else { continue };
            *seen = true;
            let (mine, its) = (self.parts.get(at), other.parts.get(there));
            if mine.is_none() && its.is_none() {
                return true;
            }
            // A star may match nothing more; and one byte may belong to both, where a star also stays.
            places.extend(mine.filter(|part| part.is_star()).map(|_| (at + 1, there)));
            places.extend(its.filter(|part| part.is_star()).map(|_| (at, there + 1)));
            if let (Some(mine), Some(its)) = (mine, its)
                && mine.shares_a_byte(its)
            {
                places.push((at + usize::from(!mine.is_star()), there + usize::from(!its.is_star())));
            }
        }
        false
    }

    fn matches_long(&self, name: impl Iterator<Item = u8>) -> bool {
        let mut states = vec![false; self.parts.len() + 1];
        if let Some(first) = states.first_mut() {
            *first = true;
        }
        self.skip(&mut states);
        let mut next = vec![false; states.len()];
        for byte in name {
            next.fill(false);
            for (i, part) in self.parts.iter().enumerate() {
                if !states.get(i).copied().unwrap_or(false) {
                    continue;
                }
                let (stays, moves) = match part {
                    Part::Literal(wanted) => (false, *wanted == byte),
                    Part::One => (false, !matches!(byte, b'/' | b':')),
                    Part::Segment => (!matches!(byte, b'/' | b':'), false),
                    Part::Any => (true, false),
                };
                if stays && let Some(state) = next.get_mut(i) {
                    *state = true;
                }
                if moves && let Some(state) = next.get_mut(i + 1) {
                    *state = true;
                }
            }
            self.skip(&mut next);
            std::mem::swap(&mut states, &mut next);
        }
        states.last().copied().unwrap_or(false)
    }

    /// A star matches nothing too: its state reaches the next one at once.
    fn skip(&self, states: &mut [bool]) {
        for (i, part) in self.parts.iter().enumerate() {
            if matches!(part, Part::Segment | Part::Any)
                && states.get(i).copied().unwrap_or(false)
                && let Some(state) = states.get_mut(i + 1)
            {
                *state = true;
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", &*self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_and_cross_as_said() {
        for (glob, name, want) in [
            ("library/*", "library/alpine", true),
            ("library/*", "library/a/b", false),
            ("library/**", "library/a/b", true),
            ("library/**", "library", false),
            ("**", "", true),
            ("**:latest", "docker.io/library/alpine:latest", true),
            ("**:latest", "docker.io/library/alpine:latest-1", false),
            ("**:sha-*", "ghcr.io/a/b:sha-0123", true),
            ("*", "a/b", false),
            ("*", "a:b", false),
            ("cache/**", "cache/a/b", true),
            ("cache/**", "cached/a", false),
            ("acme/secret-*", "acme/secret-x", true),
            ("a**z", "a/b:c/z", true),
            ("v?", "v1", true),
            ("v?", "v12", false),
            ("team", "team", true),
        ] {
            assert_eq!(glob.parse::<Glob>().unwrap().matches(name), want, "{glob} on {name}");
        }
    }

    #[test]
    fn short_and_long_patterns_match_alike() {
        for glob in ["**:sha-*", "a**z", "v?", "*/**", "**/b?:*", "library/*", "?**?", "*a*b"] {
            let glob: Glob = glob.parse().unwrap();
            for name in ["", "a/b:sha-1", "az", "a/z", "v1", "v/", "x/y/z", "q/bc:t", "library/a", "aabb", "ab/", "é"]
            {
                assert_eq!(glob.matches(name), glob.matches_long(name.bytes()), "{glob} on {name}");
            }
        }
    }

    #[test]
    fn a_name_in_parts_matches_as_a_whole() {
        let glob: Glob = "docker.io/library/*:v?".parse().unwrap();
        assert!(glob.matches_parts(&["docker.io", "/", "library/app", ":", "v1"]));
        assert!(!glob.matches_parts(&["docker.io", "/", "library/app", "", "v1"]));
        assert!(!glob.matches_parts(&["docker.io", "/", "library/app/x", ":", "v1"]));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        assert_eq!("".parse::<Glob>(), Err(GlobError::Empty));
        assert_eq!("a***".parse::<Glob>(), Err(GlobError::Stars));
        assert_eq!("[a]".parse::<Glob>(), Err(GlobError::Character('[')));
    }

    #[test]
    fn patterns_overlap_where_a_name_matches_both() {
        for (a, b, want) in [
            ("cache/**", "cache/app", true),
            ("cache/**", "team/*", false),
            ("cache/?*", "cache/**", true),
            ("**:latest", "cache/app:*", true),
            ("**:latest", "cache/app", false),
            ("a*z", "*b*", true),
            ("a/*", "a*", false),
            ("a/**", "a*", false),
            ("**", "*", true),
            ("v?", "v12", false),
        ] {
            let (a, b): (Glob, Glob) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (want, want), "{a} and {b}");
        }
    }

    #[test]
    fn no_pattern_makes_matching_explode() {
        let glob: Glob = "*a".repeat(100).parse().unwrap();
        assert!(!glob.matches(&"a".repeat(2000).replace("aa", "ab")));
    }
}

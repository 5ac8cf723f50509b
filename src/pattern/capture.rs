//! Globs that name parts of what they match: `cache/{repo}` matches `cache/app` and says that `repo` is `app`.
//!
//! A `{name}` is at least one character and stays within a segment, as `*` does; it may be a part of one. Where several
//! readings are possible, what stands further left takes as much as it can.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::Glob;
use super::Variables;
use super::glob::GlobError;

/// The longest name that is looked at, in bytes: longer ones no repository has.
const NAME_BYTES_MAX: usize = 512;

/// A glob with names in braces. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Capture {
    text: Arc<str>,
    parts: Arc<[Part]>,
    /// The same without the names: it decides quickly.
    glob: Glob,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// `?`.
    One,
    /// `*`.
    Segment,
    /// `**`.
    Any,
    /// `{name}`.
    Named(Box<str>),
}

/// Why a text is not such a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// Without its names it is no glob.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// A brace without its other half.
    #[error("a `{{` needs its `}}`: write {{repo}}")]
    Brace,
    /// What stands in braces is no name.
    #[error("`{{{0}}}` is no name; it has lower-case letters, digits and `_`, like {{repo}}")]
    Name(String),
    /// One name in two places.
    #[error("`{0}` stands twice")]
    Twice(String),
    /// A name beside another or beside a star: what belongs to which could not be told.
    #[error("`{{{0}}}` stands beside a star or another name: nobody could tell where it ends")]
    Beside(String),
}

impl FromStr for Capture {
    type Err = CaptureError;

    fn from_str(text: &str) -> Result<Self, CaptureError> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::with_capacity(text.len()), text);
        while !rest.is_empty() {
            let (before, after) = rest.split_once('{').map_or((rest, None), |(before, after)| (before, Some(after)));
            if before.contains('}') {
                return Err(CaptureError::Brace);
            }
            wildcards(before, &mut parts);
            plain.push_str(before);
            let Some(after) = after else { break };
            let (name, after) = after.split_once('}').ok_or(CaptureError::Brace)?;
            let good = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !good {
                return Err(CaptureError::Name(name.to_owned()));
            }
            if parts.iter().any(|part| matches!(part, Part::Named(other) if **other == *name)) {
                return Err(CaptureError::Twice(name.to_owned()));
            }
            let before_it = parts.last();
            if matches!(before_it, Some(Part::Segment | Part::Any | Part::Named(_))) || after.starts_with('*') {
                return Err(CaptureError::Beside(name.to_owned()));
            }
            parts.push(Part::Named(name.into()));
            plain.push_str("?*");
            rest = after;
        }
        let glob = plain.parse()?;
        Ok(Self { text: text.into(), parts: parts.into(), glob })
    }
}

/// Takes the parts of a glob without names.
fn wildcards(text: &str, parts: &mut Vec<Part>) {
    for c in text.chars() {
        match (c, parts.last_mut()) {
            ('*', Some(last @ Part::Segment)) => *last = Part::Any,
            ('*', _) => parts.push(Part::Segment),
            ('?', _) => parts.push(Part::One),
            (c, Some(Part::Literal(literal))) => {
                let mut longer = String::from(std::mem::take(literal));
                longer.push(c);
                *literal = longer.into();
            }
            (c, _) => parts.push(Part::Literal(c.to_string().into())),
        }
    }
}

/// Whether a byte stays within a segment.
fn stays(byte: u8) -> bool {
    !matches!(byte, b'/' | b':')
}

impl Capture {
    /// The pattern in writing.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The glob that matches the same names.
    pub fn glob(&self) -> &Glob {
        &self.glob
    }

    /// The names in braces, from the left.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Named(name) => Some(&**name),
            Part::Literal(_) | Part::One | Part::Segment | Part::Any => None,
        })
    }

    /// What the names in braces stand for in `name`; none where the whole does not match. Its time is at most the product of
    /// both lengths.
    pub fn captures(&self, name: &str) -> Option<Variables> {
        if name.len() > NAME_BYTES_MAX || !self.glob.matches(name) {
            return None;
        }
        let mut variables = Variables::new();
        if self.names().next().is_none() {
            return Some(variables);
        }
        let bytes = name.as_bytes();
        // From the right: for each part, the places from which it and all that follow it reach the end.
        let mut reached = vec![false; bytes.len() + 1];
        *reached.last_mut()? = true;
        let mut steps = vec![reached];
        for part in self.parts.iter().rev() {
            let next = part.places(bytes, steps.last()?);
            steps.push(next);
        }
        steps.pop();
        // From the left: each part ends as far right as it can.
        let mut at = 0;
        for (part, after) in self.parts.iter().zip(steps.iter().rev()) {
            let end = part.end(bytes, at, after)?;
            if let Part::Named(variable) = part {
                variables.insert(variable.to_string(), name.get(at..end)?.to_owned());
            }
            at = end;
        }
        Some(variables)
    }
}

impl Part {
    /// The places where the part may begin so that the rest fits: `after` tells where the next part may begin.
    fn places(&self, name: &[u8], after: &[bool]) -> Vec<bool> {
        let next = |at: usize| after.get(at).copied().unwrap_or(false);
        let mut places = vec![false; name.len() + 1];
        for at in (0..=name.len()).rev() {
            let within = name.get(at).copied().is_some_and(stays);
            let further = places.get(at + 1).copied().unwrap_or(false);
            let fits = match self {
                Self::Literal(text) => {
                    name.get(at..).is_some_and(|rest| rest.starts_with(text.as_bytes())) && next(at + text.len())
                }
                Self::One => within && next(at + 1),
                Self::Segment => next(at) || (within && further),
                Self::Any => next(at) || further,
                Self::Named(_) => within && (next(at + 1) || further),
            };
            if let Some(place) = places.get_mut(at) {
                *place = fits;
            }
        }
        places
    }

    /// The furthest end of the part that begins at `at`.
    fn end(&self, name: &[u8], at: usize, after: &[bool]) -> Option<usize> {
        let next = |at: &usize| after.get(*at).copied().unwrap_or(false);
        let run = || name.get(at..).map_or(at, |rest| at + rest.iter().take_while(|byte| stays(**byte)).count());
        match self {
            Self::Literal(text) => Some(at + text.len()),
            Self::One => Some(at + 1),
            Self::Segment => (at..=run()).rev().find(next),
            Self::Any => (at..=name.len()).rev().find(next),
            Self::Named(_) => (at + 1..=run()).rev().find(next),
        }
    }
}

impl fmt::Display for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capture({:?})", &*self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captured(pattern: &str, name: &str) -> Option<String> {
        let variables = pattern.parse::<Capture>().unwrap().captures(name)?;
        Some(variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn names_stand_for_a_segment_or_a_part_of_one() {
        for (pattern, name, want) in [
            ("cache/{repo}", "cache/app", Some("repo=app")),
            ("cache/{repo}", "cache/team/app", None),
            ("cache/{repo}", "cache/", None),
            ("cache/{team}/{repo}", "cache/acme/app", Some("repo=app team=acme")),
            ("cache/{repo}-ci", "cache/app-x-ci", Some("repo=app-x")),
            ("ghcr.io/acme/{repo}", "ghcr.io/acme/app", Some("repo=app")),
            ("**/{repo}", "cache/a/b", Some("repo=b")),
            ("{repo}/**", "cache/a/b", Some("repo=cache")),
            ("*/a{x}", "b/abc", Some("x=bc")),
            ("cache/{a}-{b}", "cache/x-y-z", Some("a=x-y b=z")),
            ("cache/**", "cache/a/b", Some("")),
            ("cache/app", "cache/app", Some("")),
            ("cache/app", "cache/app2", None),
        ] {
            assert_eq!(captured(pattern, name).as_deref(), want, "{pattern} on {name}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let error = |text: &str| text.parse::<Capture>().unwrap_err();
        assert_eq!(error("cache/{repo"), CaptureError::Brace);
        assert_eq!(error("cache/repo}"), CaptureError::Brace);
        assert_eq!(error("cache/{Repo}"), CaptureError::Name("Repo".to_owned()));
        assert_eq!(error("{a}/{a}"), CaptureError::Twice("a".to_owned()));
        assert_eq!(error("cache/{a}*"), CaptureError::Beside("a".to_owned()));
        assert_eq!(error("cache/*{a}"), CaptureError::Beside("a".to_owned()));
        assert_eq!(error("cache/{a}{b}"), CaptureError::Beside("b".to_owned()));
        assert_eq!(error(""), CaptureError::Glob(GlobError::Empty));
        assert_eq!(error("a***"), CaptureError::Glob(GlobError::Stars));
    }

    proptest! {
        #[test]
        fn a_name_put_together_is_read_back(team in "[a-z0-9._-]{1,12}", repo in "[a-z0-9._-]{1,12}") {
            let pattern: Capture = "ghcr.io/{team}/x-{repo}".parse().unwrap();
            let read = pattern.captures(&format!("ghcr.io/{team}/x-{repo}")).unwrap();
            prop_assert_eq!(&read["team"], &team);
            prop_assert_eq!(&read["repo"], &repo);
        }

        #[test]
        fn it_matches_what_its_glob_matches(pattern in "[a/{}*?x]{1,8}", name in "[ax/]{0,8}") {
            if let Ok(pattern) = pattern.parse::<Capture>() {
                prop_assert_eq!(pattern.captures(&name).is_some(), pattern.glob().matches(&name));
            }
        }
    }
}

//! Versions in tags (semver.org 2.0.0): `1.2.3`, `v1.2.3`, `1.2.3-rc.1`. What has fewer numbers is a tag that moves along with
//! versions, and none itself.

use std::cmp::Ordering;

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    /// What stands behind the dash; empty for a release.
    pre: Vec<Part>,
}

/// A part of what stands behind the dash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    // Numbers come before words (semver.org, 11.4.3).
    Number(u64),
    Word(Box<str>),
}

impl Version {
    /// Reads a tag; none where it is no whole version.
    pub fn parse(tag: &str) -> Option<Self> {
        let text = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
        let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
        let mut found = [0; 3];
        let mut parts = numbers.split('.');
        for place in &mut found {
            *place = number(parts.next()?)?;
        }
        if parts.next().is_some() {
            return None;
        }
        let pre = match pre {
            None => Vec::new(),
            Some(pre) => pre.split('.').map(part).collect::<Option<_>>()?,
        };
        Some(Self { numbers: found, pre })
    }

    /// Whether it is a release, not something that came before one.
    pub fn is_release(&self) -> bool {
        self.pre.is_empty()
    }
}

fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn part(text: &str) -> Option<Part> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return None;
    }
    Some(number(text).map_or_else(|| Part::Word(text.into()), Part::Number))
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let released = self.is_release().cmp(&other.is_release());
        self.numbers.cmp(&other.numbers).then(released).then_with(|| self.pre.cmp(&other.pre))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_stand_in_the_order_of_the_specification() {
        let order = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "v1.2.0",
            "1.10.0",
        ];
        let versions: Vec<Version> = order.iter().map(|text| Version::parse(text).unwrap()).collect();
        assert!(versions.is_sorted(), "{versions:?}");
        assert_eq!(Version::parse("v1.0.0"), Version::parse("1.0.0"));
    }

    #[test]
    fn what_is_no_whole_version_is_none() {
        for text in ["", "1", "1.2", "v1", "1.2.3.4", "01.2.3", "1.2.x", "latest", "1.2.3-", "1.2.3-a..b", "-1.2.3"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}

//! Templates of names: `{branch|slug}-{sha:7}` is filled in from variables, and reads them back from a name.
//!
//! `{name}` stands for a value as it is, `{name|filter}` for what a filter makes of it. `{sha}` is exactly 40 hexadecimal
//! digits as git writes them, `{sha:7}` exactly 7. A value that is read back stays within a segment, as `*` does, and has at
//! least one character; where several readings are possible, the variable further left takes as much as it can.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest template, and the longest name that is read back, in bytes.
const BYTES_MAX: usize = 512;

/// The digits of a commit's name.
const SHA_DIGITS: usize = 40;

/// The fewest digits that git shortens a commit's name to.
const SHA_DIGITS_MIN: usize = 4;

/// The longest `CI_COMMIT_REF_SLUG`.
const REF_SLUG_BYTES_MAX: usize = 63;

/// Values by the names of their variables. What was read back is a value as the template shows it: behind `|slug` it is
/// the slug, behind `{sha:7}` the seven digits.
pub type Variables = BTreeMap<String, String>;

/// A template. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: Arc<str>,
    parts: Arc<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Variable { name: Box<str>, form: Form },
}

/// How a variable's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As it is.
    Plain,
    /// As [`slug`] makes it.
    Slug,
    /// As [`ref_slug`] makes it.
    RefSlug,
    /// So many digits of a commit's name.
    Digits(usize),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing to fill in or to read.
    #[error("a template can't be empty")]
    Empty,
    /// The template is too long.
    #[error("a template has at most 512 bytes")]
    Long,
    /// A brace without its other half.
    #[error("a `{{` needs its `}}`: write {{branch}} or {{branch|slug}}")]
    Brace,
    /// What stands in braces is no variable.
    #[error("`{{{0}}}` is no variable; its name has lower-case letters, digits and `_`, like {{branch}}")]
    Name(String),
    /// There is no such filter.
    #[error("there is no filter `{0}`; there are slug and ref_slug")]
    Filter(String),
    /// A length that is none, or of something that has none.
    #[error("`{{{0}}}` has no such length; only sha has one, from 4 to 40 digits, like {{sha:7}}")]
    Length(String),
    /// A filter of digits.
    #[error("`{{{0}}}` needs no filter: a sha is digits alone")]
    Filtered(String),
    /// One variable in two places: they could not be told apart when a name is read back.
    #[error("`{0}` stands twice")]
    Twice(String),
    /// A character that no name has.
    #[error("no name has a `{0}`; a template has letters, digits, `-._/:@+`, and variables in braces")]
    Character(char),
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        if text.len() > BYTES_MAX {
            return Err(TemplateError::Long);
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (literal, after) = rest.split_once('{').map_or((rest, None), |(before, after)| (before, Some(after)));
            if literal.contains('}') {
                return Err(TemplateError::Brace);
            }
            if let Some(wrong) = literal.chars().find(|c| !c.is_ascii_alphanumeric() && !"-._/:@+".contains(*c)) {
                return Err(TemplateError::Character(wrong));
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            let Some(after) = after else { break };
            let (inside, after) = after.split_once('}').ok_or(TemplateError::Brace)?;
            let (name, form) = variable(inside)?;
            let again = |part: &Part| matches!(part, Part::Variable { name: other, .. } if **other == *name);
            if parts.iter().any(again) {
                return Err(TemplateError::Twice(name.to_owned()));
            }
            parts.push(Part::Variable { name: name.into(), form });
            rest = after;
        }
        Ok(Self { text: text.into(), parts: parts.into() })
    }
}

/// Reads what stands in braces.
fn variable(inside: &str) -> Result<(&str, Form), TemplateError> {
    let (head, filter) = inside.split_once('|').map_or((inside, None), |(head, filter)| (head, Some(filter)));
    let (name, length) = head.split_once(':').map_or((head, None), |(name, length)| (name, Some(length)));
    let good = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !good {
        return Err(TemplateError::Name(inside.to_owned()));
    }
    let digits = match length {
        None => SHA_DIGITS,
        Some(length) => {
            let plain = length.len() <= 2 && length.bytes().all(|b| b.is_ascii_digit()) && !length.starts_with('0');
            let digits = if plain { length.parse().unwrap_or(0) } else { 0 };
            if name != "sha" || !(SHA_DIGITS_MIN..=SHA_DIGITS).contains(&digits) {
                return Err(TemplateError::Length(inside.to_owned()));
            }
            digits
        }
    };
    let form = match filter {
        Some(_) if name == "sha" => return Err(TemplateError::Filtered(inside.to_owned())),
        None if name == "sha" => Form::Digits(digits),
        None => Form::Plain,
        Some("slug") => Form::Slug,
        Some("ref_slug") => Form::RefSlug,
        Some(other) => return Err(TemplateError::Filter(other.to_owned())),
    };
    Ok((name, form))
}

impl Template {
    /// The template in writing.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its variables, from the left.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Variable { name, .. } => Some(&**name),
        })
    }

    /// The text outside of braces.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(&**text),
            Part::Variable { .. } => None,
        })
    }

    /// What `value` is written as where the template has the variable `name`; none where it has none, or where it can't be
    /// written so.
    pub fn written(&self, name: &str, value: &str) -> Option<String> {
        self.parts.iter().find_map(|part| match part {
            Part::Variable { name: other, form } if **other == *name => form.written(value),
            Part::Literal(_) | Part::Variable { .. } => None,
        })
    }

    /// The name that it makes of these values. None where a variable is unknown, or its value can't be written so: a
    /// commit's name that is too short, a branch of which a filter leaves nothing. Whether the result is a tag or a
    /// repository's name is for the caller to see: a value may hold anything.
    pub fn render(&self, variables: &Variables) -> Option<String> {
        let mut text = String::with_capacity(self.text.len() + 40);
        for part in self.parts.iter() {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Variable { name, form } => text.push_str(&form.written(variables.get(&**name)?)?),
            }
        }
        Some(text)
    }

    /// The values that make `text` of the template; rendering them gives `text` again. None where there are none. Its time
    /// is at most the product of both lengths.
    pub fn split(&self, text: &str) -> Option<Variables> {
        if text.len() > BYTES_MAX || !text.is_ascii() {
            return None;
        }
        // From the right: for each part, the places from which it and all that follow it reach the end.
        let mut reached = vec![false; text.len() + 1];
        *reached.last_mut()? = true;
        let mut ends = Vec::with_capacity(self.parts.len());
        for part in self.parts.iter().rev() {
            let found = part.ends(text, &reached);
            reached = found.iter().map(Option::is_some).collect();
            ends.push(found);
        }
        // From the left: each part ends as far right as it can.
        let (mut at, mut variables) = (0, Variables::new());
        for (part, ends) in self.parts.iter().zip(ends.iter().rev()) {
            let end = (*ends.get(at)?)?;
            if let Part::Variable { name, .. } = part {
                variables.insert(name.to_string(), text.get(at..end)?.to_owned());
            }
            at = end;
        }
        Some(variables)
    }
}

impl Part {
    /// For each place where the part may begin, the furthest one where it may end so that the rest fits: `reached` tells
    /// where the next part may begin.
    fn ends(&self, text: &str, reached: &[bool]) -> Vec<Option<usize>> {
        let is_reached = |at: usize| reached.get(at).copied().unwrap_or(false);
        let places = 0..=text.len();
        match self {
            Self::Literal(literal) => places
                .map(|at| {
                    let here = text.get(at..).is_some_and(|rest| rest.starts_with(&**literal));
                    Some(at + literal.len()).filter(|end| here && is_reached(*end))
                })
                .collect(),
            Self::Variable { form: Form::Digits(digits), .. } => places
                .map(|at| {
                    let value = text.get(at..at + digits)?;
                    Some(at + digits).filter(|end| value.bytes().all(is_hex) && is_reached(*end))
                })
                .collect(),
            Self::Variable { form, .. } => form.furthest(text, is_reached),
        }
    }
}

impl Form {
    /// The furthest ends of a value of any length, for each place where it may begin.
    fn furthest(self, text: &str, is_reached: impl Fn(usize) -> bool) -> Vec<Option<usize>> {
        let bytes = text.as_bytes();
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(b'/');
        // The last place up to here where it may end, and one past the last byte that belongs to the run from here.
        let last_end: Vec<Option<usize>> = (0..=bytes.len())
            .scan(None, |last, at| {
                if is_reached(at) && at > 0 && self.may_border(byte(at - 1)) {
                    *last = Some(at);
                }
                Some(*last)
            })
            .collect();
        let mut run_end = vec![bytes.len(); bytes.len() + 1];
        for at in (0..bytes.len()).rev() {
            let next = run_end.get(at + 1).copied().unwrap_or(at);
            if let Some(end) = run_end.get_mut(at) {
                *end = if self.may_hold(byte(at)) { next } else { at };
            }
        }
        (0..=bytes.len())
            .map(|at| {
                let run = run_end.get(at).copied()?.min(at.saturating_add(self.bytes_max()));
                let end = last_end.get(run).copied()??;
                Some(end).filter(|end| *end > at && self.may_border(byte(at)))
            })
            .collect()
    }

    /// Whether a value that was read back may hold the byte.
    fn may_hold(self, byte: u8) -> bool {
        match self {
            Self::Plain => !matches!(byte, b'/' | b':') && byte.is_ascii_graphic(),
            Self::Slug => byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'),
            Self::RefSlug => byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
            Self::Digits(_) => is_hex(byte),
        }
    }

    /// Whether it may begin and end with the byte.
    fn may_border(self, byte: u8) -> bool {
        self.may_hold(byte) && !(self == Self::RefSlug && byte == b'-')
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Plain | Self::Slug => BYTES_MAX,
            Self::RefSlug => REF_SLUG_BYTES_MAX,
            Self::Digits(digits) => digits,
        }
    }

    /// The value in this form.
    fn written(self, value: &str) -> Option<String> {
        let written = match self {
            Self::Plain => value.to_owned(),
            Self::Slug => slug(value),
            Self::RefSlug => ref_slug(value),
            Self::Digits(digits) => {
                let whole = value.len() <= SHA_DIGITS && value.bytes().all(is_hex);
                value.get(..digits).filter(|_| whole)?.to_owned()
            }
        };
        Some(written).filter(|written| !written.is_empty())
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// What docker/metadata-action makes of a branch or tag: each run of other characters than letters, digits, `.`, `_` and
/// `-` becomes one `-`.
pub fn slug(value: &str) -> String {
    let mut slug = String::with_capacity(value.len());
    let mut replaced = false;
    for c in value.chars() {
        let stays = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if stays {
            slug.push(c);
        } else if !replaced {
            slug.push('-');
        }
        replaced = !stays;
    }
    slug
}

/// GitLab's `CI_COMMIT_REF_SLUG`: lower case, each other character than a letter or digit becomes a `-`, 63 at most, and
/// none of them at either end.
pub fn ref_slug(value: &str) -> String {
    let lower = value.to_lowercase();
    let kept = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let slug: String = lower.chars().map(kept).take(REF_SLUG_BYTES_MAX).collect();
    slug.trim_matches('-').to_owned()
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", &*self.text)
    }
}

#[cfg(test)]
mod tests;

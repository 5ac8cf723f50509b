//! A YAML document with the place of each value.
//!
//! `serde_saphyr` parses (budgets against YAML bombs, duplicate keys refused, aliases and merges resolved); what it
//! yields is kept as a tree of nodes with lines and columns, so that a wrong file is answered with everything that is
//! wrong with it, each at its place, and not with the first type error of a derived deserializer.

use std::fmt;

use serde::Deserialize;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_saphyr::Spanned;

/// The most values, keys included, that a document may have once its aliases are resolved.
const NODES_MAX: usize = 50_000;

/// Where a value stands in its file, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The character in it.
    pub column: u64,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// What stands there.
    pub content: Content,
    /// Where.
    pub at: Position,
}

/// What stands there. Scalars keep their text as written: `0123` is a password before it is a number.
#[derive(Debug, Clone)]
pub enum Content {
    /// Nothing.
    Null,
    /// One value.
    Scalar(String),
    /// Several in order.
    List(Vec<Node>),
    /// Several by name, each name once.
    Map(Vec<Entry>),
}

/// One line of a mapping.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name.
    pub key: String,
    /// Where it stands.
    pub at: Position,
    /// What it names.
    pub value: Node,
}

/// What kept a text from being a YAML document.
#[derive(Debug)]
pub struct Malformed {
    /// Where.
    pub at: Position,
    /// What is wrong there.
    pub message: String,
}

/// Parses one YAML document; an empty one is `Content::Null`.
///
/// # Errors
///
/// It is none, or has too many values.
pub fn parse(source: &str) -> Result<Node, Malformed> {
    parse_within(source, NODES_MAX)
}

/// The same of a document with as many values as that, keys included.
///
/// # Errors
///
/// As for [`parse`].
pub fn parse_within(source: &str, nodes_max: usize) -> Result<Node, Malformed> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: nodes_max },
    };
    let parsed: Result<Option<Spanned<Raw>>, _> = serde_saphyr::from_str_with_options(source, options);
    match parsed {
        Ok(Some(raw)) => Ok(raw_node(raw, source)),
        Ok(None) => Ok(Node { content: Content::Null, at: Position { line: 1, column: 1 } }),
        Err(error) => {
            let at = error.location().map_or(Position { line: 1, column: 1 }, |found| Position {
                line: found.line(),
                column: found.column(),
            });
            Err(Malformed { at, message: message(&error.to_string(), at, source) })
        }
    }
}

/// The library's message without its own notion of the place (ours is printed before it) and without its advice to
/// programmers, with a hint where the line shows one of the usual slips.
fn message(error: &str, at: Position, source: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let said = line.split(" at line ").next().unwrap_or(line);
    if let Some(key) = said.strip_prefix("duplicate mapping key: ") {
        let key = key.split(", set ").next().unwrap_or(key);
        return format!("the key `{key}` stands here for the second time");
    }
    if said.starts_with("multiple YAML documents") {
        return "a second document begins here; only one is read".to_owned();
    }
    if said.starts_with("budget breached") {
        return "the file is too large, or its aliases make it so".to_owned();
    }
    let number = usize::try_from(at.line.saturating_sub(1)).unwrap_or_default();
    let written = source.lines().nth(number).unwrap_or_default();
    if written.contains("[::") {
        return format!("{said}; an address like \"[::1]:5000\" needs its quotes");
    }
    if written.contains('{') && written.contains("${") {
        return format!("{said}; \"${{NAME}}\" needs its quotes within braces");
    }
    said.to_owned()
}

/// What the parser hands over: text where it was text, and `Plain` for numbers and booleans, whose text is looked up
/// in the source.
enum Raw {
    Null,
    Plain(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn raw_node(raw: Spanned<Raw>, source: &str) -> Node {
    let at = Position { line: raw.referenced.line(), column: raw.referenced.column() };
    let content = match raw.value {
        Raw::Null => Content::Null,
        Raw::Text(text) => Content::Scalar(text),
        Raw::Plain(value) => Content::Scalar(written(&raw.defined, source).unwrap_or(value)),
        Raw::List(items) => Content::List(items.into_iter().map(|item| raw_node(item, source)).collect()),
        Raw::Map(entries) => {
            Content::Map(entries.into_iter().map(|(key, value)| raw_entry(key, value, source)).collect())
        }
    };
    Node { content, at }
}

fn raw_entry(key: Spanned<String>, value: Spanned<Raw>, source: &str) -> Entry {
    let at = Position { line: key.referenced.line(), column: key.referenced.column() };
    let mut value = raw_node(value, source);
    // An empty value has no place of its own in some documents; its key's will do.
    if value.at.line == 0 {
        value.at = at;
    }
    Entry { key: key.value, at, value }
}

/// The text of a plain scalar as it stands in the file.
fn written(at: &serde_saphyr::Location, source: &str) -> Option<String> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let length = usize::try_from(at.span().byte_len()?).ok()?;
    let text = source.get(start..start.checked_add(length)?)?.trim();
    (!text.is_empty() && !text.contains('\n')).then(|| text.to_owned())
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

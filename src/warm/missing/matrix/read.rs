//! Reads a matrix: every mistake with its line, its column and its key.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::document;
use crate::config::document::Content;
use crate::config::document::Entry;
use crate::config::document::Node;
use crate::pattern::Template;

use super::Axis;
use super::AxisValue;
use super::CELLS;
use super::IMAGE;
use super::Latest;
use super::Matrix;
use super::Place;
use super::Problem;
use super::Values;

/// Names and values are no longer than that, in bytes.
const NAME_BYTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 1_024;

/// Values that a document may have for each cell of the limit, names included.
const NODES_A_CELL: usize = 16;

/// The keys of a matrix.
const KEYS: &str = "image, matrix, include, exclude and group_by";

impl Matrix {
    /// Reads a matrix in YAML or JSON, as long as one of `cells_max` cells may be.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn parse(text: &str, cells_max: usize) -> Result<Self, Problem> {
        let nodes_max = cells_max.saturating_mul(NODES_A_CELL).max(1_000);
        let malformed =
            |found: document::Malformed| Problem { at: found.at, key: String::new(), message: found.message };
        let root = document::parse_within(text, nodes_max).map_err(malformed)?;
        let place = Place { at: root.at, key: String::new() };
        let Content::Map(entries) = &root.content else {
            return Err(place.problem(format!("a matrix is a mapping with {KEYS}")));
        };
        let (mut image, mut matrix) = (None, None);
        let (mut include, mut exclude, mut group_by) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            let at = Place { at: entry.value.at, key: entry.key.clone() };
            match entry.key.as_str() {
                "image" => image = Some((template(&entry.value, &at)?, at)),
                "matrix" => matrix = Some(axes(&entry.value, &at)?),
                "include" => include = objects(&entry.value, &at)?,
                "exclude" => exclude = objects(&entry.value, &at)?,
                "group_by" => group_by = names(&entry.value, &at)?,
                _ => return Err(key_place(entry, "").problem(format!("unknown key; a matrix has {KEYS}"))),
            }
        }
        let image = image.ok_or_else(|| place.problem("`image` is missing: the template of the images' names"))?;
        if matrix.is_none() && include.is_empty() {
            return Err(place.problem("`matrix` is missing: axes with their lists of values"));
        }
        let matrix = Self {
            image,
            axes: matrix.unwrap_or_default(),
            include,
            exclude,
            group_by: group_by.iter().map(|(name, _)| Arc::clone(name)).collect(),
            place,
        };
        matrix.check(&group_by)?;
        Ok(matrix)
    }

    /// What names an axis must name one that is there.
    fn check(&self, group_by: &[(Arc<str>, Place)]) -> Result<(), Problem> {
        let axes: BTreeSet<&str> = self.axes.iter().map(|axis| &*axis.name).collect();
        let included = self.include.iter().flat_map(|entry| entry.values.keys());
        let known: BTreeSet<&str> = axes.iter().copied().chain(included.map(|name| &**name)).collect();
        let (template, place) = &self.image;
        if let Some(name) = template.names().find(|name| !known.contains(name)) {
            return Err(place.problem(format!("the template's `{{{name}}}` is no axis of the matrix")));
        }
        for entry in &self.exclude {
            if let Some(name) = entry.values.keys().find(|name| !axes.contains(&***name)) {
                return Err(entry.place.problem(format!("`{name}` is no axis of the matrix")));
            }
        }
        for (at, (name, place)) in group_by.iter().enumerate() {
            if !known.contains(&**name) {
                return Err(place.problem(format!("`{name}` is no axis of the matrix")));
            }
            if group_by.iter().take(at).any(|(other, _)| other == name) {
                return Err(place.problem(format!("`{name}` stands twice")));
            }
        }
        Ok(())
    }
}

fn key_place(entry: &Entry, above: &str) -> Place {
    Place { at: entry.at, key: if above.is_empty() { entry.key.clone() } else { format!("{above}.{}", entry.key) } }
}

fn of_item(node: &Node, place: &Place, index: usize) -> Place {
    Place { at: node.at, key: format!("{}[{index}]", place.key) }
}

fn template(node: &Node, place: &Place) -> Result<Template, Problem> {
    text(node, place)?.parse().map_err(|error| place.problem(format!("{error}")))
}

/// A value as it is written; nothing is the empty text.
fn text(node: &Node, place: &Place) -> Result<Arc<str>, Problem> {
    match &node.content {
        Content::Null => Ok("".into()),
        Content::Scalar(text) if text.len() > VALUE_BYTES_MAX => {
            Err(place.problem(format!("a value has at most {VALUE_BYTES_MAX} bytes")))
        }
        Content::Scalar(text) => Ok(text.as_str().into()),
        Content::List(_) => Err(place.problem("expected one value, found a list")),
        Content::Map(_) => Err(place.problem("expected one value, found a mapping")),
    }
}

fn list<'a>(node: &'a Node, place: &Place) -> Result<&'a [Node], Problem> {
    match &node.content {
        Content::Null => Ok(&[]),
        Content::List(items) => Ok(items),
        Content::Scalar(_) | Content::Map(_) => Err(place.problem("expected a list")),
    }
}

fn map<'a>(node: &'a Node, place: &Place) -> Result<&'a [Entry], Problem> {
    match &node.content {
        Content::Null => Ok(&[]),
        Content::Map(entries) => Ok(entries),
        Content::Scalar(_) | Content::List(_) => Err(place.problem("expected a mapping")),
    }
}

/// What a row may be asked for: GitHub's names, less those that a row has anyway.
fn name(text: &str, place: &Place) -> Result<Arc<str>, Problem> {
    let good = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && text.len() <= NAME_BYTES_MAX;
    if !good {
        return Err(place.problem("a name has letters, digits, `_` and `-`, and begins with a letter"));
    }
    if matches!(text, IMAGE | CELLS) {
        return Err(place.problem(format!("`{text}` is what larder adds to a row; choose another name")));
    }
    Ok(text.into())
}

fn names(node: &Node, place: &Place) -> Result<Vec<(Arc<str>, Place)>, Problem> {
    if let Content::Scalar(only) = &node.content {
        return Ok(vec![(name(only, place)?, place.clone())]);
    }
    let one = |(index, item)| {
        let at = of_item(item, place, index);
        Ok((name(&text(item, &at)?, &at)?, at))
    };
    list(node, place)?.iter().enumerate().map(one).collect()
}

/// The entries of `include` and `exclude`.
fn objects(node: &Node, place: &Place) -> Result<Vec<Values>, Problem> {
    let one = |(index, item)| {
        let at = of_item(item, place, index);
        let mut values = BTreeMap::new();
        for entry in map(item, &at)? {
            let key = key_place(entry, &at.key);
            values.insert(name(&entry.key, &key)?, text(&entry.value, &key)?);
        }
        if values.is_empty() {
            return Err(at.problem("it names nothing"));
        }
        Ok(Values { values, place: at })
    };
    list(node, place)?.iter().enumerate().map(one).collect()
}

fn axes(node: &Node, place: &Place) -> Result<Vec<Axis>, Problem> {
    let mut axes = Vec::new();
    for entry in map(node, place)? {
        let at = key_place(entry, &place.key);
        let name = name(&entry.key, &at)?;
        let mut values = Vec::new();
        if let Content::Map(_) = &entry.value.content {
            values.push(AxisValue::Latest(latest(&entry.value, &at)?));
        } else {
            for (index, item) in list(&entry.value, &at)?.iter().enumerate() {
                let at = of_item(item, &at, index);
                values.push(match &item.content {
                    Content::Map(_) => AxisValue::Latest(latest(item, &at)?),
                    _ => AxisValue::Text(text(item, &at)?),
                });
            }
        }
        axes.push(Axis { name, values });
    }
    Ok(axes)
}

/// `latest: { tags: REPOSITORY, semver: true }`.
fn latest(node: &Node, place: &Place) -> Result<Latest, Problem> {
    const SHAPE: &str = "a value that is looked up is written latest: { tags: REPOSITORY, semver: true }";
    let [entry] = map(node, place)? else { return Err(place.problem(SHAPE)) };
    if entry.key != "latest" {
        return Err(place.problem(SHAPE));
    }
    let at = key_place(entry, &place.key);
    let (mut repository, mut semver) = (None, false);
    for entry in map(&entry.value, &at)? {
        let key = key_place(entry, &at.key);
        match entry.key.as_str() {
            "tags" => repository = Some((text(&entry.value, &key)?, key)),
            "semver" => semver = *text(&entry.value, &key)? == *"true",
            _ => return Err(key.problem(format!("unknown key; {SHAPE}"))),
        }
    }
    let Some((repository, place)) = repository.filter(|(repository, _)| !repository.is_empty()) else {
        return Err(at.problem(format!("`tags` is missing; {SHAPE}")));
    };
    if !semver {
        return Err(at.problem("`semver: true` is missing: versions are the one order that tags have"));
    }
    Ok(Latest { repository, place })
}

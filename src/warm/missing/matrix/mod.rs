//! A matrix of images as a pipeline writes it, in YAML or JSON, and the cells and rows that it comes to. Pure.
//!
//! `include` and `exclude` mean what they mean in a matrix of GitHub's. Values are text as they are written: `3.10` stays
//! `3.10`.

mod expand;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;

use crate::config::document::Position;
use crate::pattern::Template;

/// The key of a cell's image in its row.
pub const IMAGE: &str = "image";

/// The key of a row's cells, where rows are groups.
pub const CELLS: &str = "cells";

/// What is wrong with a matrix, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", At(*.at, .key))]
pub struct Problem {
    /// The line and column.
    pub at: Position,
    /// The key's path, like `matrix.version[2]`; empty for the matrix as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

struct At<'a>(Position, &'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.0.line, self.0.column)?;
        if self.1.is_empty() { Ok(()) } else { write!(f, "{}: ", self.1) }
    }
}

/// A place in the matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    at: Position,
    key: String,
}

impl Place {
    /// Something is wrong here.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { at: self.at, key: self.key.clone(), message: message.into() }
    }
}

/// A matrix, read and not yet expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    image: (Template, Place),
    axes: Vec<Axis>,
    include: Vec<Values>,
    exclude: Vec<Values>,
    group_by: Vec<Arc<str>>,
    place: Place,
}

/// An axis with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Axis {
    name: Arc<str>,
    values: Vec<AxisValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum AxisValue {
    Text(Arc<str>),
    Latest(Latest),
}

/// A value that a registry knows: the newest version among a repository's tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// The repository, as it is written.
    pub repository: Arc<str>,
    /// Where it stands.
    pub place: Place,
}

/// An entry of `include` or `exclude`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Values {
    values: BTreeMap<Arc<str>, Arc<str>>,
    place: Place,
}

/// One image of the matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its values by axis, and what `include` added.
    pub values: BTreeMap<Arc<str>, Arc<str>>,
    /// The image's name, as the template makes it.
    pub image: Arc<str>,
    place: Place,
}

impl Cell {
    /// Something is wrong with the cell's image.
    pub fn problem(&self, message: &str) -> Problem {
        let values: Vec<String> = self.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.place.problem(format!("`{}` ({}): {message}", self.image, values.join(", ")))
    }

    fn object(&self) -> Map<String, Value> {
        let mut object: Map<String, Value> =
            self.values.iter().map(|(name, value)| (name.to_string(), Value::from(&**value))).collect();
        object.insert(IMAGE.to_owned(), Value::from(&*self.image));
        object
    }
}

impl Matrix {
    /// The values that have to be looked up, in order; [`Matrix::expand`] takes what was found in the same order.
    pub fn latest(&self) -> impl Iterator<Item = &Latest> {
        self.axes.iter().flat_map(|axis| &axis.values).filter_map(|value| match value {
            AxisValue::Latest(latest) => Some(latest),
            AxisValue::Text(_) => None,
        })
    }

    /// The rows that these cells make: each is one, with its values and its image, or each group by the axes of `group_by`,
    /// with its cells as a JSON text.
    pub fn rows<'a>(&self, cells: impl Iterator<Item = &'a Cell>) -> Vec<Map<String, Value>> {
        if self.group_by.is_empty() {
            return cells.map(Cell::object).collect();
        }
        let mut places: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        let mut groups: Vec<(Map<String, Value>, Vec<Value>)> = Vec::new();
        for cell in cells {
            let value = |axis: &Arc<str>| cell.values.get(axis).map_or("", |value| &**value);
            let place = *places.entry(self.group_by.iter().map(value).collect()).or_insert(groups.len());
            if place == groups.len() {
                let of_group = self.group_by.iter().map(|axis| (axis.to_string(), Value::from(value(axis))));
                groups.push((of_group.collect(), Vec::new()));
            }
            if let Some((_, cells)) = groups.get_mut(place) {
                cells.push(Value::Object(cell.object()));
            }
        }
        let row = |(mut row, cells): (Map<String, Value>, Vec<Value>)| {
            row.insert(CELLS.to_owned(), Value::from(Value::Array(cells).to_string()));
            row
        };
        groups.into_iter().map(row).collect()
    }

    /// More rows than somebody takes.
    pub fn too_many_rows(&self, rows: usize, most: usize) -> Problem {
        let advice = if self.group_by.is_empty() {
            "name axes in group_by, so that one row has several cells"
        } else {
            "name fewer axes in group_by, so that one row has more cells"
        };
        self.place.problem(format!("{rows} rows are more than the {most} that are taken; {advice}"))
    }
}

#[cfg(test)]
mod tests;

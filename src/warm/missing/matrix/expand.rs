//! From axes to cells, by the rules of GitHub's matrix: `exclude` first; then each entry of `include` is added to every
//! combination whose own values it leaves as they are, or, where there is none, is a cell of its own.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::pattern::Variables;

use super::AxisValue;
use super::Cell;
use super::Matrix;
use super::Place;
use super::Problem;
use super::Values;

/// Bytes of names and values that the cells may have together, for each cell of the limit.
const BYTES_A_CELL: usize = 1_024;

/// Comparisons of `include` and `exclude` with combinations, and with values.
const COMPARISONS_MAX: usize = 50_000_000;

/// What a value takes beside its bytes.
const ENTRY_BYTES: usize = 32;

/// A combination on its way to a cell.
struct Combination {
    /// For each axis the index of its value; empty for what `include` brought.
    chosen: Vec<usize>,
    added: BTreeMap<Arc<str>, Arc<str>>,
    place: Place,
}

/// For each axis that an entry names, the index of the value; none where the axis has no such value.
type Criterion = Vec<(usize, Option<usize>)>;

/// Counts down, so that a small document can't come to more than was meant.
struct Allowance {
    cells: usize,
    left: usize,
}

impl Allowance {
    fn take(&mut self, bytes: usize, place: &Place) -> Result<(), Problem> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            place
                .problem(format!("the cells have more values than fit a matrix of {} cells (limits.cells)", self.cells))
        })?;
        Ok(())
    }
}

fn bytes_of(values: &BTreeMap<Arc<str>, Arc<str>>) -> usize {
    values.iter().map(|(name, value)| name.len() + value.len() + ENTRY_BYTES).sum()
}

impl Matrix {
    /// The cells, in the order in which the axes and their values are written, the last axis changing fastest. `latest` are
    /// the values that were looked up, in the order of [`Matrix::latest`].
    ///
    /// # Errors
    ///
    /// There are more than `most`, or one lacks a value.
    pub fn expand(&self, latest: &[Arc<str>], most: usize) -> Result<Vec<Cell>, Problem> {
        let axes = self.chosen_axes(latest);
        let explodes = |count: Option<usize>| {
            let count = count.map_or_else(|| "more cells than can be counted".to_owned(), |n| format!("{n} cells"));
            self.place.problem(format!("the matrix comes to {count}; it may have {most} (limits.cells)"))
        };
        let lengths = axes.iter().map(|(_, values)| values.len());
        let product = if axes.is_empty() { Some(0) } else { lengths.clone().try_fold(1_usize, usize::checked_mul) };
        // An axis without values leaves no combination, however long the others are.
        let product = if lengths.clone().any(|length| length == 0) { Some(0) } else { product };
        let Some(product) = product.filter(|product| *product <= most) else { return Err(explodes(product)) };
        let entries = self.include.len().saturating_add(self.exclude.len());
        if entries.saturating_mul(product.max(lengths.sum())) > COMPARISONS_MAX {
            return Err(self.place.problem("include and exclude have too many entries for so many combinations"));
        }
        let mut allowance = Allowance { cells: most, left: most.saturating_mul(BYTES_A_CELL) };
        let mut combinations = self.combinations(&axes, product);
        self.include(&axes, &mut combinations, &mut allowance)?;
        if combinations.len() > most {
            return Err(explodes(Some(combinations.len())));
        }
        let mut cells = Vec::with_capacity(combinations.len());
        for combination in combinations {
            cells.push(self.cell(&axes, combination, &mut allowance)?);
        }
        Ok(cells)
    }

    /// The axes with what was looked up put in, each value once.
    fn chosen_axes(&self, latest: &[Arc<str>]) -> Vec<(Arc<str>, Vec<Arc<str>>)> {
        let mut latest = latest.iter();
        let mut chosen = Vec::with_capacity(self.axes.len());
        for axis in &self.axes {
            let mut seen = HashSet::new();
            let values = axis.values.iter().filter_map(|value| match value {
                AxisValue::Text(text) => Some(Arc::clone(text)),
                AxisValue::Latest(_) => latest.next().cloned(),
            });
            let values = values.filter(|value| seen.insert(Arc::clone(value))).collect();
            chosen.push((Arc::clone(&axis.name), values));
        }
        chosen
    }

    /// Every combination that nothing excludes.
    fn combinations(&self, axes: &[(Arc<str>, Vec<Arc<str>>)], product: usize) -> Vec<Combination> {
        let exclude: Vec<Criterion> = self.exclude.iter().map(|entry| criterion(axes, entry)).collect();
        let mut combinations = Vec::new();
        for index in 0..product {
            let mut rest = index;
            let mut chosen: Vec<usize> = Vec::with_capacity(axes.len());
            for (_, values) in axes.iter().rev() {
                chosen.push(rest % values.len());
                rest /= values.len();
            }
            chosen.reverse();
            if !exclude.iter().any(|criterion| matches(criterion, &chosen)) {
                combinations.push(Combination { chosen, added: BTreeMap::new(), place: self.image.1.clone() });
            }
        }
        combinations
    }

    fn include(
        &self,
        axes: &[(Arc<str>, Vec<Arc<str>>)],
        combinations: &mut Vec<Combination>,
        allowance: &mut Allowance,
    ) -> Result<(), Problem> {
        // Only combinations of the axes are added to, never what an earlier entry brought.
        let own = combinations.len();
        for entry in &self.include {
            let criterion = criterion(axes, entry);
            let is_axis = |name: &Arc<str>| axes.iter().any(|(axis, _)| axis == name);
            let added = entry.values.iter().filter(|(name, _)| !is_axis(name));
            let added: BTreeMap<_, _> = added.map(|(name, value)| (Arc::clone(name), Arc::clone(value))).collect();
            let mut fits = false;
            for combination in combinations.iter_mut().take(own) {
                if matches(&criterion, &combination.chosen) {
                    fits = true;
                    allowance.take(bytes_of(&added), &entry.place)?;
                    combination.added.extend(added.iter().map(|(n, v)| (Arc::clone(n), Arc::clone(v))));
                }
            }
            if !fits {
                let (added, place) = (entry.values.clone(), entry.place.clone());
                combinations.push(Combination { chosen: Vec::new(), added, place });
            }
        }
        Ok(())
    }

    fn cell(
        &self,
        axes: &[(Arc<str>, Vec<Arc<str>>)],
        combination: Combination,
        allowance: &mut Allowance,
    ) -> Result<Cell, Problem> {
        let Combination { chosen, added: mut values, place } = combination;
        for ((name, of_axis), index) in axes.iter().zip(chosen) {
            if let Some(value) = of_axis.get(index) {
                values.insert(Arc::clone(name), Arc::clone(value));
            }
        }
        allowance.take(bytes_of(&values), &place)?;
        let needed = self.group_by.iter().find(|axis| !values.contains_key(*axis));
        if let Some(axis) = needed {
            return Err(place.problem(format!("the cell has no `{axis}`, which group_by names")));
        }
        let (template, _) = &self.image;
        let variables: Variables = template
            .names()
            .filter_map(|name| values.get(name).map(|value| (name.to_owned(), value.to_string())))
            .collect();
        if let Some(name) = template.names().find(|name| !variables.contains_key(*name)) {
            return Err(place.problem(format!("the cell has no `{name}`, which the image's template needs")));
        }
        let image: Arc<str> = template
            .render(&variables)
            .ok_or_else(|| place.problem(format!("the values {variables:?} can't be written into `{template}`")))?
            .into();
        allowance.take(image.len(), &place)?;
        Ok(Cell { values, image, place })
    }
}

/// What an entry says of axes.
fn criterion(axes: &[(Arc<str>, Vec<Arc<str>>)], entry: &Values) -> Criterion {
    let of_axis = |(index, (name, values)): (usize, &(Arc<str>, Vec<Arc<str>>))| {
        let wanted = entry.values.get(name)?;
        Some((index, values.iter().position(|value| value == wanted)))
    };
    axes.iter().enumerate().filter_map(of_axis).collect()
}

fn matches(criterion: &Criterion, chosen: &[usize]) -> bool {
    criterion.iter().all(|(axis, value)| value.is_some() && chosen.get(*axis).copied() == *value)
}

//! A mapping with known keys. Every problem is noted with its place and none ends the reading, so that a wrong file is
//! answered once, whole.

use super::document::Content;
use super::document::Entry;
use super::value::Value;

/// A mapping whose keys are known in advance. Each key that is asked for becomes known; [`Table::close`] refuses the rest.
pub(super) struct Table<'a> {
    of: Value<'a>,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
    later: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(of: Value<'a>, entries: &'a [Entry]) -> Self {
        Self { of, entries, asked: Vec::new(), later: Vec::new() }
    }

    /// Where the table itself stands.
    pub(super) fn value(&self) -> &Value<'a> {
        &self.of
    }

    /// The path of a key of this table.
    fn path_of(&self, key: &str) -> String {
        below(&self.of.path, key)
    }

    /// Every key with its value, for mappings whose keys the user chooses; `kind` stands for them in the list of keys.
    pub(super) fn names(&self, kind: &str) -> Vec<(String, Value<'a>)> {
        self.entries.iter().map(|entry| (entry.key.clone(), self.at(entry, kind))).collect()
    }

    fn at(&self, entry: &'a Entry, shape: &str) -> Value<'a> {
        Value {
            reading: self.of.reading,
            node: &entry.value,
            path: self.path_of(&entry.key),
            shape: below(&self.of.shape, shape),
        }
    }

    /// The value of a known key; `None` where it is absent or null, which both mean the default.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key);
        *self.of.reading.keys.borrow_mut().entry(below(&self.of.shape, key)).or_default() |= entry.is_some();
        Some(self.at(entry?, key)).filter(|value| !value.is_null())
    }

    /// Reads a known key into its place; absent or wrong, what was there stays.
    pub(super) fn set<T>(&mut self, key: &'static str, place: &mut T, read: impl FnOnce(&Value<'a>) -> Option<T>) {
        if let Some(read) = self.get(key).as_ref().and_then(read) {
            *place = read;
        }
    }

    /// Reads a known key that has no default.
    pub(super) fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        self.get(key).as_ref().and_then(read)
    }

    /// Reads a known key that must be there.
    pub(super) fn required<T>(&mut self, key: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        let value = self.get(key);
        if value.is_none() {
            self.of.problem(format!("`{key}` is missing"));
        }
        value.as_ref().and_then(read)
    }

    /// Reads a table below this one.
    pub(super) fn within(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'a>)) {
        let below = match self.get(key) {
            Some(value) => value.table(),
            None => Some(self.empty(key)),
        };
        if let Some(mut table) = below {
            read(&mut table);
            table.close();
        }
    }

    /// A table that is not there: reading it finds nothing, and tells which keys it would have.
    fn empty(&self, key: &'static str) -> Table<'a> {
        let shape = below(&self.of.shape, key);
        let of = Value { reading: self.of.reading, node: self.of.node, path: self.path_of(key), shape };
        Table::new(of, &[])
    }

    /// Names keys that the documentation of later versions has: they are refused, not ignored.
    pub(super) fn later(&mut self, keys: &[&'static str]) {
        self.later.extend_from_slice(keys);
    }

    /// Refuses what was not asked for.
    pub(super) fn close(self) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if self.asked.contains(&key) || (self.later.contains(&key) && matches!(entry.value.content, Content::Null))
            {
                continue;
            }
            let message = if self.later.contains(&key) {
                format!("`{key}` is not supported by this version yet; remove it")
            } else {
                format!("unknown key `{key}`; {}", suggest(key, &self.asked))
            };
            self.of.reading.problem(entry.at, &self.path_of(key), message);
        }
    }
}

/// The nearest of the valid words, or all of them.
pub(super) fn suggest(wrong: &str, valid: &[&str]) -> String {
    let distance = |word: &&&str| strsim::damerau_levenshtein(&wrong.to_lowercase(), word);
    match valid.iter().min_by_key(distance) {
        Some(nearest) if distance(&nearest) <= 1 + nearest.len() / 4 => format!("did you mean `{nearest}`?"),
        _ => format!("valid are {}", valid.join(", ")),
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

//! Reading a document key by key: every problem is noted with its place and none ends the reading, so that a wrong
//! file is answered once, whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::pattern::Glob;
use crate::pattern::glob::GlobError;

use super::document::Content;
use super::document::Entry;
use super::document::Node;
use super::document::Position;
use super::duration;
use super::reload::Seen;
use super::secret::Contents;
use super::secret::Secret;
use super::size;

/// The longest file that the configuration may be or name, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// One thing that is wrong, or remarkable, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, or the flag that it was given by.
    pub place: String,
    /// The key's path, like `upstreams.docker.io.limits.stall`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

/// Where environment variables come from: the process's, or a test's.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The state of one reading of one file.
pub(super) struct Reading<'a> {
    /// The file, for messages.
    pub(super) file: PathBuf,
    /// What relative paths are relative to.
    pub(super) folder: PathBuf,
    pub(super) environment: Environment<'a>,
    pub(super) problems: RefCell<Vec<Problem>>,
    pub(super) remarks: RefCell<Vec<Problem>>,
    /// Every file that was read: what a reload watches.
    pub(super) files: RefCell<Seen>,
    /// Every key that was looked for, and whether the file names it.
    pub(super) keys: RefCell<BTreeMap<String, bool>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(file: &Path, folder: &Path, environment: Environment<'a>) -> Self {
        Self {
            file: file.to_owned(),
            folder: folder.to_owned(),
            environment,
            problems: RefCell::default(),
            remarks: RefCell::default(),
            files: RefCell::default(),
            keys: RefCell::default(),
        }
    }

    /// Notes something wrong at a place in the file.
    pub(super) fn problem(&self, at: Position, key: &str, message: impl Into<String>) {
        let place = format!("{}:{}:{}", self.file.display(), at.line, at.column);
        self.problems.borrow_mut().push(Problem { place, key: key.to_owned(), message: message.into() });
    }

    /// Notes something that is allowed and deserves a look.
    pub(super) fn remark(&self, at: Position, key: &str, message: impl Into<String>) {
        let place = format!("{}:{}:{}", self.file.display(), at.line, at.column);
        self.remarks.borrow_mut().push(Problem { place, key: key.to_owned(), message: message.into() });
    }

    /// A path as the configuration means it: `~/` is the home folder, what is relative is relative to the file.
    fn resolve(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), (self.environment)("HOME")) {
            (Some(below), Some(home)) => Path::new(&home).join(below),
            _ => self.folder.join(text),
        }
    }
}

/// A value at its key.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) reading: &'a Reading<'a>,
    pub(super) node: &'a Node,
    pub(super) path: String,
    /// The path with placeholders for what the user names and for positions in lists: `upstreams.<host>.allow[]`.
    shape: String,
}

impl<'a> Value<'a> {
    /// The document as a whole.
    pub(super) fn root(reading: &'a Reading<'a>, node: &'a Node) -> Self {
        Self { reading, node, path: String::new(), shape: String::new() }
    }

    pub(super) fn problem(&self, message: impl Into<String>) {
        self.reading.problem(self.node.at, &self.path, message);
    }

    pub(super) fn remark(&self, message: impl Into<String>) {
        self.reading.remark(self.node.at, &self.path, message);
    }

    pub(super) fn is_scalar(&self) -> bool {
        matches!(self.node.content, Content::Scalar(_))
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.content, Content::Null)
    }

    /// The text as written, without the environment in it.
    fn written(&self) -> Option<&'a str> {
        match &self.node.content {
            Content::Scalar(text) => Some(text),
            Content::Null => {
                self.problem("a value is missing here");
                None
            }
            Content::List(_) => {
                self.problem("expected one value, found a list");
                None
            }
            Content::Map(_) => {
                self.problem("expected one value, found a mapping");
                None
            }
        }
    }

    /// The text with `${NAME}` replaced from the environment.
    pub(super) fn text(&self) -> Option<String> {
        let written = self.written()?;
        match interpolate(written, self.reading.environment) {
            Ok(text) => Some(text),
            Err(message) => {
                self.problem(message);
                None
            }
        }
    }

    /// The text as `parse` reads it. What came from the environment is not repeated in the message.
    pub(super) fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text()?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                let written = self.written()?;
                let message =
                    if written == text { message } else { format!("the value of `{written}` is not valid here") };
                self.problem(message);
                None
            }
        }
    }

    pub(super) fn duration(&self) -> Option<std::time::Duration> {
        self.parsed(duration::parse)
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.parsed(size::parse)
    }

    /// A whole number.
    pub(super) fn count(&self) -> Option<u32> {
        self.parsed(|text| text.parse().map_err(|_| format!("`{text}` is not a whole number")))
    }

    /// A whole number that must not be zero: a limit that lets nothing through is a mistake.
    pub(super) fn at_least_one(&self) -> Option<u32> {
        let count = self.count()?;
        if count == 0 {
            self.problem("must be at least 1");
            return None;
        }
        Some(count)
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.parsed(|text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        })
    }

    /// One of several words; a wrong one is answered with the nearest.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        self.parsed(|text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                format!("`{text}` is not known here; {}", suggest(text, &words))
            })
        })
    }

    /// A path, relative to the file's folder.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() {
            self.problem("a path must not be empty");
            return None;
        }
        Some(self.reading.resolve(&text))
    }

    /// The content of a file that must be there; it is read again when it changes.
    pub(super) fn contents(&self) -> Option<Contents> {
        let path = self.path()?;
        let read = read_bounded(&path);
        self.reading.files.borrow_mut().note(&path, read.as_deref().ok());
        match read {
            Ok(bytes) => Some(Contents { path, bytes: Arc::from(bytes) }),
            Err(error) => {
                self.problem(format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    /// A file that must be there and that somebody else reads.
    pub(super) fn existing(&self) -> Option<PathBuf> {
        self.contents().map(|file| file.path)
    }

    /// A secret from a file: its text without one trailing line break.
    pub(super) fn secret_file(&self) -> Option<Secret> {
        let file = self.contents()?;
        let Ok(text) = std::str::from_utf8(&file.bytes) else {
            self.problem(format!("{} does not hold text", file.path.display()));
            return None;
        };
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.is_empty() {
            self.problem(format!("{} is empty", file.path.display()));
            return None;
        }
        self.warn_if_others_can_read(&file.path);
        Some(Secret::new(text))
    }

    /// A secret from the environment. Written out in the file it would be in backups, tickets and repositories.
    pub(super) fn secret(&self) -> Option<Secret> {
        let written = self.written()?;
        let text = self.text()?;
        if written == text {
            self.problem("a secret is not written into the configuration; use ${NAME} from the environment, or a file");
            return None;
        }
        Some(Secret::new(&text))
    }

    /// A file that holds a secret should be its owner's alone.
    pub(super) fn warn_if_others_can_read(&self, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            self.remark(format!(
                "{} holds a secret and has mode {mode:04o}: others can read it; chmod 0600 makes it its owner's alone",
                path.display()
            ));
        }
    }

    /// The items of a list. What is no list is a problem.
    pub(super) fn list(&self) -> Option<Vec<Value<'a>>> {
        match &self.node.content {
            Content::List(items) => Some(self.items(items)),
            Content::Null => Some(Vec::new()),
            Content::Scalar(_) | Content::Map(_) => {
                self.problem("expected a list, like [a, b]");
                None
            }
        }
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub(super) fn one_or_list(&self) -> Vec<Value<'a>> {
        match &self.node.content {
            Content::List(items) => self.items(items),
            Content::Null => Vec::new(),
            Content::Scalar(_) | Content::Map(_) => vec![self.clone()],
        }
    }

    fn items(&self, items: &'a [Node]) -> Vec<Value<'a>> {
        let item = |(number, node)| Value {
            reading: self.reading,
            node,
            path: format!("{}[{number}]", self.path),
            shape: format!("{}[]", self.shape),
        };
        items.iter().enumerate().map(item).collect()
    }

    /// A list with each item read by `read`; `None` only where it is no list.
    pub(super) fn each<T>(&self, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        Some(self.list()?.iter().filter_map(read).collect())
    }

    /// A list of globs.
    pub(super) fn globs(&self) -> Option<Vec<Glob>> {
        self.each(Value::glob)
    }

    pub(super) fn glob(&self) -> Option<Glob> {
        self.parsed(|text| text.parse().map_err(|error: GlobError| error.to_string()))
    }

    /// The value as a table of known keys.
    pub(super) fn table(&self) -> Option<Table<'a>> {
        let entries: &[Entry] = match &self.node.content {
            Content::Map(entries) => entries,
            Content::Null => &[],
            Content::Scalar(_) | Content::List(_) => {
                self.problem("expected a mapping of keys to values");
                return None;
            }
        };
        Some(Table { of: self.clone(), entries, asked: Vec::new(), later: Vec::new() })
    }
}

/// A mapping whose keys are known in advance. Each key that is asked for becomes known; [`Table::close`] refuses the rest.
pub(super) struct Table<'a> {
    of: Value<'a>,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
    later: Vec<&'static str>,
}

impl<'a> Table<'a> {
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
        self.asked.push(key);
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
        Table { of, entries: &[], asked: Vec::new(), later: Vec::new() }
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

/// Reads a file that people write by hand: larger ones are not what was meant, and a device would never end.
pub(super) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read > FILE_BYTES_MAX) {
        return Err(std::io::Error::other("it has more than 4 MiB"));
    }
    Ok(bytes)
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The nearest of the valid words, or all of them.
fn suggest(wrong: &str, valid: &[&str]) -> String {
    let distance = |word: &&&str| strsim::damerau_levenshtein(&wrong.to_lowercase(), word);
    match valid.iter().min_by_key(distance) {
        Some(nearest) if distance(&nearest) <= 1 + nearest.len() / 4 => format!("did you mean `{nearest}`?"),
        _ => format!("valid are {}", valid.join(", ")),
    }
}

/// Replaces `${NAME}` by the environment variable of that name; `$${` is a literal `${`.
fn interpolate(written: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut text = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            text.push_str(before);
            text.push_str("${");
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err("`${` has no closing `}`; write ${NAME}, or $${ for the two characters themselves".to_owned());
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("`${{{name}}}` does not name an environment variable; write ${{NAME}}"));
        }
        let Some(value) = environment(name) else {
            return Err(format!("the environment variable {name} is not set"));
        };
        text.push_str(before);
        text.push_str(&value);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

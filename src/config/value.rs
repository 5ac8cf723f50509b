//! One value at its key, read as what it should be: every reader notes what is wrong and yields nothing.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::pattern::Glob;
use crate::pattern::glob::GlobError;

use super::document::Content;
use super::document::Entry;
use super::document::Node;
use super::duration;
use super::reading::Environment;
use super::reading::Reading;
use super::reading::read_bounded;
use super::secret::Contents;
use super::secret::Secret;
use super::size;
use super::table::Table;
use super::table::suggest;

/// A value at its key.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) reading: &'a Reading<'a>,
    pub(super) node: &'a Node,
    pub(super) path: String,
    /// The path with placeholders for what the user names and for positions in lists: `upstreams.<host>.allow[]`.
    pub(super) shape: String,
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

    pub(super) fn duration(&self) -> Option<Duration> {
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
        Some(Table::new(self.clone(), entries))
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

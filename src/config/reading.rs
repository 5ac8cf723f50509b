//! The state of one reading: what was found wrong, which files were read, which keys were looked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use super::document::Position;
use super::reload::Seen;

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
    pub(super) fn resolve(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), (self.environment)("HOME")) {
            (Some(below), Some(home)) => Path::new(&home).join(below),
            _ => self.folder.join(text),
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

//! What must not be printed, and the content of files that the configuration names.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A password or the like: never printed, wherever it ends up. [`Secret::reveal`] is the only way to its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the text of a secret.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text itself, for the one place that sends or compares it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// A file that the configuration names, as it was when the configuration was read. A reload reads it again, so that a
/// changed certificate or password file makes a configuration that differs.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    /// Where it was read from, for messages.
    pub path: PathBuf,
    /// What it held; may be secret, so it is not printed.
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Contents").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Contents;
    use super::Secret;
    use std::path::PathBuf;
    use std::sync::Arc;

    #[test]
    fn secrets_are_not_printed() {
        let secret = Secret::new("hunter2");
        let file = Contents { path: PathBuf::from("/etc/key"), bytes: Arc::from(&b"hunter2"[..]) };
        let printed = format!("{secret:?} {:?} {file:?}", Some(&secret));
        assert!(!printed.contains("hunter2") && !printed.contains("104"), "{printed}");
        assert_eq!(secret.reveal(), "hunter2");
    }
}

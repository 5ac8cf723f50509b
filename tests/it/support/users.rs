//! Users, and what they send to say who they are.

use std::path::PathBuf;

use base64::Engine as _;

/// An htpasswd file of these users, each with the password `<user>-word`; it goes with its folder.
pub fn file(names: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("htpasswd");
    let line = |user: &&str| format!("{user}:{}\n", bcrypt::hash(format!("{user}-word"), 4).unwrap());
    std::fs::write(&file, names.iter().map(line).collect::<String>()).unwrap();
    (folder, file)
}

/// What a client sends that knows this password.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// What one of these users sends.
pub fn known(user: &str) -> String {
    basic(user, &format!("{user}-word"))
}

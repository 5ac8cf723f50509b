//! `docker-credential-*` programs.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::Secret;

use super::Login;

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// A helper gave nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::upstream) enum Error {
    #[error("running docker-credential-{name}")]
    Run {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("docker-credential-{name} took longer than {seconds} s")]
    Slow { name: String, seconds: u64 },
    #[error("docker-credential-{name} failed with {status}")]
    Failed { name: String, status: std::process::ExitStatus },
    #[error("docker-credential-{name} did not answer with a credential")]
    Answer { name: String },
    #[error("`{name}` is not the name of a credential helper")]
    Name { name: String },
    #[error("reading {path}")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} is no docker config.json")]
    Config { path: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks for the first of the servers that the helper knows.
pub(super) async fn get_first(name: &str, servers: &[String], limit: Duration) -> Result<Option<Login>, Error> {
    for server in servers {
        if let Some(login) = get(name, server, limit).await? {
            return Ok(Some(login));
        }
    }
    Ok(None)
}

/// Asks a helper; `None` where it knows none for that server.
pub(super) async fn get(name: &str, server: &str, limit: Duration) -> Result<Option<Login>, Error> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(valid) {
        return Err(Error::Name { name: name.to_owned() });
    }
    get_by(&format!("docker-credential-{name}"), name, server, limit).await
}

/// Asks the helper that is this program.
pub(super) async fn get_by(program: &str, name: &str, server: &str, limit: Duration) -> Result<Option<Login>, Error> {
    let name = name.to_owned();
    let (status, output) = match timeout(limit, run(program, server)).await {
        Err(_) => return Err(Error::Slow { name, seconds: limit.as_secs() }),
        Ok(Err(source)) => return Err(Error::Run { name, source }),
        Ok(Ok(ended)) => ended,
    };
    if !status.success() {
        // The protocol's only way to say that there is none.
        let said = String::from_utf8_lossy(&output);
        return if said.contains("not found") { Ok(None) } else { Err(Error::Failed { name, status }) };
    }
    // What it said is not told on: it may hold a part of the secret.
    let Ok(answer) = serde_json::from_slice::<Answer>(&output) else { return Err(Error::Answer { name }) };
    Ok(login(answer.username, &answer.secret))
}

/// Docker's convention: a user `<token>` means that the secret is an identity token.
pub(super) fn login(username: String, secret: &str) -> Option<Login> {
    match (username.as_str(), secret) {
        (_, "") => None,
        ("<token>", token) => Some(Login::Identity(Secret::new(token))),
        (_, password) => Some(Login::Password { username, password: Secret::new(password) }),
    }
}

async fn run(program: &str, server: &str) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Dropped with the time limit, it must not stay.
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input is told by what it answers.
        drop(input.write_all(server.as_bytes()).await);
        drop(input.shutdown().await);
    }
    let mut output = Vec::new();
    if let Some(from) = child.stdout.take() {
        from.take(ANSWER_BYTES_MAX).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?, output))
}

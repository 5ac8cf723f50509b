//! `larder client-config KIND [--url URL] [--write]`.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use clap::ValueEnum;
use url::Url;

use crate::config::Config;
use crate::config::client;
use crate::config::client::ClientFile;
use crate::config::client::Placing;
use crate::config::client::Target;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which client
    kind: Kind,
    /// How the clients reach the server [default: the configuration's `external_url`, else its first address]
    #[arg(long)]
    url: Option<Url>,
    /// Write the file to its place instead of printing it; what was there is kept beside it as .bak
    #[arg(long)]
    write: bool,
}

/// The kinds by their names on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Docker,
    Containerd,
    Buildkit,
    Podman,
    Crio,
    K3s,
    Kaniko,
}

impl From<Kind> for client::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Docker => Self::Docker,
            Kind::Containerd => Self::Containerd,
            Kind::Buildkit => Self::Buildkit,
            Kind::Podman => Self::Podman,
            Kind::Crio => Self::Crio,
            Kind::K3s => Self::K3s,
            Kind::Kaniko => Self::Kaniko,
        }
    }
}

pub(super) fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let config = global.load()?.config;
    let target = target(arguments.url.as_ref(), &config, console)?;
    let file = client::generate(arguments.kind.into(), &target);
    if arguments.write {
        return write(&file, &target, Path::new("/"), console);
    }
    if console.json {
        let document = serde_json::json!({ "path": file.path, "content": file.content, "then": file.then });
        console.document(&document);
    } else {
        console.note(&format!("# {}", file.path));
        console.result(&file.content);
        console.note(&format!("# {}", file.then));
    }
    Ok(Outcome::Done)
}

/// The server as clients reach it.
fn target(url: Option<&Url>, config: &Config, console: &Console) -> Result<Target, Error> {
    let target = client::target(config, &config.listen);
    let mut target = target.ok_or_else(|| Error::Usage("there is no address to listen on".to_owned()))?;
    match url {
        Some(url) if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() => {
            return Err(Error::Usage(format!("--url: `{url}` must be http or https, a host and a port alone")));
        }
        Some(url) => target.url = url.clone(),
        None => {
            let everywhere = config.listen.first().is_some_and(|address| address.ip().is_unspecified());
            if everywhere && config.external_url.is_none() {
                console
                    .warning("the server listens on every address; other machines need --url with the one they reach");
            }
        }
    }
    Ok(target)
}

/// Puts the file in its place below `root`.
fn write(file: &ClientFile, target: &Target, root: &Path, console: &Console) -> Result<Outcome, Error> {
    if file.placing == Placing::Printed {
        return Err(Error::Usage(format!("{} can't be written; print it without --write", file.path)));
    }
    let path = root.join(file.path.trim_start_matches('/'));
    let existing = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(failed("reading", &path, source)),
    };
    let content = match (&existing, file.placing) {
        (Some(text), Placing::Merged) => client::merge_daemon_json(text, target)
            .map_err(|error| Error::Refused(format!("{} is left alone: {error}", path.display())))?,
        (Some(text), Placing::Theirs) if *text != file.content => {
            let message =
                format!("{} is there already and is left alone; put this into it:\n\n{}", path.display(), file.content);
            return Err(Error::Refused(message));
        }
        _ => file.content.clone(),
    };
    if existing.as_deref() == Some(content.as_str()) {
        console.result(&format!("{} says this already", path.display()));
        return Ok(Outcome::Done);
    }
    if let Some(text) = &existing {
        let kept = beside(&path, ".bak");
        std::fs::write(&kept, text).map_err(|source| failed("writing", &kept, source))?;
        console.note(&format!("what was there is kept as {}", kept.display()));
    }
    replace(&path, &content)?;
    console.result(&format!("{} is written", path.display()));
    console.note(&file.then);
    Ok(Outcome::Done)
}

/// Writes a file whole or not at all: a client may read it at any moment.
fn replace(path: &Path, content: &str) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| failed("making", folder, source))?;
    }
    let new = beside(path, ".new");
    std::fs::write(&new, content).map_err(|source| failed("writing", &new, source))?;
    std::fs::rename(&new, path).map_err(|source| failed("writing", path, source))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn failed(doing: &str, path: &Path, source: io::Error) -> Error {
    Error::File { doing: format!("{doing} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::Console;
    use super::Outcome;
    use super::write;
    use crate::config::client;
    use crate::config::client::Kind;
    use crate::config::client::Target;

    fn target() -> Target {
        Target {
            url: "http://127.0.0.1:5000".parse().expect("a URL"),
            upstreams: vec!["docker.io".to_owned()],
            default_upstream: "docker.io".to_owned(),
        }
    }

    #[test]
    fn an_existing_daemon_json_is_merged_and_kept() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("etc/docker");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("daemon.json"), "{\"debug\":true}").expect("written");
        let console = Console::kept(false);
        let file = client::generate(Kind::Docker, &target());
        for _ in 0..2 {
            assert_eq!(write(&file, &target(), root.path(), &console).expect("written"), Outcome::Done);
            let now = std::fs::read_to_string(folder.join("daemon.json")).expect("read");
            assert!(now.contains("\"debug\": true") && now.contains("http://127.0.0.1:5000"), "{now}");
            let kept = std::fs::read_to_string(folder.join("daemon.json.bak")).expect("read");
            assert_eq!(kept, "{\"debug\":true}", "the second time changes nothing, so the copy stays the user's own");
        }
    }

    #[test]
    fn a_file_that_is_the_clients_own_is_never_overwritten() {
        let root = tempfile::tempdir().expect("a folder");
        let console = Console::kept(false);
        let file = client::generate(Kind::Buildkit, &target());
        assert!(write(&file, &target(), root.path(), &console).is_ok());
        assert!(write(&file, &target(), root.path(), &console).is_ok(), "the same content is no conflict");
        let path = root.path().join("etc/buildkit/buildkitd.toml");
        std::fs::write(&path, "debug = true\n").expect("written");
        let refused = write(&file, &target(), root.path(), &console).expect_err("refused").to_string();
        assert!(refused.contains("left alone") && refused.contains("mirrors"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "debug = true\n");
    }
}

//! What an upstream is asked with: from the configuration, a docker `config.json`, or a helper program.

mod docker;
mod helper;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tokio::time::Instant;

use crate::config::Secret;
use crate::config::upstream::Credential;
use crate::config::upstream::Upstream;
use crate::oci::Digest;

use super::Error;
use super::Fault;

/// How long what a helper said is used; registries' own are good for half an hour at least.
const HELPER_KEPT: Duration = Duration::from_mins(5);

/// How long a file's content is used.
const FILE_KEPT: Duration = Duration::from_secs(10);

/// How long a failure to get the credential is remembered.
const FAILURE_KEPT: Duration = Duration::from_secs(5);

/// Refusals in a row after which a credential rests: registries lock addresses that try a wrong password too often.
const REFUSALS_MAX: u32 = 3;
const REST_FIRST: Duration = Duration::from_mins(5);
const REST_MAX: Duration = Duration::from_hours(1);

/// What is shown to an upstream.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Password {
        username: String,
        password: Secret,
    },
    /// A token that is changed for others (`identitytoken` of docker).
    Identity(Secret),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl Login {
    /// As an `Authorization` header, marked as not to be printed; identity tokens are not shown that way.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        let text = format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal())));
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Tells one from another without holding it.
    pub(super) fn fingerprint(&self) -> Digest {
        match self {
            Self::Password { username, password } => {
                Digest::of(format!("p{username}\0{}", password.reveal()).as_bytes())
            }
            Self::Identity(token) => Digest::of(format!("i{}", token.reveal()).as_bytes()),
        }
    }
}

/// The configured credential of one upstream.
#[derive(Debug)]
pub(super) struct Credentials {
    host: String,
    source: Source,
    /// The names under which docker keeps it, the likeliest first.
    keys: Vec<String>,
    limit: Duration,
    kept: tokio::sync::Mutex<Option<Kept>>,
    standing: Mutex<Standing>,
}

#[derive(Debug)]
enum Source {
    None,
    Fixed(Arc<Login>),
    File(PathBuf),
    Helper(String),
}

#[derive(Debug)]
struct Kept {
    found: Result<Option<Arc<Login>>, Error>,
    until: Instant,
}

/// How the upstream took it lately.
#[derive(Debug, Default)]
struct Standing {
    refusals: u32,
    rests: Option<(Digest, Instant, Duration)>,
    worked: Option<Instant>,
}

impl Credentials {
    pub(super) fn new(config: &Upstream) -> Self {
        let source = match &config.credential {
            None => Source::None,
            Some(Credential::Basic { username, password }) => {
                Source::Fixed(Arc::new(Login::Password { username: username.clone(), password: password.clone() }))
            }
            Some(Credential::DockerConfig(path)) => Source::File(path.clone()),
            Some(Credential::Helper(name)) => Source::Helper(name.clone()),
        };
        Self {
            host: config.host.clone(),
            source,
            keys: docker::keys(config),
            limit: config.limits.helper,
            kept: tokio::sync::Mutex::default(),
            standing: Mutex::default(),
        }
    }

    /// Whether reading it again may bring another one.
    pub(super) fn is_renewable(&self) -> bool {
        matches!(self.source, Source::File(_) | Source::Helper(_))
    }

    /// The credential; `None` where there is none for this upstream.
    ///
    /// # Errors
    /// [`Fault::CredentialRefused`] where it can't be had, or rests because it was refused again and again.
    pub(super) async fn get(&self) -> Result<Option<Arc<Login>>, Error> {
        let found = match &self.source {
            Source::None => return Ok(None),
            Source::Fixed(login) => Some(Arc::clone(login)),
            Source::File(_) | Source::Helper(_) => self.look_up().await?,
        };
        if let Some(login) = &found {
            self.check_rest(login)?;
        }
        Ok(found)
    }

    async fn look_up(&self) -> Result<Option<Arc<Login>>, Error> {
        // Whoever comes second waits for the first: one helper runs at a time.
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return kept.found.clone();
        }
        let (found, kept_for) = match &self.source {
            Source::None | Source::Fixed(_) => return Ok(None),
            Source::File(path) => (docker::look_up(path, &self.keys, self.limit).await, FILE_KEPT),
            Source::Helper(name) => (helper::get_first(name, &self.keys, self.limit).await, HELPER_KEPT),
        };
        let found = found.map(|login| login.map(Arc::new)).map_err(|error| {
            let message = format!("getting the credential for {}", self.host);
            Error::new(Fault::CredentialRefused, message).caused_by(error)
        });
        let until = Instant::now() + if found.is_ok() { kept_for } else { FAILURE_KEPT };
        *kept = Some(Kept { found: found.clone(), until });
        found
    }

    /// Forgets what was looked up, so that it is looked up anew.
    pub(super) async fn renew(&self) {
        *self.kept.lock().await = None;
    }

    /// The upstream refused it.
    pub(super) fn refused(&self, login: &Login) {
        let mut standing = self.standing();
        standing.worked = None;
        standing.refusals = standing.refusals.saturating_add(1);
        if standing.refusals >= REFUSALS_MAX {
            let rest = standing.rests.as_ref().map_or(REST_FIRST, |(_, _, last)| (*last * 2).min(REST_MAX));
            standing.rests = Some((login.fingerprint(), Instant::now() + rest, rest));
            tracing::warn!(
                upstream = self.host,
                minutes = rest.as_secs() / 60,
                "the credential was refused again and again and is not sent for a while"
            );
        }
    }

    /// The upstream took it.
    pub(super) fn worked(&self) {
        *self.standing() = Standing { worked: Some(Instant::now()), ..Standing::default() };
    }

    /// Whether the upstream took it a moment ago, so that a refusal now is about the repository.
    pub(super) fn worked_lately(&self) -> bool {
        self.standing().worked.is_some_and(|at| at.elapsed() < HELPER_KEPT)
    }

    /// Whether it was refused last.
    pub(super) fn is_refused(&self) -> bool {
        self.standing().refusals > 0
    }

    fn check_rest(&self, login: &Login) -> Result<(), Error> {
        let standing = self.standing();
        let Some((refused, until, _)) = &standing.rests else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || *refused != login.fingerprint() {
            return Ok(());
        }
        let message = format!("{} refused the configured credential again and again; it is not sent", self.host);
        Err(Error::new(Fault::CredentialRefused, message).after(Some(left)))
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

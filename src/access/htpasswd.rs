//! Users and their passwords: a file of `user:bcrypt-hash` lines, as `htpasswd -B` makes them.
//!
//! A check takes a core for many milliseconds, so it runs on the blocking pool, few at a time, and its outcome is
//! remembered for minutes under a keyed hash: no password is kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use ring::hmac;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::Contents;
use crate::config::Limits;
use crate::config::Secret;

/// How long a request waits for its turn to have a password checked.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

/// The outcome of a check could not be had: too many are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub(super) struct Busy;

/// The users of one file. A file that changed makes a new value, so nothing of the old one is remembered.
pub(super) struct Htpasswd {
    file: Contents,
    users: HashMap<Arc<str>, Arc<str>>,
    /// The hashes by number: an unknown user is checked against one of them, so that it takes the same time.
    hashes: Vec<Arc<str>>,
    key: hmac::Key,
    outcomes: Cache<Fingerprint, Outcome>,
    memory: Duration,
    turns: Arc<Semaphore>,
}

/// A user and password under the key of this process.
type Fingerprint = [u8; 32];

#[derive(Clone, Copy, Debug)]
struct Outcome {
    valid: bool,
    at: Instant,
}

impl Htpasswd {
    /// Reads the file's lines; those that are not `user:hash` were refused with the configuration.
    pub(super) fn new(file: &Contents, limits: &Limits) -> Self {
        let text = String::from_utf8_lossy(&file.bytes);
        let users: HashMap<Arc<str>, Arc<str>> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(':'))
            // Old tools append fields after another colon.
            .map(|(user, rest)| (user.into(), rest.split(':').next().unwrap_or(rest).into()))
            .collect();
        let mut key = [0; 32];
        // Without randomness the key would be known, yet it never leaves the process and guards a memory of minutes.
        if SystemRandom::new().fill(&mut key).is_err() {
            tracing::warn!("the system gave no random bytes for the memory of passwords");
        }
        Self {
            hashes: users.values().cloned().collect(),
            users,
            file: file.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            outcomes: Cache::new(count(limits.decisions)),
            memory: limits.password_memory,
            turns: Arc::new(Semaphore::new(count(limits.password_checks))),
        }
    }

    /// The file that it was read from.
    pub(super) fn file(&self) -> &Contents {
        &self.file
    }

    /// Whether there is such a user.
    pub(super) fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Whether `password` is the user's. An unknown user and a wrong password look alike, also in the time they take.
    pub(super) async fn verify(&self, user: &str, password: &Secret) -> Result<bool, Busy> {
        let fingerprint = self.fingerprint(user, password);
        loop {
            // One check however many requests bring the same password: the others wait for its outcome.
            match self.outcomes.get_value_or_guard_async(&fingerprint).await {
                Ok(outcome) if outcome.at.elapsed() < self.memory => return Ok(outcome.valid),
                Ok(_) => {
                    self.outcomes.remove(&fingerprint);
                }
                Err(guard) => {
                    let valid = self.check(user, password, &fingerprint).await?;
                    // It fails only where the entry was removed meanwhile; then the next request checks again.
                    let _ = guard.insert(Outcome { valid, at: Instant::now() });
                    return Ok(valid);
                }
            }
        }
    }

    async fn check(&self, user: &str, password: &Secret, fingerprint: &Fingerprint) -> Result<bool, Busy> {
        let known = self.users.get(user);
        let Some(hash) = known.or_else(|| self.decoy(fingerprint)).cloned() else { return Ok(false) };
        let turn = tokio::time::timeout(TURN_WAIT_MAX, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else { return Err(Busy) };
        let password = password.clone();
        let matches = tokio::task::spawn_blocking(move || {
            let matches = bcrypt::verify(password.reveal(), &hash);
            drop(turn);
            matches
        });
        let valid = match matches.await {
            Ok(Ok(valid)) => valid,
            // A hash that can't be read was noticed with the configuration: nobody has that password.
            Ok(Err(_)) | Err(_) => false,
        };
        Ok(valid && known.is_some())
    }

    fn decoy(&self, fingerprint: &Fingerprint) -> Option<&Arc<str>> {
        let [first, second, ..] = *fingerprint;
        let at = usize::from(u16::from_le_bytes([first, second])).checked_rem(self.hashes.len())?;
        self.hashes.get(at)
    }

    fn fingerprint(&self, user: &str, password: &Secret) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        // The length keeps `a` + `bc` apart from `ab` + `c`.
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(password.reveal().as_bytes());
        let mut fingerprint = [0; 32];
        for (to, from) in fingerprint.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        fingerprint
    }
}

fn count(configured: u32) -> usize {
    usize::try_from(configured).unwrap_or(usize::MAX)
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htpasswd")
            .field("file", &self.file.path)
            .field("users", &self.users.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn htpasswd(lines: &str) -> Htpasswd {
        let file = Contents { path: "htpasswd".into(), bytes: lines.as_bytes().into() };
        Htpasswd::new(&file, &Limits::default())
    }

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}", bcrypt::hash(password, 4).unwrap())
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_valid() {
        let users = htpasswd(&format!("# users\n{}\n\n{}\n", line("alice", "secret"), line("bob", "")));
        let ask = async |user: &str, password: &str| users.verify(user, &Secret::new(password)).await.unwrap();
        for _ in 0..2 {
            assert!(ask("alice", "secret").await);
            assert!(ask("bob", "").await);
            assert!(!ask("alice", "Secret").await);
            assert!(!ask("alice", "").await);
            assert!(!ask("bob", "secret").await);
            assert!(!ask("carol", "secret").await);
            assert!(!ask("alices", "ecret").await);
            assert!(!ask("# users", "").await);
        }
    }

    #[tokio::test]
    async fn an_empty_file_knows_nobody() {
        assert!(!htpasswd("\n").verify("", &Secret::new("")).await.unwrap());
    }

    #[tokio::test]
    async fn a_password_is_checked_once_while_it_is_remembered() {
        let users = htpasswd(&line("alice", "secret"));
        let password = Secret::new("secret");
        assert!(users.verify("alice", &password).await.unwrap());
        // With no turn to be had a second check could not be made.
        users.turns.close();
        assert!(users.verify("alice", &password).await.unwrap());
        assert_eq!(users.verify("alice", &Secret::new("other")).await, Err(Busy));
        let shown = format!("{users:?}");
        assert!(!shown.contains("alice") && !shown.contains("$2"), "{shown}");
    }
}

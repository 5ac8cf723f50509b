//! What whoever runs the server is told of, and where.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::limits::positive;
use super::listen::pem;
use super::secret::Contents;
use super::secret::Secret;
use super::upstream::Proxy;
use super::upstream::is_loopback;
use super::upstream::proxy;
use super::value::Value;

/// What can be told of, by the word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventName {
    /// A run of retention deleted nothing, because something forbade it.
    PruneRefused,
    /// An upstream refused the credential that is configured for it.
    CredentialRejected,
    /// What an upstream still allows comes to its end.
    BudgetLow,
    /// The store takes nothing more.
    StoreFull,
    /// An upstream sent bytes that are not those of their digest.
    DigestMismatch,
}

impl EventName {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::PruneRefused, Self::CredentialRejected, Self::BudgetLow, Self::StoreFull, Self::DigestMismatch];

    const WORDS: [(&'static str, Self); 5] = [
        ("prune_refused", Self::PruneRefused),
        ("credential_rejected", Self::CredentialRejected),
        ("budget_low", Self::BudgetLow),
        ("store_full", Self::StoreFull),
        ("digest_mismatch", Self::DigestMismatch),
    ];

    /// As it stands in the configuration, in metrics and in what is delivered.
    pub fn word(self) -> &'static str {
        match self {
            Self::PruneRefused => "prune_refused",
            Self::CredentialRejected => "credential_rejected",
            Self::BudgetLow => "budget_low",
            Self::StoreFull => "store_full",
            Self::DigestMismatch => "digest_mismatch",
        }
    }
}

/// Where somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// The file that holds the URL: what it is called in the log.
    pub file: PathBuf,
    /// The URL, http or https. Whoever knows it may write there, so it is a secret.
    pub url: Secret,
    /// Of what; never empty.
    pub events: Vec<EventName>,
    /// How long the same about the same thing is not told again.
    pub again: Duration,
    /// Tries of one delivery.
    pub tries: u32,
    /// Deliveries that wait; a further one is dropped.
    pub queue: u32,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Certificates trusted for it besides the usual ones.
    pub ca_file: Option<Contents>,
    /// The proxy that leads to it.
    pub proxy: Option<Proxy>,
}

pub(super) fn notify(value: &Value<'_>) -> Option<Vec<Notify>> {
    value.each(one)
}

fn one(value: &Value<'_>) -> Option<Notify> {
    let mut table = value.table()?;
    let file = table.required("url_file", |value| Some((value.path()?, url(value)?)));
    let mut events = EventName::ALL.to_vec();
    table.set("events", &mut events, |value| value.each(|item| item.word(&EventName::WORDS)));
    let (mut again, mut timeout) = (Duration::from_hours(1), Duration::from_secs(10));
    let (mut tries, mut queue) = (5, 100);
    table.set("again", &mut again, Value::duration);
    table.set("tries", &mut tries, Value::at_least_one);
    table.set("queue", &mut queue, Value::at_least_one);
    table.set("timeout", &mut timeout, positive);
    let ca_file = table.optional("ca_file", |value| pem(value, "CERTIFICATE"));
    let proxy = table.optional("proxy", proxy);
    if events.is_empty() {
        table.value().problem("`events` names nothing to tell of; leave it out to be told of everything");
    }
    table.close();
    let (file, url) = file?;
    Some(Notify { file, url, events, again, tries, queue, timeout, ca_file, proxy })
}

/// The URL in a file. It is not repeated in any message.
fn url(value: &Value<'_>) -> Option<Secret> {
    let secret = value.secret_file()?;
    match Url::parse(secret.reveal()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => {
            if url.scheme() == "http" && !is_loopback(&url) {
                value.remark("the URL in it is one without encryption: whoever listens on the way learns it");
            }
            Some(secret)
        }
        _ => {
            value.problem("the file holds no URL of http or https");
            None
        }
    }
}

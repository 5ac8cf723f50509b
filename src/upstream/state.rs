//! What is known of an upstream now, for people: status, doctor.

use crate::clock::Timestamp;

/// What is known of an upstream now.
#[derive(Clone, Debug)]
pub struct State {
    /// Its host, as in image names.
    pub host: String,
    /// Its endpoints, in the order in which they are asked.
    pub endpoints: Vec<EndpointState>,
    /// What its answers say of the quota, where they say anything.
    pub budget: Option<Budget>,
    /// Whether the configured credential is refused at the moment.
    pub credential_refused: bool,
}

/// One endpoint by parts.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// Its URL.
    pub url: String,
    /// The registry's API.
    pub registry: Health,
    /// The token service.
    pub token: Health,
    /// Where its redirects lead to.
    pub cdn: Health,
}

/// Whether a part answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// It answered last time.
    Up,
    /// Its circuit is open.
    Down {
        /// Since when.
        since: Timestamp,
        /// The fault that opened it.
        cause: String,
    },
}

/// The quota, as the upstream's own headers tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Pulls in all.
    pub limit: Option<u64>,
    /// Pulls left.
    pub remaining: Option<u64>,
    /// Nothing is asked before this moment: the upstream said 429.
    pub closed_until: Option<Timestamp>,
}

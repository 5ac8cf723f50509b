//! What whoever runs the server is told of.

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

//! `WWW-Authenticate`: what an upstream wants to see, and for which scope.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Bytes of a challenge that are looked at.
const CHALLENGE_BYTES_MAX: usize = 8 << 10;

/// What an upstream wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token of its token service.
    Bearer(Bearer),
}

/// Where a token is had, and what for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
    /// Why the token that was sent did not do (RFC 6750, 3.1).
    pub(super) error: Option<String>,
}

/// The challenge of an answer that we can meet; a token is better than a password.
pub(super) fn read(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        if text.len() > CHALLENGE_BYTES_MAX {
            continue;
        }
        for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found.get_or_insert(Challenge::Basic);
            } else if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(bearer) = bearer(&challenge)
            {
                return Some(Challenge::Bearer(bearer));
            }
        }
    }
    found
}

fn bearer(challenge: &http_auth::ChallengeRef<'_>) -> Option<Bearer> {
    let value = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
    };
    Some(Bearer { realm: value("realm")?, service: value("service"), scope: value("scope"), error: value("error") })
}

/// The scope that pulls from a repository.
pub(super) fn pull(name: &str) -> String {
    format!("repository:{name}:pull")
}

/// The scope that deletes from a repository.
pub(super) fn delete(name: &str) -> String {
    format!("repository:{name}:delete")
}

/// The scope that lists the repositories.
pub(super) const CATALOG: &str = "registry:catalog:*";

#[cfg(test)]
mod tests;

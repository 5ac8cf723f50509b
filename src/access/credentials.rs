//! What a client sent to say who it is (RFC 7235, 7617, 6750). Parsed at once, never printed.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;

use crate::config::Secret;

/// The longest header that is looked at; what is longer is no credential of ours.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// With padding or without: clients do both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A credential as it was sent, not yet checked. Many clients send the password of another registry: dockerd sends
/// Docker Hub's to every mirror (moby#42022). So it is never logged, kept or forwarded; `Debug` shows its kind only.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token.
    Bearer(Secret),
    /// Something else, which means nothing here.
    Unknown,
}

impl Credentials {
    /// Reads the value of an `Authorization` header. `None` where the client says nothing about itself: no header, or
    /// empty user and password, which podman sends after a challenge when it has none.
    pub fn parse(header: Option<&[u8]>) -> Option<Self> {
        let header = header?;
        if header.len() > HEADER_BYTES_MAX {
            return Some(Self::Unknown);
        }
        let Ok(text) = std::str::from_utf8(header) else { return Some(Self::Unknown) };
        let (scheme, value) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            return match basic(value) {
                Some((user, password)) if user.is_empty() && password.is_empty() => None,
                Some((user, password)) => Some(Self::Basic { user, password: Secret::new(&password) }),
                None => Some(Self::Unknown),
            };
        }
        if scheme.eq_ignore_ascii_case("bearer") && !value.is_empty() {
            return Some(Self::Bearer(Secret::new(value)));
        }
        (!scheme.is_empty()).then_some(Self::Unknown)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic …",
            Self::Bearer(_) => "Bearer …",
            Self::Unknown => "unknown …",
        })
    }
}

/// Reads `base64(user:password)`; the user has no colon, the password may.
fn basic(value: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(value).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str) -> Option<Credentials> {
        Credentials::parse(Some(header.as_bytes()))
    }

    #[test]
    fn user_and_password_are_read() {
        let alice = |password: &str| Some(Credentials::Basic { user: "alice".into(), password: Secret::new(password) });
        assert_eq!(parsed("Basic YWxpY2U6c2VjcmV0"), alice("secret"));
        assert_eq!(parsed("basic  YWxpY2U6YTpi "), alice("a:b"));
        assert_eq!(parsed("Basic YWxpY2U6"), alice(""));
        assert_eq!(parsed("Basic YWxpY2U6YQ=="), alice("a"));
        assert_eq!(parsed("Basic YWxpY2U6YQ"), alice("a"));
        assert_eq!(parsed("Basic YWxpY2U6w6k="), alice("é"));
    }

    #[test]
    fn who_says_nothing_is_anonymous() {
        assert_eq!(Credentials::parse(None), None);
        assert_eq!(parsed(""), None);
        assert_eq!(parsed("Basic Og=="), None);
    }

    #[test]
    fn what_is_no_credential_is_told_from_none() {
        for header in ["Basic", "Basic !", "Basic YWxpY2U", "Basic /w==", "Digest x", "Bearer", &"x".repeat(9000)] {
            assert_eq!(parsed(header), Some(Credentials::Unknown), "{header}");
        }
        assert_eq!(Credentials::parse(Some(b"Basic \xff")), Some(Credentials::Unknown));
        assert!(matches!(parsed("Bearer abc"), Some(Credentials::Bearer(_))));
    }

    #[test]
    fn no_credential_is_printed() {
        let shown = format!("{:?} {:?}", parsed("Basic YWxpY2U6c2VjcmV0"), parsed("Bearer hunter2"));
        assert!(!shown.contains("alice") && !shown.contains("secret") && !shown.contains("hunter2"), "{shown}");
    }
}

//! Tokens of our own (Docker's token flow): who a client is, for some minutes, so that it sends its password seldom and a
//! client that has none gets in where anybody may.
//!
//! A token says who, never what may be done: the rules are asked anew with each request. It is signed, not kept: a restart
//! does not end it, and taking a user out of the htpasswd file does.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::Secret;

use super::Principal;

/// By how much clocks may differ between servers that share a key.
const LEEWAY: Duration = Duration::from_mins(1);

/// Bytes of the key that tokens are signed with.
pub const KEY_BYTES: usize = 32;

/// Issues tokens and reads them.
pub(super) struct Tokens {
    key: hmac::Key,
    clock: Clock,
    life: Duration,
}

/// A token as it is handed out.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The token.
    pub token: Secret,
    /// From when on.
    pub at: Timestamp,
    /// For how long.
    pub life: Duration,
}

impl Tokens {
    pub(super) fn new(key: &[u8; KEY_BYTES], clock: Clock, life: Duration) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), clock, life }
    }

    /// A token for whoever that is.
    pub(super) fn issue(&self, principal: &Principal) -> Issued {
        let at = self.clock.now();
        let who = match principal {
            Principal::User(user) => format!("u{user}"),
            Principal::Anonymous | Principal::Job(_) => "a".to_owned(),
        };
        let said = format!("{}:{who}", at.after(self.life).0);
        let signature = hmac::sign(&self.key, said.as_bytes());
        let token = format!("{}.{}", URL_SAFE_NO_PAD.encode(said), URL_SAFE_NO_PAD.encode(signature));
        Issued { token: Secret::new(&token), at, life: self.life }
    }

    /// Who a token speaks of; none where it is not ours, was changed or is too old.
    pub(super) fn read(&self, token: &Secret) -> Option<Principal> {
        let (said, signature) = token.reveal().split_once('.')?;
        let said = URL_SAFE_NO_PAD.decode(said).ok()?;
        hmac::verify(&self.key, &said, &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let (until, who) = std::str::from_utf8(&said).ok()?.split_once(':')?;
        let until = Timestamp(until.parse().ok()?);
        if self.clock.now() > until.after(LEEWAY) {
            return None;
        }
        match who.strip_prefix('u') {
            Some(user) => Some(Principal::User(user.into())),
            None => Some(Principal::Anonymous),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("life", &self.life).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(clock: &Clock, key: u8) -> Tokens {
        Tokens::new(&[key; KEY_BYTES], clock.clone(), Duration::from_mins(5))
    }

    #[test]
    fn a_token_says_who_for_as_long_as_it_lives() {
        let clock = Clock::manual(Timestamp(1_000_000));
        let ours = tokens(&clock, 1);
        for who in [Principal::Anonymous, Principal::User("alice".into()), Principal::User("a:b.c u".into())] {
            let token = ours.issue(&who).token;
            assert_eq!(ours.read(&token), Some(who.clone()));
            assert_eq!(tokens(&clock, 1).read(&token), Some(who), "a restart does not end it");
            assert_eq!(tokens(&clock, 2).read(&token), None, "another's key");
        }
        let token = ours.issue(&Principal::Anonymous).token;
        clock.advance(Duration::from_secs(5 * 60 + 59));
        assert!(ours.read(&token).is_some());
        clock.advance(Duration::from_secs(2));
        assert!(ours.read(&token).is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_change_of_a_token_and_no_other_text_is_believed(at in 0_usize..200, text in "\\PC{0,80}") {
            let clock = Clock::manual(Timestamp(1_000_000));
            let ours = tokens(&clock, 1);
            let token = ours.issue(&Principal::User("alice".into())).token;
            let mut bytes = token.reveal().as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last letters of base64 have bits that mean nothing; the decoder refuses those that are not zero.
            proptest::prop_assert_eq!(ours.read(&Secret::new(&changed)), None);
            proptest::prop_assert_eq!(ours.read(&Secret::new(&text)), None);
        }
    }
}

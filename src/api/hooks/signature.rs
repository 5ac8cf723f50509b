//! Whether a delivery is from whoever has the secret. Every comparison takes the same time, whatever is sent.

use bytes::Bytes;
use http::HeaderMap;
use ring::hmac;

use crate::config::Secret;
use crate::config::forge::ForgeKind;

/// Whether the headers show the secret, or the body is signed with it.
pub(super) fn is_right(kind: ForgeKind, secret: &Secret, headers: &HeaderMap, body: &Bytes) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let shown = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match kind {
        // `sha256=<hex of HMAC-SHA256 over the body>`
        ForgeKind::Github => shown("x-hub-signature-256").is_some_and(|text| is_signed(&key, text, body)),
        // The same without its prefix; GitHub's header comes too.
        ForgeKind::Gitea => ["x-gitea-signature", "x-forgejo-signature", "x-hub-signature-256"]
            .into_iter()
            .find_map(shown)
            .is_some_and(|text| is_signed(&key, text, body)),
        // The secret itself. What is compared are two signatures: they are as long whatever was sent.
        ForgeKind::Gitlab => headers.get("x-gitlab-token").is_some_and(|token| {
            let wanted = hmac::sign(&key, secret.reveal().as_bytes());
            hmac::verify(&key, token.as_bytes(), wanted.as_ref()).is_ok()
        }),
    }
}

fn is_signed(key: &hmac::Key, text: &str, body: &Bytes) -> bool {
    let digits = text.strip_prefix("sha256=").unwrap_or(text);
    let mut signature = [0; 32];
    hex::decode_to_slice(digits, &mut signature).is_ok() && hmac::verify(key, body, &signature).is_ok()
}

//! How Amazon wants its requests signed (AWS Signature Version 4): pure.

use std::fmt::Write as _;

use http::HeaderValue;
use ring::digest;
use ring::hmac;

use crate::clock::Timestamp;
use crate::config::Secret;

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccessKey {
    /// Its id, which is no secret.
    pub(super) id: String,
    /// Its secret.
    pub(super) secret: Secret,
    /// The token that comes with a key for a while.
    pub(super) session: Option<Secret>,
}

/// What is signed: a request, and where and for whom it is.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    /// The path, encoded.
    pub(super) path: &'a str,
    /// The query, encoded and in order.
    pub(super) query: &'a str,
    /// The headers that are signed: lower-case names, in order.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// A moment as `x-amz-date` has it: `20150830T123600Z`.
pub(super) fn date(at: Timestamp) -> String {
    at.to_string().replace(['-', ':'], "")
}

/// The `Authorization` header, marked as not to be printed; `None` where the key's id can't stand in one.
pub(super) fn authorization(key: &AccessKey, date: &str, signed: &Signed<'_>) -> Option<HeaderValue> {
    let day = date.get(..8)?;
    let names: Vec<&str> = signed.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut request = format!("{}\n{}\n{}\n", signed.method, signed.path, signed.query);
    for (name, value) in signed.headers {
        // Writing to a string does not fail.
        let _ = writeln!(request, "{name}:{}", value.trim());
    }
    let _ = write!(request, "\n{names}\n{}", sha256(signed.body));
    let scope = format!("{day}/{}/{}/aws4_request", signed.region, signed.service);
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(request.as_bytes()));
    let mut secret = format!("AWS4{}", key.secret.reveal()).into_bytes();
    for part in [day, signed.region, signed.service, "aws4_request"] {
        secret = mac(&secret, part.as_bytes());
    }
    let signature = hex::encode(mac(&secret, text.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", key.id);
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentations_example_is_signed_as_it_is_there() {
        let key = AccessKey {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session: None,
        };
        let at = Timestamp::parse("2015-08-30T12:36:00Z").unwrap();
        assert_eq!(date(at), "20150830T123600Z");
        let signed = Signed {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &[
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("host", "iam.amazonaws.com"),
                ("x-amz-date", "20150830T123600Z"),
            ],
            body: b"",
            region: "us-east-1",
            service: "iam",
        };
        let want = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                    SignedHeaders=content-type;host;x-amz-date, \
                    Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
        assert_eq!(authorization(&key, &date(at), &signed).unwrap(), want);
    }
}

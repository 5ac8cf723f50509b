//! The headers of answers and of requests (clients' contract: docs/reference/http.md). Pure but for the jitter.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::cache::CacheStatus;
use crate::oci::ByteRange;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::Tag;
use crate::oci::range::Extent;

use super::route::Page;

pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
pub(super) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(super) const OCI_CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(super) const SERVED_TAG: HeaderName = HeaderName::from_static("larder-served-tag");
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Sets a header whose value comes from checked things; one that can't be written is left out.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Sets a header to a number.
pub(super) fn set_number(headers: &mut HeaderMap, name: HeaderName, value: u64) {
    headers.insert(name, HeaderValue::from(value));
}

/// What kind of manifest it is; the usual ones need no memory.
pub(super) fn set_media_type(headers: &mut HeaderMap, media_type: &MediaType) {
    let text = media_type.as_str();
    match [MediaType::OCI_MANIFEST, MediaType::OCI_INDEX, MediaType::DOCKER_MANIFEST, MediaType::DOCKER_LIST]
        .into_iter()
        .find(|known| *known == text)
    {
        Some(known) => drop(headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(known))),
        None => set(headers, header::CONTENT_TYPE, text),
    }
}

/// What names the bytes: their digest, and the same as entity tag.
pub(super) fn set_digest(headers: &mut HeaderMap, digest: &Digest) {
    let mut text = String::with_capacity(140);
    // Writing to a string does not fail.
    let _ = write!(text, "\"{digest}\"");
    // One piece of memory for both.
    let text = Bytes::from(text);
    let digest = text.slice(1..text.len() - 1);
    for (name, value) in [(header::ETAG, text), (CONTENT_DIGEST, digest)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            headers.insert(name, value);
        }
    }
}

/// How the answer came to be: `Cache-Status` (RFC 9211), `Age`, and `Warning` where it may be out of date.
pub(super) fn set_status(headers: &mut HeaderMap, status: &CacheStatus) {
    match status.as_static() {
        Some(text) => drop(headers.insert(CACHE_STATUS, HeaderValue::from_static(text))),
        None => set(headers, CACHE_STATUS, &status.to_string()),
    }
    match status.age.as_secs() {
        0 => drop(headers.insert(header::AGE, HeaderValue::from_static("0"))),
        age => set_number(headers, header::AGE, age),
    }
    if status.is_stale() {
        let age = status.age.as_secs();
        let text = format!("299 - \"stale: the upstream does not answer; last validated {age} s ago\"");
        set(headers, header::WARNING, &text);
    }
}

/// The namespace that the client named, back to it (distribution-spec, "Registry Proxying").
pub(super) fn set_namespace(headers: &mut HeaderMap, namespace: Option<&str>) {
    if let Some(namespace) = namespace {
        set(headers, OCI_NAMESPACE, namespace);
    }
}

/// The address of `last` beside what was asked for, in the request's own spelling: the path as it came, and `ns` where
/// it was given.
pub(super) fn sibling(uri: &http::Uri, last: &str, namespace: Option<&str>) -> String {
    within(parent(uri.path()), last, namespace)
}

/// The address of `last` below `…/blobs/`, for a request to `…/blobs/uploads`, the same with a slash, or one with a session
/// behind that; in its own spelling.
pub(super) fn below_blobs(path: &str, last: &str, namespace: Option<&str>) -> String {
    let uploads = if path.ends_with("/uploads") { path } else { parent(path) };
    within(parent(uploads), last, namespace)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn within(folder: &str, last: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            format!("{folder}/{last}?{}", query.append_pair("ns", namespace).finish())
        }
        None => format!("{folder}/{last}"),
    }
}

/// Which part of a body is sent.
pub(super) fn set_extent(headers: &mut HeaderMap, extent: &Extent, size: u64) {
    let text = format!("bytes {}-{}/{size}", extent.start, extent.end.saturating_sub(1));
    set(headers, header::CONTENT_RANGE, &text);
}

/// The link to the next page, in the request's own spelling: the path as it came, and `ns` where it was given
/// (distribution-spec, "Listing Tags").
pub(super) fn set_next_page(headers: &mut HeaderMap, path: &str, page: &Page, last: &Tag, namespace: Option<&str>) {
    let count = page.count.map(|count| count.to_string());
    set_next(headers, path, count.as_deref().map(|count| ("n", count)), last.as_str(), namespace);
}

/// The same for any list, with one pair of the request's query kept.
pub(super) fn set_next(
    headers: &mut HeaderMap,
    path: &str,
    kept: Option<(&str, &str)>,
    last: &str,
    namespace: Option<&str>,
) {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(kept);
    query.append_pair("last", last);
    if let Some(namespace) = namespace {
        query.append_pair("ns", namespace);
    }
    set(headers, header::LINK, &format!("<{path}?{}>; rel=\"next\"", query.finish()));
}

/// Whole seconds to wait, jittered upwards by at most a quarter, so that refused clients don't come back at one moment.
pub(super) fn set_retry_after(headers: &mut HeaderMap, wait: Duration) {
    set_number(headers, header::RETRY_AFTER, jittered(wait, fastrand::f64()));
}

/// `wait` in whole seconds, up to a quarter longer as `chance` goes from 0 to 1.
fn jittered(wait: Duration, chance: f64) -> u64 {
    let whole = (wait.as_millis().div_ceil(1000)).max(1);
    let whole = u64::try_from(whole).unwrap_or(u64::MAX);
    // A quarter of what a wait can be is small enough for the number's precision.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the wait is bounded and positive"
    )]
    let more = ((whole / 4) as f64 * chance.clamp(0.0, 1.0)).round() as u64;
    whole.saturating_add(more)
}

/// How many values of `Accept` are looked at.
const ACCEPT_MAX: usize = 32;

/// Whether the client takes manifests of several types. Those that resolve a tag do; a HEAD before a push names the one
/// that is pushed [containerd, and BuildKit with it]. `*/*`, which both add, names none.
pub(super) fn accepts_several(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = values.flat_map(|value| value.split(',')).take(ACCEPT_MAX).map(MediaType::new);
    let Some(first) = types.find(MediaType::is_manifest) else { return false };
    types.any(|other| other.is_manifest() && other != first)
}

/// Whether the client has these bytes already (RFC 9110 §13.1.2; weak comparison).
pub(super) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH);
    let mut known =
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    known.any(|tag| tag == "*" || unquoted(tag).is_some_and(|tag| tag.parse() == Ok(*digest)))
}

/// The text of an entity tag, weak or not.
fn unquoted(tag: &str) -> Option<&str> {
    tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')
}

/// The range that is asked for. Several at once, or one for another version (`If-Range`), mean the whole
/// (RFC 9110 §13.1.5, §14.2).
pub(super) fn range(headers: &HeaderMap, digest: &Digest) -> Option<ByteRange> {
    let mut values = headers.get_all(header::RANGE).iter();
    let range = values.next()?.to_str().ok()?.parse().ok()?;
    if values.next().is_some() {
        return None;
    }
    if let Some(condition) = headers.get(header::IF_RANGE) {
        let text = condition.to_str().ok()?.trim();
        // Strong comparison: a weak tag or a date never matches.
        if !text.starts_with('"') || unquoted(text).and_then(|tag| tag.parse().ok()) != Some(*digest) {
            return None;
        }
    }
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn what_the_client_has_is_recognised() {
        let digest = Digest::of(b"x");
        for (value, known) in [
            (format!("\"{digest}\""), true),
            (format!("W/\"{digest}\""), true),
            (format!("\"other\", \"{digest}\""), true),
            ("*".to_owned(), true),
            (digest.to_string(), false),
            ("\"other\"".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_known(&with(header::IF_NONE_MATCH, &value), &digest), known, "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), &digest));
    }

    #[test]
    fn who_resolves_takes_several_types_and_who_pushes_names_one() {
        let (manifest, index, docker) = (MediaType::OCI_MANIFEST, MediaType::OCI_INDEX, MediaType::DOCKER_MANIFEST);
        for (accept, several) in [
            (vec![format!("{docker}, {index}, {manifest}, */*")], true),
            (vec![manifest.to_owned(), index.to_owned()], true),
            (vec![format!("{manifest};q=0.5,{}", index.to_uppercase())], true),
            (vec![format!("{manifest}, */*")], false),
            (vec![manifest.to_owned(), "*/*".to_owned()], false),
            (vec![format!("{manifest}, {manifest};q=1")], false),
            (vec!["*/*".to_owned()], false),
            (vec!["application/json, text/html".to_owned()], false),
            (vec![], false),
        ] {
            let mut all = HeaderMap::new();
            for value in &accept {
                all.append(header::ACCEPT, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(accepts_several(&all), several, "{accept:?}");
        }
    }

    #[test]
    fn a_range_for_another_version_means_the_whole() {
        let digest = Digest::of(b"x");
        let mut headers = with(header::RANGE, "bytes=0-9");
        assert!(range(&headers, &digest).is_some());
        for (condition, honoured) in [
            (format!("\"{digest}\""), true),
            (format!("W/\"{digest}\""), false),
            ("\"other\"".to_owned(), false),
            ("Tue, 24 Nov 2026 16:00:00 GMT".to_owned(), false),
        ] {
            headers.insert(header::IF_RANGE, HeaderValue::from_str(&condition).unwrap());
            assert_eq!(range(&headers, &digest).is_some(), honoured, "{condition}");
        }
        assert!(range(&with(header::RANGE, "bytes=0-1,3-4"), &digest).is_none());
    }

    #[test]
    fn the_wait_is_whole_and_at_most_a_quarter_longer() {
        for (wait, chance, want) in [
            (Duration::ZERO, 1.0, 1),
            (Duration::from_millis(1500), 0.0, 2),
            (Duration::from_mins(1), 0.0, 60),
            (Duration::from_mins(1), 1.0, 75),
            (Duration::from_secs(3), 1.0, 3),
        ] {
            assert_eq!(jittered(wait, chance), want, "{wait:?}");
        }
    }

    #[test]
    fn addresses_of_uploads_keep_the_spelling() {
        for (path, want) in [
            ("/v2/a/b/blobs/uploads/", "/v2/a/b/blobs/uploads/x"),
            ("/v2/a/b/blobs/uploads", "/v2/a/b/blobs/uploads/x"),
            ("/run/7/v2/a/blobs/uploads/0123-45", "/run/7/v2/a/blobs/uploads/x"),
            ("/v2/blobs/uploads/blobs/uploads/", "/v2/blobs/uploads/blobs/uploads/x"),
        ] {
            assert_eq!(below_blobs(path, "uploads/x", None), want, "{path}");
        }
        assert_eq!(
            below_blobs("/t/k/v2/a/blobs/uploads/1", "sha256:0", Some("localhost:5000")),
            "/t/k/v2/a/blobs/sha256:0?ns=localhost%3A5000"
        );
    }

    #[test]
    fn the_next_page_keeps_the_spelling() {
        let mut headers = HeaderMap::new();
        let page = Page { count: Some(2), after: None };
        set_next_page(&mut headers, "/v2/org/app/tags/list", &page, &"v1".parse().unwrap(), Some("ghcr.io"));
        assert_eq!(headers[header::LINK], "</v2/org/app/tags/list?n=2&last=v1&ns=ghcr.io>; rel=\"next\"");
    }
}

//! From an answer to what was asked for. Nothing that an upstream says is believed without a look.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt;
use hyper::body::Incoming as Frames;
use serde::Deserialize;
use tokio::time::timeout;

use crate::net::fetch::link;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::Reference;
use crate::oci::Tag;
use crate::telemetry::Metrics;

use super::Error;
use super::Fault;
use super::Incoming;
use super::RawManifest;
use super::Resolved;
use super::Result;
use super::Wanted;
use super::exchange::Answer;
use super::exchange::Body;
use super::gate::Place;
use super::remote::CONTENT_DIGEST;

/// Received bytes are counted in steps of so many.
const COUNT_STEP: u64 = 256 << 10;

fn unusable(answer: &Answer, what: &str) -> Error {
    Error::new(Fault::Unusable, format!("{}: {what}", answer.origin.host()))
}

/// `Content-Length`, where it is sent and makes sense.
pub(super) fn length(answer: &Answer) -> Option<u64> {
    answer.header(header::CONTENT_LENGTH)?.trim().parse().ok()
}

fn media_type(answer: &Answer) -> Option<MediaType> {
    answer.header(header::CONTENT_TYPE).map(MediaType::new)
}

/// The digest that the answer claims; one that can't be read is no answer.
fn digest(answer: &Answer) -> Result<Option<Digest>> {
    let Some(text) = answer.header(CONTENT_DIGEST) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| unusable(answer, "its digest is none"))
}

pub(super) fn resolved(answer: &Answer, reference: &Reference) -> Result<Resolved> {
    let media_type = media_type(answer);
    if media_type.as_ref().is_some_and(|kind| !kind.may_be_manifest()) {
        return Err(unusable(answer, "its answer is of a type that is no manifest"));
    }
    let digest = match (digest(answer)?, reference.digest()) {
        (Some(claimed), Some(asked)) if claimed != asked => {
            return Err(unusable(answer, "its digest is not the one that was asked for"));
        }
        (Some(digest), _) | (None, Some(digest)) => digest,
        (None, None) => return Err(unusable(answer, "it does not say the tag's digest")),
    };
    Ok(Resolved { digest, media_type, size: length(answer) })
}

pub(super) fn manifest(answer: &Answer, reference: &Reference) -> Result<RawManifest> {
    let content_type = answer.header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
    if !MediaType::new(&content_type).may_be_manifest() {
        return Err(unusable(answer, "its answer is of a type that is no manifest"));
    }
    let (bytes, claimed) = (answer.bytes(), digest(answer)?);
    if let (Reference::Tag(_), Some(claimed)) = (reference, claimed) {
        // By digest it is for the caller to verify; what a tag is must not even be considered when it contradicts itself.
        if Digest::of_with(claimed.algorithm(), &bytes) != claimed {
            return Err(unusable(answer, "the manifest has another digest than it says"));
        }
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err() {
        return Err(unusable(answer, "the manifest is no JSON"));
    }
    Ok(RawManifest { bytes, content_type, digest: claimed })
}

/// The size behind the slash of `Content-Range`, else that of the whole answer.
pub(super) fn size_by_get(answer: &Answer) -> Result<u64> {
    let total = if answer.status == StatusCode::PARTIAL_CONTENT {
        content_range(answer).and_then(|(_, _, total)| total)
    } else {
        length(answer)
    };
    total.ok_or_else(|| unusable(answer, "it does not say the blob's size"))
}

/// First byte, last byte, size.
fn content_range(answer: &Answer) -> Option<(u64, u64, Option<u64>)> {
    let text = answer.header(header::CONTENT_RANGE)?.trim().strip_prefix("bytes")?.trim_start();
    let (range, total) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = if total.trim() == "*" { None } else { Some(total.trim().parse().ok()?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, last, total))
}

/// How a body is read.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pub(super) upstream: String,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stall: Duration,
    pub(super) bytes_max: u64,
}

pub(super) fn blob(answer: Answer, wanted: &Wanted, pace: &Pace) -> Result<Incoming> {
    // A sign-in page is no layer.
    if media_type(&answer).is_some_and(|kind| kind.as_str() == "text/html") {
        return Err(unusable(&answer, "it sent HTML instead of a blob"));
    }
    let (start, total, expected) = if answer.status == StatusCode::PARTIAL_CONTENT {
        let range = content_range(&answer).ok_or_else(|| unusable(&answer, "its Content-Range makes no sense"))?;
        let (first, last, total) = range;
        if first != wanted.start || wanted.end.is_some_and(|end| last >= end) {
            return Err(unusable(&answer, "it sent another range than the one that was asked for"));
        }
        (first, total, Some(last - first + 1))
    } else if answer.status == StatusCode::OK {
        let total = length(&answer);
        (0, total, total)
    } else {
        return Err(unusable(&answer, "its status says that it sent no blob"));
    };
    if total.is_some_and(|total| total > pace.bytes_max) {
        return Err(unusable(&answer, "the blob is larger than `limits.blob_bytes`"));
    }
    // A weak validator can't vouch for bytes (RFC 9110, 13.1.5).
    let validator = answer.header(header::ETAG).filter(|tag| tag.starts_with('"')).map(str::to_owned);
    let host = answer.origin.host().to_owned();
    let Body::Stream(frames, held) = answer.body else {
        return Err(Error::new(Fault::Unusable, format!("{host}: its body was not kept")));
    };
    let transfer = Transfer { frames, _place: held, host, expected, received: 0, counted: 0, pace: pace.clone() };
    let body = stream::unfold(Some(transfer), |transfer| async {
        let mut transfer = transfer?;
        match transfer.next().await {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(bytes), Some(transfer))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(Incoming { start, total, validator, body: body.boxed() })
}

/// A body on its way.
struct Transfer {
    frames: Frames,
    /// Its place on the endpoint's connections.
    _place: Place,
    host: String,
    expected: Option<u64>,
    received: u64,
    counted: u64,
    pace: Pace,
}

impl Transfer {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let broken = |what: &str| Error::new(Fault::Broken, format!("receiving a blob from {}: {what}", self.host));
            let frame = match timeout(self.pace.stall, self.frames.frame()).await {
                Err(_) => return Err(broken("no byte came for too long")),
                Ok(Some(Err(error))) => return Err(broken("the connection broke").caused_by(error)),
                Ok(None) if self.expected.is_some_and(|expected| expected != self.received) => {
                    return Err(broken("the body has another length than it was said to have"));
                }
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            if bytes.is_empty() {
                continue;
            }
            self.received = self.received.saturating_add(bytes.len() as u64);
            if self.received > self.expected.unwrap_or(self.pace.bytes_max) {
                return Err(broken("more bytes came than it was said to have"));
            }
            if self.received - self.counted >= COUNT_STEP {
                self.count();
            }
            return Ok(Some(bytes));
        }
    }

    fn count(&mut self) {
        self.pace.metrics.upstream_received(&self.pace.upstream, self.received - self.counted);
        self.counted = self.received;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if self.received > self.counted {
            self.count();
        }
    }
}

#[derive(Deserialize)]
struct TagList {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// One answer to a question for a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) rows: Vec<T>,
    pub(super) next: Option<Next>,
}

/// What asks for the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// The link's query. The rest of it is not taken: so no link leads anywhere else.
    pub(super) query: String,
    /// Whether anybody can ask so who knows the last name of this page.
    pub(super) is_by_name: bool,
}

pub(super) fn tags(answer: &Answer) -> Result<Page<Tag>> {
    let list: TagList = serde_json::from_slice(&answer.bytes())
        .map_err(|error| unusable(answer, "its list of tags is none").caused_by(error))?;
    let names = list.tags.unwrap_or_default();
    let next = next(answer, names.last().map(String::as_str));
    // Names that are no tags can't be pulled.
    Ok(Page { rows: names.iter().filter_map(|tag| tag.parse().ok()).collect(), next })
}

/// The link to the next page (RFC 8288), where there is one.
fn next(answer: &Answer, last: Option<&str>) -> Option<Next> {
    let target = link(&answer.headers, "next")?;
    let query = target.split('#').next().and_then(|target| target.split_once('?')).map_or("", |(_, query)| query);
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let is_by_name = last.is_some() && pairs.any(|(key, value)| key == "last" && Some(&*value) == last);
    Some(Next { query: query.to_owned(), is_by_name })
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

pub(super) fn referrers(answer: &Answer, artifact_type: Option<&str>) -> Result<Page<Descriptor>> {
    if media_type(answer).is_none_or(|kind| kind.as_str() != MediaType::OCI_INDEX) {
        return Err(unusable(answer, "its list of referrers is no image index"));
    }
    let index: Index = serde_json::from_slice(&answer.bytes())
        .map_err(|error| unusable(answer, "its list of referrers can't be read").caused_by(error))?;
    let mut rows = index.manifests.unwrap_or_default();
    if let Some(wanted) = artifact_type {
        rows.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
    }
    Ok(Page { rows, next: next(answer, None) })
}

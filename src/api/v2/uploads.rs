//! Uploads of blobs (distribution-spec, "Pushing blobs", end-4 to end-6, end-11, end-13, end-14).

use http::Response;
use http::StatusCode;
use http::header;

use crate::access::Action;
use crate::access::Caller;
use crate::access::Grant;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::Sent;
use crate::api::body::Body;
use crate::api::failure::Failure;
use crate::api::headers;
use crate::api::receive;
use crate::api::route::Begin;
use crate::api::route::Place;
use crate::api::route::Upload;
use crate::api::without_body;
use crate::oci::Digest;
use crate::oci::ErrorCode;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::push;
use crate::push::Progress;
use crate::push::Writing;
use crate::repository::Spelling;

use super::chunk::Chunk;
use super::chunk::NoRange;
use super::push::granted;

/// What a client that sends a blob in chunks is asked to send at least at a time. Smaller ones are taken too.
const CHUNK_BYTES_MIN: u64 = 64 << 10;

/// Everything that is done with uploads.
pub(in crate::api) async fn answer<B: Sent>(
    api: &Api,
    asked: &mut Asked<'_>,
    place: &Place,
    upload: &Upload,
    body: &mut B,
) -> Answer {
    let grant = granted(api, asked, place, Action::Push, Target::Repository).await?;
    let at = At { path: asked.head.uri.path().to_owned(), namespace: place.spelling.ns.clone() };
    match upload {
        Upload::Begin(begin) => {
            if let Some(digest) = &begin.mount
                && mount(api, asked, place, &grant, (digest, begin.from.as_deref())).await?
            {
                return Ok(at.created(digest));
            }
            self::begin(api, asked, &grant, &at, begin, body).await
        }
        Upload::Status { session } => {
            let progress = api.push.status(&grant, session).await?;
            Ok(at.progressed(StatusCode::NO_CONTENT, &progress))
        }
        Upload::Append { session } => append(api, asked, &grant, &at, session, body).await,
        Upload::Finish { session, digest } => finish(api, asked, &grant, &at, (session, digest), body).await,
        Upload::Cancel { session } => {
            api.push.cancel(&grant, session).await?;
            Ok(without_body(StatusCode::NO_CONTENT))
        }
    }
}

/// POST with `?mount=`: whether the blob is linked now, from the repository that is named, or from any that the caller may
/// pull where none is. What can't be mounted is to be pushed; why is nobody's business.
async fn mount(
    api: &Api,
    asked: &mut Asked<'_>,
    place: &Place,
    grant: &Grant,
    (digest, from): (&Digest, Option<&str>),
) -> Result<bool, Failure> {
    asked.account.reference = Some(Reference::Digest(*digest));
    let sources = match from {
        Some(from) => {
            let spelling = Spelling { path: from.to_owned(), ..Spelling::default() };
            api.repositories.find(&spelling).into_iter().collect()
        }
        None => api.push.holders(digest).await?,
    };
    link_from(api, &asked.caller(Some(place)), grant, digest, &sources).await
}

/// Links a blob from the first of `sources` that has it and that the caller may pull.
pub(super) async fn link_from(
    api: &Api,
    caller: &Caller,
    grant: &Grant,
    digest: &Digest,
    sources: &[RepositoryKey],
) -> Result<bool, Failure> {
    for source in sources {
        let pull = api.access.consider(caller, Action::Pull, source, &Target::Blob(*digest)).await;
        if let Ok(pull) = pull
            && api.push.mount(grant, &pull, digest).await?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// POST: a session; or, with `?digest=`, the whole blob at once.
async fn begin<B: Sent>(
    api: &Api,
    asked: &mut Asked<'_>,
    grant: &Grant,
    at: &At,
    begin: &Begin,
    body: &mut B,
) -> Answer {
    if let Some(digest) = &begin.digest {
        asked.account.reference = Some(Reference::Digest(*digest));
        let mut writing = api.push.begin_whole(grant, digest)?;
        let length = Chunk::length_of(&asked.head.headers);
        return match receive(api, asked, &mut writing, length, body).await? {
            Received::All | Received::Other => {
                writing.finish(*digest).await?;
                Ok(at.created(digest))
            }
            Received::Part(why) => Err(why.into()),
        };
    }
    let progress = api.push.begin(grant, begin.algorithm).await?;
    let mut response = at.progressed(StatusCode::ACCEPTED, &progress);
    headers::set_number(response.headers_mut(), headers::OCI_CHUNK_MIN_LENGTH, CHUNK_BYTES_MIN);
    Ok(response)
}

/// PATCH: more bytes.
async fn append<B: Sent>(
    api: &Api,
    asked: &mut Asked<'_>,
    grant: &Grant,
    at: &At,
    session: &str,
    body: &mut B,
) -> Answer {
    match open(api, asked, grant, at, (session, None), body).await? {
        Opened::Refused(response) => Ok(response),
        Opened::Received(writing) => Ok(at.progressed(StatusCode::ACCEPTED, &writing.pause().await?)),
    }
}

/// PUT: the rest of the bytes, where some are missing, and the digest of the whole.
async fn finish<B: Sent>(
    api: &Api,
    asked: &mut Asked<'_>,
    grant: &Grant,
    at: &At,
    (session, digest): (&str, &Digest),
    body: &mut B,
) -> Answer {
    asked.account.reference = Some(Reference::Digest(*digest));
    match open(api, asked, grant, at, (session, Some(digest)), body).await? {
        Opened::Refused(response) => Ok(response),
        Opened::Received(writing) => {
            writing.finish(*digest).await?;
            Ok(at.created(digest))
        }
    }
}

/// An upload that a request was to be written to.
enum Opened {
    /// All of the request came.
    Received(Writing),
    /// It does not belong where the upload has come to: the answer says where that is.
    Refused(Response<Body>),
}

async fn open<B: Sent>(
    api: &Api,
    asked: &mut Asked<'_>,
    grant: &Grant,
    at: &At,
    (session, digest): (&str, Option<&Digest>),
    body: &mut B,
) -> Result<Opened, Failure> {
    let chunk = Chunk::of(&asked.head.headers).map_err(|NoRange| {
        let message = "Content-Range is not `<first>-<last>`";
        Failure::new(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid, message)
    })?;
    let mut writing = match api.push.write(grant, session, digest).await {
        Ok(writing) => writing,
        Err(push::Error::Offset(progress)) => return Ok(Opened::Refused(at.elsewhere(&progress))),
        Err(error) => return Err(error.into()),
    };
    if !chunk.fits(writing.at()) {
        return Ok(Opened::Refused(at.elsewhere(&writing.progress())));
    }
    // What came is kept in each case.
    match receive(api, asked, &mut writing, chunk, body).await? {
        Received::All => Ok(Opened::Received(writing)),
        Received::Other => Ok(Opened::Refused(at.elsewhere(&writing.pause().await?))),
        Received::Part(why) => {
            writing.pause().await?;
            Err(why.into())
        }
    }
}

/// What came of a body.
enum Received {
    /// All of it.
    All,
    /// More or less than the range has that it was said to be.
    Other,
    /// What came before it ended.
    Part(receive::Ended),
}

/// Takes a request's body into an upload, as fast as it is written.
async fn receive<B: Sent>(
    api: &Api,
    asked: &mut Asked<'_>,
    writing: &mut Writing,
    chunk: Chunk,
    body: &mut B,
) -> Result<Received, Failure> {
    writing.expect(chunk.expected().unwrap_or(0)).await?;
    let mut left = chunk.expected();
    loop {
        let next = tokio::select! {
            biased;
            () = writing.given_up() => return Err(push::Error::UploadUnknown.into()),
            next = receive::next(body, api.limits.upload_stall) => next,
        };
        let mut bytes = match next {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(ended) => return Ok(Received::Part(ended)),
        };
        asked.account.received(bytes.len() as u64);
        let mut is_more = false;
        if let Some(left) = &mut left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            is_more = bytes.len() > most;
            bytes.truncate(most);
            *left -= bytes.len() as u64;
        }
        writing.take(bytes).await?;
        if is_more {
            return Ok(Received::Other);
        }
    }
    Ok(if left.is_none_or(|left| left == 0) { Received::All } else { Received::Other })
}

/// Where a request went, to tell in its own spelling where its blob and its upload are.
struct At {
    path: String,
    namespace: Option<String>,
}

impl At {
    /// The address of something below `…/blobs/`.
    fn address(&self, last: &str) -> String {
        headers::below_blobs(&self.path, last, self.namespace.as_deref())
    }

    /// 201: the blob is kept.
    fn created(&self, digest: &Digest) -> Response<Body> {
        let mut response = without_body(StatusCode::CREATED);
        let head = response.headers_mut();
        headers::set(head, header::LOCATION, &self.address(&digest.to_string()));
        headers::set_digest(head, digest);
        response
    }

    /// How far an upload has come, and where it goes on.
    fn progressed(&self, status: StatusCode, progress: &Progress) -> Response<Body> {
        let mut response = without_body(status);
        self.set_progress(&mut response, progress);
        response
    }

    /// 416: the bytes belong elsewhere; the upload goes on where it has come to.
    fn elsewhere(&self, progress: &Progress) -> Response<Body> {
        let failure = Failure::from(push::Error::Offset(progress.clone()));
        let mut response = failure.response();
        self.set_progress(&mut response, progress);
        response
    }

    fn set_progress(&self, response: &mut Response<Body>, progress: &Progress) {
        let head = response.headers_mut();
        headers::set(head, header::LOCATION, &self.address(&format!("uploads/{}", progress.session)));
        headers::set(head, headers::UPLOAD_UUID, &progress.session);
        // There is no way to write an empty range; registries agree on this one.
        headers::set(head, header::RANGE, &format!("0-{}", progress.received.saturating_sub(1)));
    }
}

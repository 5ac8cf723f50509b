//! Every request that is answered, parsed: method, path and query become a [`Route`]. Pure, property-tested, fuzzed.
//!
//! Below this module nobody sees a raw path. Which repository a [`Spelling`] means is decided in `repository`.

use std::borrow::Cow;
use std::fmt;

use http::Method;

use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::Tag;
use crate::repository::Spelling;

mod own;
mod query;

pub use own::Api;

pub use query::Page;

/// The longest path that is looked at: a host, a name and a tag or digest have 255 + 255 + 135 bytes at most, and a
/// token may stand in front.
pub const PATH_BYTES_MAX: usize = 2_048;

/// The longest token in a path.
const TOKEN_BYTES_MAX: usize = 1_024;

/// The longest name of a run.
const RUN_BYTES_MAX: usize = 128;

/// Where a request goes: the repository as it was written, and what stood around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The repository as the request writes it.
    pub spelling: Spelling,
    /// `run/<id>`: the run whose view is asked for.
    pub run: Option<String>,
    /// `t/<token>`: a credential, for clients that can't send one to a mirror.
    pub token: Option<Token>,
}

/// A credential from a path. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token, for whoever checks it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What is to be done with a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET.
    Get,
    /// HEAD: as GET, without the body.
    Head,
    /// POST: begin an upload, or ask the API for something.
    Post,
    /// PUT: write the whole.
    Put,
    /// PATCH: write a part.
    Patch,
    /// DELETE.
    Delete,
}

/// A request, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: is this a registry, and who am I.
    Version(Place),
    /// `…/manifests/<reference>`.
    Manifest {
        /// Where.
        place: Place,
        /// Which.
        reference: Reference,
        /// What to do with it.
        verb: Verb,
        /// The tags that a PUT by digest gives it, `?tag=` (distribution-spec, end-7b).
        tags: Vec<Tag>,
    },
    /// `…/blobs/<digest>`.
    Blob {
        /// Where.
        place: Place,
        /// Which.
        digest: Digest,
        /// What to do with it.
        verb: Verb,
    },
    /// `…/blobs/uploads/` and `…/blobs/uploads/<session>`.
    Upload {
        /// Where.
        place: Place,
        /// What is to be done.
        upload: Upload,
    },
    /// `…/tags/list`.
    Tags {
        /// Where.
        place: Place,
        /// Which part of the list.
        page: Page,
    },
    /// `…/referrers/<digest>`.
    Referrers {
        /// Where.
        place: Place,
        /// The subject.
        digest: Digest,
        /// Those after this one, where a list goes on.
        after: Option<Digest>,
        /// Only referrers of this type.
        artifact_type: Option<String>,
    },
    /// `/token`: who I am, for some minutes.
    Token {
        /// Whether nothing but pulls is wanted.
        only_pulls: bool,
    },
    /// `/healthz`: the process runs.
    Healthy,
    /// `/readyz`: it can serve what it holds.
    Ready,
    /// `/metrics`.
    Metrics,
    /// `/client-config/<kind>`.
    ClientConfig(String),
    /// `/hooks/<name>`: a forge tells what happened.
    Hook(String),
    /// `/api/v1/…`.
    Api(Api),
}

/// What is to be done with an upload (distribution-spec, "Pushing blobs").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upload {
    /// POST: begin one, or mount a blob, or take it whole.
    Begin(Begin),
    /// GET: how far has it come.
    Status {
        /// The upload.
        session: String,
    },
    /// PATCH: take more bytes.
    Append {
        /// The upload.
        session: String,
    },
    /// PUT: take the rest, check the whole and keep it.
    Finish {
        /// The upload.
        session: String,
        /// What the whole must be.
        digest: Digest,
    },
    /// DELETE: give it up.
    Cancel {
        /// The upload.
        session: String,
    },
}

/// What an upload may begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// `mount`: the blob is in another repository already (end-11).
    pub mount: Option<Digest>,
    /// `from`: in which one, as the client writes it; where it is left out any will do.
    pub from: Option<String>,
    /// `digest`: the body is the whole blob (end-4b).
    pub digest: Option<Digest>,
    /// `digest-algorithm`: what the digest will be made with (end-4c).
    pub algorithm: Option<Algorithm>,
}

/// Why a request is none that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    Nowhere,
    /// The path holds what no name, tag or digest can hold.
    #[error("the path is not one of a repository")]
    Name,
    /// What stands for a tag is none.
    #[error("not a tag")]
    Tag,
    /// What stands for a digest is none.
    #[error("not a digest")]
    Digest,
    /// More tags are named at once than are taken.
    #[error("the request is too long")]
    TooLong,
    /// A value of the query can't be meant.
    #[error("the query's `{0}` has no such value")]
    Query(&'static str),
    /// The thing exists and knows other methods; they are named as in `Allow`.
    #[error("the method is not one of {0}")]
    Method(&'static str),
}

impl Route {
    /// The label in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Manifest { .. } => "manifest",
            Self::Blob { .. } => "blob",
            Self::Upload { .. } => "upload",
            Self::Tags { .. } => "tags",
            Self::Referrers { .. } => "referrers",
            Self::Token { .. } => "token",
            Self::Healthy => "healthz",
            Self::Ready => "readyz",
            Self::Metrics => "metrics",
            Self::ClientConfig(_) => "client-config",
            Self::Hook(_) => "hooks",
            Self::Api(_) => "api",
        }
    }

    /// Where it goes, where that is a repository or its registry.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Version(place)
            | Self::Manifest { place, .. }
            | Self::Blob { place, .. }
            | Self::Upload { place, .. }
            | Self::Tags { place, .. }
            | Self::Referrers { place, .. } => Some(place),
            Self::Token { .. }
            | Self::Healthy
            | Self::Ready
            | Self::Metrics
            | Self::ClientConfig(_)
            | Self::Hook(_)
            | Self::Api(_) => None,
        }
    }
}

/// Reads a request line.
///
/// # Errors
///
/// Why it is none that is answered; never a panic, whatever is sent.
pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Route, Problem> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Problem::Name);
    }
    let path = path.strip_prefix('/').ok_or(Problem::Nowhere)?;
    if let Some(route) = own::own(method, path, query)? {
        return Ok(route);
    }
    let mut segments = Vec::with_capacity(path.split('/').count());
    for segment in path.split('/') {
        segments.push(decode(segment)?);
    }
    let at = boundary(&segments).ok_or(Problem::Nowhere)?;
    let (before, after) = segments.split_at(at);
    let after = after.get(1..).unwrap_or_default();
    let mut place = Place::default();
    let before = place.take_reserved(before)?;
    let after = place.take_reserved(after)?;
    if before.iter().any(|segment| segment.is_empty()) {
        return Err(Problem::Name);
    }
    if !before.is_empty() {
        place.spelling.prefix = Some(before.join("/"));
    }
    let query = query::Query::parse(query.unwrap_or_default())?;
    place.spelling.ns = query.ns.clone().filter(|ns| !ns.is_empty());
    match after {
        [] => only(method, "GET, HEAD").map(|_| Route::Version(place)),
        [empty] if empty.is_empty() => only(method, "GET, HEAD").map(|_| Route::Version(place)),
        _ => place.verb(method, after, query),
    }
}

/// Where `v2` stands. What is reserved in front of it (`t/<token>`, `run/<id>`) is passed over, so that a run may be
/// called `v2`.
fn boundary(segments: &[Cow<'_, str>]) -> Option<usize> {
    let mut from = 0;
    for reserved in ["t", "run"] {
        if segments.get(from).is_some_and(|segment| segment == reserved) {
            from += 2;
        }
    }
    segments.iter().skip(from).position(|segment| segment == "v2").map(|found| found + from)
}

impl Place {
    /// Takes `t/<token>` and `run/<id>` off, in this order and each once in a request.
    fn take_reserved<'a, 'b>(&mut self, segments: &'a [Cow<'b, str>]) -> Result<&'a [Cow<'b, str>], Problem> {
        let mut rest = segments;
        if let [reserved, token, tail @ ..] = rest
            && reserved == "t"
            && self.token.is_none()
        {
            let good = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(is_of_token);
            self.token = Some(Token(good.then(|| token.clone().into_owned()).ok_or(Problem::Name)?));
            rest = tail;
        }
        if let [reserved, run, tail @ ..] = rest
            && reserved == "run"
            && self.run.is_none()
        {
            self.run = Some(is_run(run).then(|| run.clone().into_owned()).ok_or(Problem::Name)?);
            rest = tail;
        }
        // Reserved first segments name no repository.
        if rest.len() > 1 && rest.first().is_some_and(|first| first == "t" || first == "run") {
            return Err(Problem::Name);
        }
        Ok(rest)
    }

    /// Finds what is asked for, from the right: a repository may be called `blobs`.
    fn verb(mut self, method: &Method, segments: &[Cow<'_, str>], query: query::Query) -> Result<Route, Problem> {
        let (name, rest) = match segments {
            [name @ .., blobs, uploads, session] if blobs == "blobs" && uploads == "uploads" => {
                self.spelling.path = named(name)?;
                let upload = query.upload(method, session)?;
                return Ok(Route::Upload { place: self, upload });
            }
            [name @ .., verb, last] => (name, (&**verb, &**last)),
            _ => return Err(Problem::Nowhere),
        };
        match rest {
            ("blobs", "uploads") => {
                self.spelling.path = named(name)?;
                let upload = query.upload(method, "")?;
                Ok(Route::Upload { place: self, upload })
            }
            ("manifests", reference) => {
                self.spelling.path = named(name)?;
                let verb = only(method, "GET, HEAD, PUT, DELETE")?;
                let reference: Reference = reference.parse().map_err(|error| match error {
                    crate::oci::reference::ReferenceError::Digest(_) => Problem::Digest,
                    crate::oci::reference::ReferenceError::Tag(_) => Problem::Tag,
                })?;
                let tags = if verb == Verb::Put { query.tags(&reference)? } else { Vec::new() };
                Ok(Route::Manifest { place: self, reference, verb, tags })
            }
            ("blobs", digest) => {
                self.spelling.path = named(name)?;
                let verb = only(method, "GET, HEAD, DELETE")?;
                let digest = digest.parse().map_err(|_| Problem::Digest)?;
                Ok(Route::Blob { place: self, digest, verb })
            }
            ("tags", "list") => {
                self.spelling.path = named(name)?;
                only(method, "GET, HEAD")?;
                Ok(Route::Tags { place: self, page: query.page()? })
            }
            ("referrers", digest) => {
                self.spelling.path = named(name)?;
                only(method, "GET, HEAD")?;
                let digest = digest.parse().map_err(|_| Problem::Digest)?;
                let after = query.after_digest()?;
                Ok(Route::Referrers { place: self, digest, after, artifact_type: query.artifact_type })
            }
            _ if segments.iter().any(|segment| segment.is_empty()) => Err(Problem::Name),
            _ => Err(Problem::Nowhere),
        }
    }
}

/// A repository's path; whether it is a name is decided where names are found.
fn named(segments: &[Cow<'_, str>]) -> Result<String, Problem> {
    if segments.is_empty() || segments.iter().any(|segment| segment.is_empty()) {
        return Err(Problem::Name);
    }
    Ok(segments.join("/"))
}

/// Whether the method is among those that are allowed, as `Allow` lists them, and what it means.
fn only(method: &Method, allowed: &'static str) -> Result<Verb, Problem> {
    if !allowed.split(", ").any(|one| one == method.as_str()) {
        return Err(Problem::Method(allowed));
    }
    Ok(match *method {
        Method::GET => Verb::Get,
        Method::HEAD => Verb::Head,
        Method::DELETE => Verb::Delete,
        Method::PUT => Verb::Put,
        Method::PATCH => Verb::Patch,
        _ => Verb::Post,
    })
}

/// Whether the text can be the name of a run.
fn is_run(text: &str) -> bool {
    !text.is_empty() && text.len() <= RUN_BYTES_MAX && text.bytes().all(is_of_token) && !matches!(text, "." | "..")
}

/// What tokens and names of runs are made of.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

/// Decodes one segment. Only what can stand in a name, tag or digest may be encoded, and of that neither a dot nor a
/// slash: no two spellings of one path, no `..` that appears after a check [distribution, Harbor and others were
/// walked out of in this way].
fn decode(segment: &str) -> Result<Cow<'_, str>, Problem> {
    if segment == "." || segment == ".." {
        return Err(Problem::Name);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':' | b'~');
    if segment.bytes().all(|b| plain(b) || b == b'.') {
        return Ok(Cow::Borrowed(segment));
    }
    let mut decoded = String::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(Problem::Name);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok().filter(|b| plain(*b)).ok_or(Problem::Name)?
            }
            b if plain(b) || b == b'.' => b,
            _ => return Err(Problem::Name),
        };
        decoded.push(char::from(byte));
    }
    Ok(Cow::Owned(decoded))
}

/// The tag after which a page begins, as it stands in a query.
fn last_tag(text: &str) -> Result<Option<Tag>, Problem> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| Problem::Query("last")) }
}

#[cfg(test)]
mod tests;

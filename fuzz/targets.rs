//! What is fuzzed: each target takes any bytes and holds what must be true of them. `fuzz_targets/` wraps each for
//! cargo-fuzz; `tests/fuzz.rs` replays the seeds as a plain test.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::LazyLock;

use bytes::Bytes;
use http::Method;
use larder::api::route;
use larder::api::route::Route;
use larder::oci::ByteRange;
use larder::oci::Digest;
use larder::oci::Manifest;
use larder::oci::Reference;
use larder::oci::RegistryName;
use larder::oci::RepositoryKey;
use larder::oci::RepositoryName;
use larder::oci::Tag;
use larder::pattern::Glob;
use larder::pattern::Template;
use larder::repository::names::Names;
use larder::repository::names::OwnNames;
use larder::repository::names::Spelling;
use larder::repository::names::find;
use url::Url;

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let registries: BTreeSet<RegistryName> =
        ["docker.io", "ghcr.io", "gcr.io", "localhost:5050"].into_iter().filter_map(|host| host.parse().ok()).collect();
    Names {
        default: registries.first().cloned().expect("one of them parses"),
        registries,
        hosted: "cache/**".parse().into_iter().collect(),
        own: OwnNames::new(Url::parse("https://larder.example.com").ok().as_ref(), &[([127, 0, 0, 1], 5000).into()]),
    }
});

/// What was read and written again is the same.
fn round_trip<T: FromStr + ToString + PartialEq>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    let again = value.to_string().parse::<T>().ok();
    assert!(again.as_ref() == Some(&value), "{text:?} is read otherwise than it is written");
    Some(value)
}

/// Names: three lines of prefix, path and `ns`.
pub(crate) fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n').map(str::to_owned);
    let prefix = lines.next().filter(|prefix| !prefix.is_empty());
    let path = lines.next().unwrap_or_default();
    round_trip::<RepositoryName>(&path);
    round_trip::<RegistryName>(&path);
    let Ok(key) = find(&Spelling { prefix, path, ns: lines.next() }, &NAMES) else { return };
    assert!(key.is_hosted() || NAMES.registries.contains(&key.registry), "{key} leads elsewhere");
    assert!(!key.name.as_str().split('/').any(|part| part.is_empty() || part == ".."), "{key} leaves its place");
    assert_eq!(RepositoryKey::from_path(&key.path()).ok(), Some(key));
}

/// References: a tag or a digest.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    round_trip::<Tag>(text);
    if let Some(reference) = round_trip::<Reference>(text) {
        assert_eq!(reference.to_string(), text, "one thing has one name");
    }
}

/// Digests.
pub(crate) fn digest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(digest) = round_trip::<Digest>(text) {
        assert_eq!(digest.to_string(), text, "one digest has one name");
        assert_eq!(digest.value().len(), digest.algorithm().length_bytes());
    }
}

/// Ranges: the first 8 bytes are the body's size.
pub(crate) fn range(data: &[u8]) {
    let Some((size, header)) = data.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    let Ok(header) = std::str::from_utf8(header) else { return };
    if let Ok(range) = header.parse::<ByteRange>()
        && let Ok(extent) = range.within(size)
    {
        assert!(extent.start < extent.end && extent.end <= size, "{header:?} leaves the {size} bytes");
    }
}

/// Manifests: the first line is the content type.
pub(crate) fn manifest(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (content_type, bytes) = data.split_at(at);
    let Ok(content_type) = std::str::from_utf8(content_type) else { return };
    let bytes = Bytes::copy_from_slice(bytes.get(1..).unwrap_or_default());
    let Ok(manifest) = Manifest::parse(bytes.clone(), content_type) else { return };
    assert_eq!(manifest.bytes, bytes, "a manifest's bytes stay as they came");
    // Types that are not known yet pass; a page of text never is a manifest.
    let media_type = manifest.media_type.as_str();
    assert!(!media_type.is_empty() && !media_type.starts_with("text/"), "{media_type:?} is no manifest's");
    let children = manifest.links.children().count();
    assert!(children <= bytes.len(), "{children} links in {} bytes", bytes.len());
    // Read again under the type that was agreed on, it is the same.
    let again = Manifest::parse(bytes, manifest.media_type.as_str()).expect("what was a manifest stays one");
    assert!(again.links == manifest.links);
}

/// Globs: the first line is the pattern, the rest a name.
pub(crate) fn glob(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, ""));
    let Some(glob) = round_trip::<Glob>(pattern) else { return };
    let matches = glob.matches(name);
    if glob.is_literal() {
        assert_eq!(matches, pattern == name);
        assert!(glob.matches(pattern));
    }
    if glob.is_everything() {
        assert!(matches);
    }
}

/// Templates: the first line is the template, the rest a name.
pub(crate) fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, name) = text.split_once('\n').unwrap_or((text, ""));
    let Some(template) = round_trip::<Template>(text) else { return };
    let Some(found) = template.split(name) else { return };
    assert_eq!(found.len(), template.names().count(), "{template} reads each variable once");
    assert_eq!(template.render(&found).as_deref(), Some(name), "{template} writes what it read");
}

/// Request lines: three lines of method, path and query.
pub(crate) fn route(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let Ok(method) = lines.next().unwrap_or_default().parse::<Method>() else { return };
    let path = lines.next().unwrap_or_default();
    let Ok(route) = route::parse(&method, path, lines.next()) else { return };
    let Some(place) = route.place() else { return };
    let written = &place.spelling;
    let dots = |text: &str| text.split('/').any(|part| part == ".." || part == ".");
    assert!(!written.prefix.as_deref().is_some_and(str::is_empty), "an empty prefix is none");
    if !matches!(route, Route::Version(_)) {
        assert!(!written.path.is_empty(), "what is asked for lies in a repository");
    }
    if let Ok(key) = find(written, &NAMES) {
        assert!(!dots(key.name.as_str()), "{key} leaves its place");
        assert!(key.is_hosted() || NAMES.registries.contains(&key.registry), "{key} leads elsewhere");
    }
}

//! The form of a segment: a line with its version and the moment it begins, then frames that are checked each by itself.
//!
//! A frame is the length of its content (4 bytes), the first 8 bytes of the content's SHA-256, and the content: a time and
//! items. Names are written once in a segment and numbered in the order they come; numbers are as short as they are small,
//! so that one more use of an image takes about six bytes.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::Pruned;
use super::Pull;
use super::Sent;

/// How a segment begins; the moment of its beginning and the end of the line follow.
const HEADER: &str = "larder pulls 1 ";
/// The digits of that moment.
const MOMENT_DIGITS: usize = 15;
/// Bytes before a frame's content.
const FRAME_HEAD: usize = 12;

/// A repository's name comes: its length and its text.
const REPOSITORY: u8 = b'r';
/// A tag comes: its length and its text.
const TAG: u8 = b't';
/// An image comes: its repository, its tag (0: none), the digest's algorithm and value, the bytes that a pull takes.
const IMAGE: u8 = b'i';
/// An image was used: which, when, how many pulls, and how many of them were answered from here.
const PULL: u8 = b'p';
/// Blobs went out: of which repository, when, how many bytes, and how many of them came from here.
const SENT: u8 = b's';
/// Policies deleted something: in which repository, when, how much, and how many bytes became free.
const PRUNED: u8 = b'd';

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Pull(Pull),
    Sent(Sent),
    Pruned(Pruned),
}

impl Entry {
    pub(super) fn at(&self) -> Timestamp {
        match self {
            Self::Pull(pull) => pull.at,
            Self::Sent(sent) => sent.at,
            Self::Pruned(pruned) => pruned.at,
        }
    }
}

/// How a segment that begins at `start` begins.
pub(super) fn header(start: Timestamp) -> String {
    format!("{HEADER}{:0MOMENT_DIGITS$}\n", start.0)
}

/// The moment that a segment begins at, and what follows its header. None where it is no segment of this version.
pub(super) fn split(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let rest = bytes.strip_prefix(HEADER.as_bytes())?;
    let (moment, rest) = rest.split_at_checked(MOMENT_DIGITS)?;
    let moment = std::str::from_utf8(moment).ok()?.parse().ok()?;
    Some((Timestamp(moment), rest.strip_prefix(b"\n")?))
}

/// The bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = HEADER.len() + MOMENT_DIGITS + 1;

/// The numbers of the names that a segment has.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    repositories: HashMap<RepositoryKey, u64>,
    tags: HashMap<Tag, u64>,
    images: HashMap<(u64, u64, Digest), u64>,
}

impl Dictionary {
    /// Whether the image was named; its bytes need not be known again then.
    pub(super) fn knows(&self, of: &RepositoryKey, tag: Option<&Tag>, digest: &Digest) -> bool {
        let known = || {
            let tag = tag.map_or(Some(0), |tag| self.tags.get(tag).map(|n| n + 1))?;
            self.images.get(&(*self.repositories.get(of)?, tag, *digest))
        };
        known().is_some()
    }

    /// The frame of these entries.
    pub(super) fn frame(&mut self, entries: &[Entry]) -> Vec<u8> {
        let base = entries.iter().map(|e| e.at().0 / 1000).min().unwrap_or_default();
        let mut content = Vec::with_capacity(entries.len() * 8);
        put(&mut content, base);
        for entry in entries {
            match entry {
                Entry::Pull(pull) => {
                    let image = self.image(&mut content, pull);
                    content.push(PULL);
                    for n in [image, pull.at.0 / 1000 - base, u64::from(pull.pulls), u64::from(pull.hits)] {
                        put(&mut content, n);
                    }
                }
                Entry::Sent(sent) => {
                    let repository = self.repository(&mut content, &sent.repository);
                    content.push(SENT);
                    for n in [repository, sent.at.0 / 1000 - base, sent.bytes, sent.from_here] {
                        put(&mut content, n);
                    }
                }
                Entry::Pruned(pruned) => {
                    let repository = self.repository(&mut content, &pruned.repository);
                    content.push(PRUNED);
                    for n in [repository, pruned.at.0 / 1000 - base, pruned.deleted, pruned.freed] {
                        put(&mut content, n);
                    }
                }
            }
        }
        let mut frame = Vec::with_capacity(FRAME_HEAD + content.len());
        frame.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
        frame.extend(check(&content));
        frame.extend(content);
        frame
    }

    fn repository(&mut self, content: &mut Vec<u8>, key: &RepositoryKey) -> u64 {
        let next = self.repositories.len() as u64;
        *self.repositories.entry(key.clone()).or_insert_with(|| {
            content.push(REPOSITORY);
            put_text(content, &key.path());
            next
        })
    }

    fn image(&mut self, content: &mut Vec<u8>, pull: &Pull) -> u64 {
        let repository = self.repository(content, &pull.repository);
        let tag = pull.tag.as_ref().map_or(0, |tag| {
            let next = self.tags.len() as u64;
            1 + *self.tags.entry(tag.clone()).or_insert_with(|| {
                content.push(TAG);
                put_text(content, tag.as_str());
                next
            })
        });
        let next = self.images.len() as u64;
        *self.images.entry((repository, tag, pull.digest)).or_insert_with(|| {
            content.push(IMAGE);
            put(content, repository);
            put(content, tag);
            content.push(u8::from(pull.digest.algorithm() == Algorithm::Sha512));
            content.extend(pull.digest.value());
            put(content, pull.bytes);
            next
        })
    }
}

#[derive(Clone, Debug)]
struct Image {
    repository: u64,
    tag: u64,
    digest: Digest,
    bytes: u64,
}

/// Reads frames one after the other, and the entries in them.
#[derive(Debug, Default)]
pub(super) struct Reader {
    bytes: Vec<u8>,
    /// Where the next item begins.
    at: usize,
    /// Where the frame ends that it is in.
    end: usize,
    base: u64,
    repositories: Vec<RepositoryKey>,
    tags: Vec<Tag>,
    images: Vec<Image>,
}

/// A frame, or an item in it, is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Reader {
    /// Reads what follows a segment's header.
    pub(super) fn new(frames: &[u8]) -> Self {
        Self { bytes: frames.to_vec(), ..Self::default() }
    }

    /// The next entry; none at the end.
    pub(super) fn next(&mut self) -> Option<Result<Entry, Broken>> {
        loop {
            if self.at == self.end {
                if self.end == self.bytes.len() {
                    return None;
                }
                if self.enter().is_none() {
                    return Some(Err(Broken));
                }
                continue;
            }
            match self.item() {
                Some(Some(entry)) => return Some(Ok(entry)),
                Some(None) => {}
                None => return Some(Err(Broken)),
            }
        }
    }

    /// How many bytes are whole frames: what follows was torn when the writer ended.
    pub(super) fn whole(&mut self) -> usize {
        let mut whole = self.end;
        loop {
            if self.at < self.end {
                if self.item().is_none() {
                    return whole;
                }
                continue;
            }
            whole = self.end;
            if whole == self.bytes.len() || self.enter().is_none() {
                return whole;
            }
        }
    }

    /// The numbers of the names read so far, to go on writing with.
    pub(super) fn into_dictionary(self) -> Dictionary {
        let images = self.images.into_iter().map(|i| (i.repository, i.tag, i.digest));
        Dictionary {
            repositories: self.repositories.into_iter().zip(0..).collect(),
            tags: self.tags.into_iter().zip(0..).collect(),
            images: images.zip(0..).collect(),
        }
    }

    /// Enters the next frame.
    fn enter(&mut self) -> Option<()> {
        let head = self.bytes.get(self.end..self.end.checked_add(FRAME_HEAD)?)?;
        let (length, sum) = head.split_first_chunk::<4>()?;
        let begin = self.end + FRAME_HEAD;
        let end = begin.checked_add(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let content = self.bytes.get(begin..end)?;
        if check(content) != sum {
            return None;
        }
        (self.at, self.end) = (begin, end);
        self.base = self.number()?;
        Some(())
    }

    /// Reads an item: an entry, or a name.
    #[expect(clippy::option_option, reason = "nothing to tell is not the same as broken")]
    fn item(&mut self) -> Option<Option<Entry>> {
        let kind = *self.take(1)?.first()?;
        match kind {
            REPOSITORY => {
                let key = RepositoryKey::from_path(&self.text()?).ok()?;
                self.repositories.push(key);
            }
            TAG => {
                let tag = self.text()?.parse().ok()?;
                self.tags.push(tag);
            }
            IMAGE => {
                let (repository, tag) = (self.number()?, self.number()?);
                let digest = self.digest()?;
                let bytes = self.number()?;
                self.images.push(Image { repository, tag, digest, bytes });
            }
            PULL => return self.pull().map(|pull| Some(Entry::Pull(pull))),
            SENT | PRUNED => {
                let number = usize::try_from(self.number()?).ok()?;
                let repository = self.repositories.get(number)?.clone();
                let at = self.moment()?;
                let (first, second) = (self.number()?, self.number()?);
                return Some(Some(if kind == SENT {
                    Entry::Sent(Sent { at, repository, bytes: first, from_here: second })
                } else {
                    Entry::Pruned(Pruned { at, repository, deleted: first, freed: second })
                }));
            }
            _ => return None,
        }
        Some(None)
    }

    fn pull(&mut self) -> Option<Pull> {
        let image = self.number()?;
        let (at, pulls, hits) = (self.moment()?, self.number()?, self.number()?);
        let image = self.images.get(usize::try_from(image).ok()?)?;
        let tag = match image.tag.checked_sub(1) {
            None => None,
            Some(tag) => Some(self.tags.get(usize::try_from(tag).ok()?)?.clone()),
        };
        Some(Pull {
            at,
            repository: self.repositories.get(usize::try_from(image.repository).ok()?)?.clone(),
            tag,
            digest: image.digest,
            bytes: image.bytes,
            pulls: u32::try_from(pulls).ok()?,
            hits: u32::try_from(hits).ok()?,
        })
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.end)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// A moment of the frame, to the second.
    fn moment(&mut self) -> Option<Timestamp> {
        Some(Timestamp(self.base.checked_add(self.number()?)?.checked_mul(1000)?))
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn digest(&mut self) -> Option<Digest> {
        match *self.take(1)?.first()? {
            0 => Some(Digest::Sha256(self.take(32)?.try_into().ok()?)),
            1 => Some(Digest::Sha512(self.take(64)?.try_into().ok()?)),
            _ => None,
        }
    }
}

fn check(content: &[u8]) -> [u8; 8] {
    let digest = Digest::of(content);
    digest.value().first_chunk().copied().unwrap_or_default()
}

fn put(content: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        content.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    content.push(u8::try_from(number).unwrap_or_default());
}

fn put_text(content: &mut Vec<u8>, text: &str) {
    put(content, text.len() as u64);
    content.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let name = (0..3_u8).prop_map(|n| format!("docker.io/library/a{n}"));
        let tag = proptest::option::of((0..3_u8).prop_map(|n| format!("v{n}").parse().unwrap()));
        let figures = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
        (0..4_u8, name, tag, any::<u8>(), 0..4_000_000_000_u64, figures).prop_map(
            |(kind, name, tag, seed, second, (pulls, hits, bytes, from_here))| {
                let (at, repository) = (Timestamp(second * 1000), RepositoryKey::from_path(&name).unwrap());
                match kind {
                    0 => return Entry::Sent(Sent { at, repository, bytes, from_here }),
                    1 => return Entry::Pruned(Pruned { at, repository, deleted: bytes, freed: from_here }),
                    _ => {}
                }
                let algorithm = if seed.is_multiple_of(2) { Algorithm::Sha256 } else { Algorithm::Sha512 };
                let digest = Digest::of_with(algorithm, &[seed % 5]);
                Entry::Pull(Pull { at, repository, tag, digest, bytes, pulls, hits })
            },
        )
    }

    fn all(frames: &[u8]) -> Vec<Result<Entry, Broken>> {
        let mut reader = Reader::new(frames);
        std::iter::from_fn(|| reader.next()).take(10_000).collect()
    }

    /// The same with the size that was told first.
    fn sized(entries: &[Entry]) -> Vec<Entry> {
        let mut sizes: HashMap<(RepositoryKey, Option<Tag>, Digest), u64> = HashMap::new();
        let sized = |entry: &Entry| match entry {
            Entry::Pull(pull) => {
                let key = (pull.repository.clone(), pull.tag.clone(), pull.digest);
                Entry::Pull(Pull { bytes: *sizes.entry(key).or_insert(pull.bytes), ..pull.clone() })
            }
            other => other.clone(),
        };
        entries.iter().map(sized).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_a_torn_end_is_cut(
            first in proptest::collection::vec(entry(), 0..20),
            second in proptest::collection::vec(entry(), 1..20),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut dictionary = Dictionary::default();
            let mut bytes = dictionary.frame(&first);
            let whole = bytes.len();
            bytes.extend(dictionary.frame(&second));
            let both = [first.clone(), second.clone()].concat();
            let wanted = sized(&both);
            prop_assert_eq!(all(&bytes).into_iter().collect::<Result<Vec<_>, _>>().unwrap(), wanted.clone());
            // Wherever the writer was stopped in the second frame, the first is whole, and writing goes on behind it.
            let torn = bytes.get(..whole + cut.index(bytes.len() - whole)).unwrap();
            let mut reader = Reader::new(torn);
            prop_assert_eq!(reader.whole(), whole);
            let mut reader = Reader::new(bytes.get(..whole).unwrap());
            while reader.next().is_some() {}
            let mut again = bytes.get(..whole).unwrap().to_vec();
            again.extend(reader.into_dictionary().frame(&second));
            prop_assert_eq!(all(&again).into_iter().collect::<Result<Vec<_>, _>>().unwrap(), wanted);
        }

        #[test]
        fn no_bytes_make_it_panic_and_a_changed_one_is_noticed(
            entries in proptest::collection::vec(entry(), 1..10),
            at in any::<proptest::sample::Index>(),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = Dictionary::default().frame(&entries);
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            prop_assert!(all(&bytes).contains(&Err(Broken)));
            all(&noise);
        }
    }

    #[test]
    fn one_more_use_of_an_image_takes_a_few_bytes() {
        let pull = |n: u8| {
            let repository = RepositoryKey::from_path("docker.io/library/alpine").unwrap();
            let at = Timestamp(1_790_000_000_000 + u64::from(n) * 100);
            Entry::Pull(Pull {
                at,
                repository,
                tag: None,
                digest: Digest::of(&[n % 10]),
                bytes: 1 << 30,
                pulls: 1,
                hits: 1,
            })
        };
        let mut dictionary = Dictionary::default();
        dictionary.frame(&(0..100).map(pull).collect::<Vec<_>>());
        let frame = dictionary.frame(&(0..100).map(pull).collect::<Vec<_>>());
        assert!(frame.len() <= 100 * 5 + FRAME_HEAD + 5, "{}", frame.len());
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let text = header(Timestamp(1_790_000_000_000));
        assert_eq!(text.len(), HEADER_BYTES);
        assert_eq!(split(text.as_bytes()), Some((Timestamp(1_790_000_000_000), &[][..])));
        for wrong in ["", "larder pulls 2 000001790000000\n", "larder pulls 1 0000017900x0000\n", "larder pulls 1 00"] {
            assert_eq!(split(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

//! A history's requests, one after the other, through a policy.

use std::collections::HashMap;
use std::collections::HashSet;

use larder::cache::evict::Holding;
use larder::cache::evict::Kept;
use larder::cache::evict::Popularity;
use larder::cache::evict::plan;
use larder::clock::Timestamp;
use larder::config::Config;
use larder::history::Pull;
use larder::oci::Digest;
use larder::oci::MediaType;
use larder::oci::RepositoryKey;
use larder::oci::Tag;
use larder::store::Kind;
use larder::store::LinkRecord;
use larder::store::Linked;
use larder::store::Origin;
use larder::store::Standing;
use larder::store::TagRecord;
use larder::store::Tagged;

use super::policies::Policy;
use super::traces::Request;
use super::traces::Trace;

/// What goes as one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Blob,
    Image,
}

/// When it is known that a tag means another image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// It is not looked at.
    Never,
    /// When it is pulled.
    AtPulls,
    /// When it happens, as by revalidation ahead of pulls.
    AtOnce,
}

/// What was answered without an upstream.
pub struct Ratios {
    /// Of the requests for blobs.
    pub requests: f64,
    /// Of their bytes.
    pub bytes: f64,
    /// Of the images: all blobs of it.
    pub images: f64,
}

/// What is held.
struct Cache<'a> {
    trace: &'a Trace,
    /// How many units have a blob.
    names: Vec<u32>,
    bytes: u64,
    asked: [u64; 3],
    hit: [u64; 3],
}

impl<'a> Cache<'a> {
    fn new(trace: &'a Trace) -> Self {
        Self { trace, names: vec![0; trace.sizes.len()], bytes: 0, asked: [0; 3], hit: [0; 3] }
    }

    /// Counts what of an image is here.
    fn ask(&mut self, image: usize) {
        let mut whole = true;
        for blob in &self.trace.images[image] {
            let (here, size) = (self.names[*blob] > 0, self.trace.sizes[*blob]);
            whole &= here;
            for (n, of) in [1, size].into_iter().enumerate() {
                self.asked[n] += of;
                self.hit[n] += if here { of } else { 0 };
            }
        }
        self.asked[2] += 1;
        self.hit[2] += u64::from(whole);
    }

    fn put(&mut self, blob: usize) {
        self.names[blob] += 1;
        if self.names[blob] == 1 {
            self.bytes += self.trace.sizes[blob];
        }
    }

    fn drop(&mut self, blob: usize) {
        self.names[blob] -= 1;
        if self.names[blob] == 0 {
            self.bytes -= self.trace.sizes[blob];
        }
    }

    fn ratios(&self) -> Ratios {
        let ratio = |n: usize| self.hit[n] as f64 / self.asked[n] as f64;
        Ratios { requests: ratio(0), bytes: ratio(1), images: ratio(2) }
    }
}

/// Through a policy of another's.
pub fn through(trace: &Trace, capacity: u64, unit: Unit, mut policy: Box<dyn Policy>) -> Ratios {
    let mut cache = Cache::new(trace);
    let mut held = HashSet::new();
    let single: Vec<[usize; 1]> = (0..trace.sizes.len()).map(|blob| [blob]).collect();
    let blobs = |one: usize| match unit {
        Unit::Blob => &single[one][..],
        Unit::Image => &trace.images[one][..],
    };
    for request in &trace.requests {
        cache.ask(request.image);
        let units = match unit {
            Unit::Blob => &trace.images[request.image][..],
            Unit::Image => std::slice::from_ref(&request.image),
        };
        for one in units {
            if held.insert(*one) {
                // What comes goes nowhere before it is there.
                let size: u64 = blobs(*one).iter().filter(|b| cache.names[**b] == 0).map(|b| trace.sizes[*b]).sum();
                while cache.bytes + size > capacity {
                    let Some(victim) = policy.victim() else { break };
                    held.remove(&victim);
                    for blob in blobs(victim) {
                        cache.drop(*blob);
                    }
                }
                for blob in blobs(*one) {
                    cache.put(*blob);
                }
            }
            policy.used(*one, blobs(*one).iter().map(|blob| trace.sizes[*blob]).sum());
        }
    }
    cache.ratios()
}

/// Through larder's own plan, as it is carried out when the store is full: from the high mark down to the low one.
pub fn larder(trace: &Trace, capacity: u64, moves: Moves) -> Ratios {
    let store = Config::default().store;
    let low = capacity * u64::from(store.low_watermark) / u64::from(store.high_watermark);
    let mut state = State::new(trace, Popularity::new(usize::try_from(store.uses).unwrap()));
    let mut pending = trace.moves.iter().peekable();
    for request in &trace.requests {
        while moves == Moves::AtOnce && pending.peek().is_some_and(|(at, ..)| *at <= request.at) {
            let (at, tag, means) = pending.next().unwrap();
            state.moved(*at, *tag, means[0]);
        }
        state.pull(request, moves);
        if state.cache.bytes > capacity {
            state.evict(state.cache.bytes - low);
        }
    }
    state.cache.ratios()
}

struct State<'a> {
    cache: Cache<'a>,
    popularity: Popularity,
    repository: RepositoryKey,
    /// The images that are held, with their last uses.
    held: HashMap<usize, u64>,
    blobs_used: Vec<u64>,
    tags: Vec<Option<Tagged>>,
    images: Vec<Digest>,
    blobs: Vec<Digest>,
    numbers: HashMap<Digest, usize>,
}

impl<'a> State<'a> {
    fn new(trace: &'a Trace, popularity: Popularity) -> Self {
        let digests = |kind: &str, count: usize| -> Vec<Digest> {
            (0..count).map(|n| Digest::of(format!("{kind} {n}").as_bytes())).collect()
        };
        let images = digests("image", trace.images.len());
        Self {
            cache: Cache::new(trace),
            popularity,
            repository: RepositoryKey::from_path("docker.io/library/all").unwrap(),
            held: HashMap::new(),
            blobs_used: vec![0; trace.sizes.len()],
            tags: (0..trace.tags).map(|_| None).collect(),
            numbers: images.iter().copied().zip(0..).collect(),
            images,
            blobs: digests("blob", trace.sizes.len()),
        }
    }

    /// A tag is known to mean another image.
    fn moved(&mut self, at: u64, tag: usize, image: usize) {
        let (digest, at) = (self.images[image], Timestamp(at * 1000));
        let tagged = self.tags[tag].get_or_insert_with(|| record(tag, digest, at));
        if tagged.record.digest != digest {
            tagged.record.digest = digest;
            tagged.record.history.push((digest, at));
            let surplus = tagged.record.history.len().saturating_sub(10);
            tagged.record.history.drain(..surplus);
        }
    }

    fn pull(&mut self, request: &Request, moves: Moves) {
        let (trace, image, at) = (self.cache.trace, request.image, Timestamp(request.at * 1000));
        self.cache.ask(image);
        if self.held.insert(image, request.at).is_none() {
            for blob in &trace.images[image] {
                self.cache.put(*blob);
            }
        }
        for blob in &trace.images[image] {
            self.blobs_used[*blob] = request.at;
        }
        let tag = request.tag.filter(|_| moves != Moves::Never);
        if let Some(tag) = tag {
            self.moved(request.at, tag, image);
            self.tags[tag].as_mut().unwrap().used = Some(at);
        }
        let tag = tag.map(name);
        let (repository, digest) = (self.repository.clone(), self.images[image]);
        self.popularity.note(&Pull { at, repository, tag, digest, bytes: 1, pulls: 1, hits: 0 });
    }

    fn evict(&mut self, wanted: u64) {
        let trace = self.cache.trace;
        let links = self.held.iter().map(|(image, used)| {
            let children = trace.images[*image].iter().map(|blob| self.blobs[*blob]).collect();
            let media_type = MediaType::new(MediaType::OCI_MANIFEST);
            let kind = Kind::Manifest { media_type, subject: None, artifact_type: None };
            link(self.images[*image], 0, kind, *used, children)
        });
        let held = self.cache.names.iter().enumerate().filter(|(_, count)| **count > 0);
        let blobs = held.map(|(b, _)| link(self.blobs[b], trace.sizes[b], Kind::Blob, self.blobs_used[b], Vec::new()));
        let holding = Holding {
            repository: self.repository.clone(),
            tags: self.tags.iter().flatten().cloned().collect(),
            links: links.chain(blobs).collect(),
        };
        for victim in plan(&[holding], wanted, &Kept::default(), &self.popularity) {
            for image in victim.links.iter().filter_map(|digest| self.numbers.get(digest)) {
                self.held.remove(image);
                for blob in &trace.images[*image] {
                    self.cache.drop(*blob);
                }
            }
        }
    }
}

fn name(tag: usize) -> Tag {
    format!("t{tag}").parse().unwrap()
}

fn record(tag: usize, digest: Digest, at: Timestamp) -> Tagged {
    let record = TagRecord {
        tag: name(tag),
        digest,
        media_type: MediaType::new(MediaType::OCI_MANIFEST),
        size: 0,
        origin: Origin::Proxied,
        pusher: None,
        at,
        history: vec![(digest, at)],
        gone: None,
    };
    Tagged { record, validated_at: at, used: None }
}

fn link(digest: Digest, size: u64, kind: Kind, used: u64, children: Vec<Digest>) -> Linked {
    let at = Timestamp(used * 1000);
    let link =
        LinkRecord { digest, generation: 0, size, kind, origin: Origin::Proxied, at, standing: Standing::default() };
    Linked { link, used: Some(at), children, subject: None }
}

//! How popular images are: how often they were used, and how long ago, in one number. Pure.
//!
//! Each use counts half as much when it is one half-life old, so that the sum of all uses says what LRU and LFU say
//! together (LRFU: Lee et al., 2001). The sum is kept as its logarithm, less the decay: it changes with a use only, and the
//! order of two images never changes by itself. It outlives the image: what is fetched again is as popular as it was.
//!
//! A tag's popularity is its own, whatever the tag means: a new image of a popular tag begins as popular as the last one.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::history::Pull;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

/// Uses of anything that make a use count half …
const HALF_LIFE_USES: f64 = 7_000.0;
/// … or this time, whatever comes first: a quiet cache forgets too. `benches/eviction` has the figures of both.
const HALF_LIFE: Duration = Duration::from_hours(14 * 24);
/// A popularity is at most this far ahead of one use: what was used a thousand times and never again goes as soon as
/// what was used sixteen times.
const LEAD_MAX: f64 = 4.0;
/// How far apart moments are that are remembered with their place on the scale.
const STEP: f64 = 0.05;

/// A place on the scale of popularity, in half-lives: where one use puts an image that had none. More is more popular.
pub type Place = f64;

/// What is known of the uses of images.
#[derive(Clone, Debug)]
pub struct Popularity {
    /// The most images and tags that are remembered.
    capacity: usize,
    count: usize,
    repositories: HashMap<RepositoryKey, Places>,
    /// The last use, and its place.
    now: (Timestamp, Place),
    /// Earlier moments and their places, the oldest first.
    moments: Vec<(Timestamp, Place)>,
}

#[derive(Clone, Debug, Default)]
struct Places {
    tags: HashMap<Tag, Place>,
    images: HashMap<Digest, Place>,
}

impl Popularity {
    /// Nothing was used yet. It remembers `capacity` images and tags, the most popular ones where there are more.
    pub fn new(capacity: usize) -> Self {
        let (capacity, repositories) = (capacity.max(1), HashMap::new());
        Self { capacity, count: 0, repositories, now: (Timestamp::default(), 0.0), moments: Vec::new() }
    }

    /// The most images and tags that it remembers.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The moment of the last use that it was told.
    pub fn upto(&self) -> Timestamp {
        self.now.0
    }

    /// Takes up uses of an image that were noted together. They come in the order of time.
    pub fn note(&mut self, pull: &Pull) {
        let (last, place) = self.now;
        let begins = self.moments.is_empty();
        let place =
            if begins { of_time(pull.at) } else { place + of_time_between(last, pull.at).max(1.0 / HALF_LIFE_USES) };
        self.now = (pull.at.max(last), place);
        if self.moments.last().is_none_or(|(_, known)| place - known >= STEP) {
            self.moments.push(self.now);
        }
        let of = self.repositories.entry(pull.repository.clone()).or_default();
        if let Some(tag) = &pull.tag {
            self.count += usize::from(add(of.tags.entry(tag.clone()).or_insert(f64::NEG_INFINITY), place));
        }
        if pull.pulls > 0 {
            self.count += usize::from(add(of.images.entry(pull.digest).or_insert(f64::NEG_INFINITY), place));
        }
        if self.count > self.capacity {
            self.forget();
        }
    }

    /// The place of an image by its own uses; none where none is known.
    pub fn of_image(&self, of: &RepositoryKey, digest: &Digest) -> Option<Place> {
        self.repositories.get(of)?.images.get(digest).copied()
    }

    /// The place of a tag; none where no use is known.
    pub fn of_tag(&self, of: &RepositoryKey, tag: &Tag) -> Option<Place> {
        self.repositories.get(of)?.tags.get(tag).copied()
    }

    /// The place of one use at that moment.
    pub fn of_moment(&self, at: Timestamp) -> Place {
        let following = self.moments.partition_point(|(known, _)| *known <= at);
        let before = following.checked_sub(1).and_then(|n| self.moments.get(n));
        match (before, self.moments.get(following)) {
            (None, None) => of_time(at),
            (None, Some((known, place))) => place - of_time_between(at, *known),
            (Some((known, place)), Some((_, most))) => (place + of_time_between(*known, at)).min(*most),
            // After all that was told, the time since then; else no later than that.
            (Some(_), None) if at >= self.now.0 => self.now.1 + of_time_between(self.now.0, at),
            (Some((known, place)), None) => (place + of_time_between(*known, at)).min(self.now.1),
        }
    }

    /// Forgets the less popular half.
    fn forget(&mut self) {
        let mut places: Vec<Place> = Vec::with_capacity(self.count);
        for of in self.repositories.values() {
            places.extend(of.tags.values().chain(of.images.values()));
        }
        let middle = places.len() / 2;
        let middle = *places.select_nth_unstable_by(middle, f64::total_cmp).1;
        self.repositories.retain(|_, of| {
            of.tags.retain(|_, place| *place > middle);
            of.images.retain(|_, place| *place > middle);
            !(of.tags.is_empty() && of.images.is_empty())
        });
        self.count = self.repositories.values().map(|of| of.tags.len() + of.images.len()).sum();
        // What is left of the past is told to half the precision where it grows long.
        if self.moments.len() > self.capacity {
            let mut number = 0;
            self.moments.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }
}

/// Adds a use at `now` to what was there; tells whether nothing was.
fn add(place: &mut Place, now: Place) -> bool {
    let first = *place == f64::NEG_INFINITY;
    // log2(2^place + 2^now), from the larger one, so that nothing overflows.
    let (high, low) = (place.max(now), place.min(now));
    *place = (high + (1.0 + (low - high).exp2()).log2()).min(now + LEAD_MAX);
    first
}

/// Time alone in half-lives since 1970.
fn of_time(at: Timestamp) -> Place {
    of_time_between(Timestamp::default(), at)
}

/// Time alone in half-lives; nothing where the clock was set back.
fn of_time_between(earlier: Timestamp, later: Timestamp) -> Place {
    later.since(earlier).as_secs_f64() / HALF_LIFE.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_790_000_000_000;
    const DAY: u64 = 86_400_000;

    fn of() -> RepositoryKey {
        RepositoryKey::from_path("docker.io/library/alpine").unwrap()
    }

    fn pull(tag: &str, n: u8, at: u64) -> Pull {
        let (repository, tag) = (of(), (!tag.is_empty()).then(|| tag.parse().unwrap()));
        Pull { at: Timestamp(START + at), repository, tag, digest: Digest::of(&[n]), bytes: 1, pulls: 1, hits: 0 }
    }

    fn told(uses: &[(&str, u8, u64)]) -> Popularity {
        let mut popularity = Popularity::new(1000);
        for (tag, n, at) in uses {
            popularity.note(&pull(tag, *n, *at));
        }
        popularity
    }

    fn image(popularity: &Popularity, n: u8) -> Place {
        popularity.of_image(&of(), &Digest::of(&[n])).unwrap()
    }

    #[test]
    fn a_use_counts_half_after_a_half_life_and_the_sum_is_bounded() {
        let popularity = told(&[("", 1, 0), ("", 1, 0), ("", 2, 14 * DAY)]);
        // Two uses a half-life ago are one now, but for the moments in between.
        assert!((image(&popularity, 1) - image(&popularity, 2)).abs() < 0.001);
        let mut often = told(&[]);
        for _ in 0..1000 {
            often.note(&pull("", 1, 0));
        }
        often.note(&pull("", 2, 0));
        let lead = image(&often, 1) - image(&often, 2);
        assert!((LEAD_MAX - 0.001..=LEAD_MAX).contains(&lead), "{lead}");
    }

    #[test]
    fn a_new_image_of_a_tag_finds_the_tags_popularity() {
        let popularity = told(&[("3", 1, 0), ("3", 1, 1000), ("3", 2, 2000), ("", 9, 3000)]);
        let tag = popularity.of_tag(&of(), &"3".parse().unwrap()).unwrap();
        assert!(tag > image(&popularity, 1) && image(&popularity, 1) > image(&popularity, 9));
        assert_eq!(popularity.of_image(&of(), &Digest::of(&[3])), None);
        // What a tag means was asked for, and nothing was pulled.
        let mut resolved = told(&[]);
        resolved.note(&Pull { pulls: 0, ..pull("3", 1, 0) });
        assert!(resolved.of_tag(&of(), &"3".parse().unwrap()).is_some());
        assert_eq!(resolved.of_image(&of(), &Digest::of(&[1])), None);
    }

    #[test]
    fn a_moment_has_the_place_of_a_use_then() {
        let uses: Vec<_> = (0..3000_u64).map(|n| ("", u8::try_from(n % 250).unwrap(), n * 1000)).collect();
        let popularity = told(&uses);
        let place = |at: u64| popularity.of_moment(Timestamp(START + at));
        assert!((place(2_999_000) - popularity.now.1).abs() < STEP);
        assert!((place(0) - popularity.moments[0].1).abs() < STEP);
        let middle = place(1_500_000);
        assert!((middle - f64::midpoint(place(0), popularity.now.1)).abs() < STEP, "{middle}");
        let moments: Vec<Place> =
            (0..4000).map(|n| popularity.of_moment(Timestamp(START - 500_000 + n * 1000))).collect();
        assert!(moments.is_sorted(), "later is never less");
        // Without any history it is time alone.
        let nothing = told(&[]);
        assert!(nothing.of_moment(Timestamp(START)) < nothing.of_moment(Timestamp(START + 1)));
    }

    #[test]
    fn it_remembers_the_most_popular_within_its_bound() {
        let mut popularity = Popularity::new(20);
        for n in 0..200_u8 {
            for _ in 0..if n == 7 { 9 } else { 1 } {
                popularity.note(&pull("", n, u64::from(n) * 1000));
            }
            assert!(popularity.count <= 20);
        }
        assert!(popularity.of_image(&of(), &Digest::of(&[7])).is_some());
        assert!(popularity.of_image(&of(), &Digest::of(&[8])).is_none());
    }
}

//! Policies of others, as their papers have them: each decides from uses and sizes alone.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::ops::Bound;

/// What a request costs besides the bytes, and what a byte costs, in seconds: 20 MB/s behind 200 ms.
const REQUEST_SECONDS: f64 = 0.2;
const BYTE_SECONDS: f64 = 1.0 / 20e6;

/// Decides what goes.
pub trait Policy {
    /// A unit was used: it is there, or comes.
    fn used(&mut self, unit: usize, size: u64);
    /// The unit that goes, and is there no more.
    fn victim(&mut self) -> Option<usize>;
}

/// A queue in the order of some numbers.
#[derive(Default)]
struct Ordered {
    queue: BTreeMap<(u64, u64), usize>,
    places: HashMap<usize, (u64, u64)>,
    next: u64,
}

impl Ordered {
    /// Puts the unit behind all others of the same number.
    fn put(&mut self, unit: usize, number: f64) {
        if let Some(place) = self.places.remove(&unit) {
            self.queue.remove(&place);
        }
        self.next += 1;
        // Numbers that are not negative are in the order of their bits.
        let place = (number.to_bits(), self.next);
        self.queue.insert(place, unit);
        self.places.insert(unit, place);
    }

    fn first(&mut self) -> Option<(f64, usize)> {
        let ((number, _), unit) = self.queue.pop_first()?;
        self.places.remove(&unit);
        Some((f64::from_bits(number), unit))
    }
}

#[derive(Default)]
struct Lru(Ordered);

impl Policy for Lru {
    fn used(&mut self, unit: usize, _: u64) {
        self.0.put(unit, 0.0);
    }

    fn victim(&mut self) -> Option<usize> {
        Some(self.0.first()?.1)
    }
}

/// What was used longest ago goes.
pub fn lru(_: u64) -> Box<dyn Policy> {
    Box::new(Lru::default())
}

/// The least value goes; what comes after it is worth that much more (`GreedyDual`: Young, 1994).
struct Greedy {
    order: Ordered,
    uses: HashMap<usize, u32>,
    age: f64,
    value: fn(uses: f64, size: f64) -> f64,
}

impl Greedy {
    fn boxed(value: fn(f64, f64) -> f64) -> Box<dyn Policy> {
        Box::new(Self { order: Ordered::default(), uses: HashMap::new(), age: 0.0, value })
    }
}

impl Policy for Greedy {
    fn used(&mut self, unit: usize, size: u64) {
        let uses = self.uses.entry(unit).or_default();
        *uses += 1;
        self.order.put(unit, self.age + (self.value)(f64::from(*uses), size.max(1) as f64));
    }

    fn victim(&mut self) -> Option<usize> {
        let (value, unit) = self.order.first()?;
        self.age = value;
        self.uses.remove(&unit);
        Some(unit)
    }
}

/// What was used least often goes, with dynamic aging.
pub fn lfu(_: u64) -> Box<dyn Policy> {
    Greedy::boxed(|uses, _| uses)
}

/// Uses for each byte (GDSF: Cherkasova, 1998).
pub fn gdsf(_: u64) -> Box<dyn Policy> {
    Greedy::boxed(|uses, size| uses / size)
}

/// Seconds that a use saves for each byte.
pub fn gdsf_by_cost(_: u64) -> Box<dyn Policy> {
    Greedy::boxed(|uses, size| uses * (REQUEST_SECONDS + size * BYTE_SECONDS) / size)
}

/// A hand that goes from the oldest to the newest and takes what was not used since it came by (Zhang et al., 2024).
#[derive(Default)]
struct Sieve {
    queue: BTreeMap<u64, usize>,
    visited: HashMap<usize, bool>,
    hand: u64,
    next: u64,
}

impl Policy for Sieve {
    fn used(&mut self, unit: usize, _: u64) {
        if let Some(visited) = self.visited.get_mut(&unit) {
            *visited = true;
            return;
        }
        self.next += 1;
        self.queue.insert(self.next, unit);
        self.visited.insert(unit, false);
    }

    fn victim(&mut self) -> Option<usize> {
        loop {
            let behind = self.queue.range((Bound::Excluded(self.hand), Bound::Unbounded)).next();
            let (place, unit) = behind.or_else(|| self.queue.first_key_value()).map(|(place, unit)| (*place, *unit))?;
            self.hand = place;
            if !std::mem::replace(self.visited.get_mut(&unit).unwrap(), false) {
                self.queue.remove(&place);
                self.visited.remove(&unit);
                return Some(unit);
            }
        }
    }
}

/// See [`Sieve`].
pub fn sieve(_: u64) -> Box<dyn Policy> {
    Box::new(Sieve::default())
}

/// A small queue for what is new, a main one for what was used again, and a memory of what went (Yang et al., 2023).
struct S3Fifo {
    small: VecDeque<usize>,
    main: VecDeque<usize>,
    ghosts: VecDeque<usize>,
    is_ghost: HashSet<usize>,
    held: HashMap<usize, (u64, u8)>,
    small_bytes: u64,
    small_max: u64,
}

/// See [`S3Fifo`]; its small queue has a tenth.
pub fn s3_fifo(capacity: u64) -> Box<dyn Policy> {
    Box::new(S3Fifo {
        small: VecDeque::new(),
        main: VecDeque::new(),
        ghosts: VecDeque::new(),
        is_ghost: HashSet::new(),
        held: HashMap::new(),
        small_bytes: 0,
        small_max: capacity / 10,
    })
}

impl S3Fifo {
    fn take_from_small(&mut self) -> Option<usize> {
        while let Some(unit) = self.small.pop_front() {
            let (size, uses) = self.held[&unit];
            self.small_bytes -= size;
            if uses > 1 {
                self.held.insert(unit, (size, 0));
                self.main.push_back(unit);
                continue;
            }
            self.held.remove(&unit);
            self.ghosts.push_back(unit);
            self.is_ghost.insert(unit);
            while self.ghosts.len() > self.main.len().max(1) {
                let forgotten = self.ghosts.pop_front().unwrap();
                self.is_ghost.remove(&forgotten);
            }
            return Some(unit);
        }
        None
    }

    fn take_from_main(&mut self) -> Option<usize> {
        while let Some(unit) = self.main.pop_front() {
            let (size, uses) = self.held[&unit];
            if uses == 0 {
                self.held.remove(&unit);
                return Some(unit);
            }
            self.held.insert(unit, (size, uses - 1));
            self.main.push_back(unit);
        }
        None
    }
}

impl Policy for S3Fifo {
    fn used(&mut self, unit: usize, size: u64) {
        if let Some((_, uses)) = self.held.get_mut(&unit) {
            *uses = (*uses + 1).min(3);
            return;
        }
        self.held.insert(unit, (size, 0));
        if self.is_ghost.remove(&unit) {
            self.ghosts.retain(|ghost| *ghost != unit);
            self.main.push_back(unit);
        } else {
            self.small_bytes += size;
            self.small.push_back(unit);
        }
    }

    fn victim(&mut self) -> Option<usize> {
        if self.small_bytes > self.small_max || self.main.is_empty() {
            self.take_from_small().or_else(|| self.take_from_main())
        } else {
            self.take_from_main().or_else(|| self.take_from_small())
        }
    }
}

//! What tags take: the bytes that only they need, and those that others need too. Pure.
//!
//! The manifests of repositories that share their storage become one graph of numbers: a manifest leads to those that it
//! names and to those that refer to it, and to its bytes. A digest is looked up once, when the graph is made.

use std::collections::HashMap;

use crate::oci::Digest;

use super::records::Holding;

/// No root reaches it.
const NOBODY: u32 = u32::MAX;
/// Roots of several owners reach it.
const SEVERAL: u32 = u32::MAX - 1;
/// The owner of what is told of nobody: it keeps bytes, and is not counted.
pub const OTHERS: u32 = u32::MAX - 2;

/// A manifest of the graph.
pub type Entry = u32;

/// Something that keeps a manifest with all that it leads to, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The manifest.
    pub entry: Entry,
    /// Whose it is: owners are numbered from 0 on, or [`OTHERS`].
    pub owner: u32,
}

/// What an owner takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What nobody else needs: freed if this owner alone goes.
    pub exclusive: u64,
    /// All that it needs.
    pub total: u64,
}

impl Taken {
    /// What others need too.
    pub fn shared(self) -> u64 {
        self.total.saturating_sub(self.exclusive)
    }
}

/// Rows of numbers, one behind the other.
#[derive(Debug, Default)]
struct Rows {
    ends: Vec<u32>,
    items: Vec<u32>,
}

impl Rows {
    fn end_row(&mut self) {
        // What a plan looks at is bounded far below.
        self.ends.push(u32::try_from(self.items.len()).unwrap_or(u32::MAX));
    }

    fn row(&self, number: u32) -> &[u32] {
        let number = number as usize;
        let end = self.ends.get(number).copied().unwrap_or(0) as usize;
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0) as usize;
        self.items.get(start..end).unwrap_or_default()
    }
}

/// The manifests of some repositories, and their bytes.
#[derive(Debug, Default)]
pub struct Graph {
    /// The first manifest of each repository.
    starts: Vec<Entry>,
    /// The manifests that each leads to: those that it names, and those that refer to it.
    leads: Rows,
    /// The bytes that each needs, its own among them.
    needs: Rows,
    /// How many they are.
    sizes: Vec<u64>,
    /// Bytes that something outside of the graph needs too.
    elsewhere: Vec<bool>,
}

impl Graph {
    /// The graph of these repositories. `elsewhere` tells which bytes something else in the same storage needs.
    pub fn of<'a>(holdings: impl IntoIterator<Item = &'a Holding>, elsewhere: impl Fn(&Digest) -> bool) -> Self {
        let mut graph = Self::default();
        let mut known: HashMap<Digest, u32> = HashMap::new();
        for holding in holdings {
            let start = graph.entries();
            graph.starts.push(start);
            let places = places(holding, start);
            let mut referrers: Vec<(Entry, Entry)> = Vec::new();
            for (entry, manifest) in (start..).zip(&holding.manifests) {
                let subject = manifest.subject.as_ref().and_then(|subject| places.get(subject));
                referrers.extend(subject.map(|subject| (*subject, entry)));
            }
            referrers.sort_unstable();
            let mut referrers = referrers.into_iter().peekable();
            for (entry, manifest) in (start..).zip(&holding.manifests) {
                graph.leads.items.extend(manifest.children.iter().filter_map(|child| places.get(child)));
                while let Some((_, referrer)) = referrers.next_if(|(subject, _)| *subject == entry) {
                    graph.leads.items.push(referrer);
                }
                graph.leads.end_row();
                let own = std::iter::once((manifest.digest, manifest.size));
                for (digest, size) in own.chain(manifest.blobs.iter().copied()) {
                    let bytes = *known.entry(digest).or_insert_with(|| {
                        graph.sizes.push(size);
                        graph.elsewhere.push(elsewhere(&digest));
                        u32::try_from(graph.sizes.len() - 1).unwrap_or(u32::MAX)
                    });
                    graph.needs.items.push(bytes);
                }
                graph.needs.end_row();
            }
        }
        graph
    }

    /// The manifests that there are.
    pub fn entries(&self) -> u32 {
        u32::try_from(self.needs.ends.len()).unwrap_or(u32::MAX)
    }

    /// The first manifest of a repository; its others follow in order.
    pub fn start(&self, holding: usize) -> Entry {
        self.starts.get(holding).copied().unwrap_or(NOBODY)
    }

    /// What a manifest leads to.
    pub fn leads(&self, entry: Entry) -> &[Entry] {
        self.leads.row(entry)
    }

    /// Which manifests the roots lead to, themselves among them: added to `reached`, which is as long as the graph.
    pub fn reach(&self, roots: impl IntoIterator<Item = Entry>, reached: &mut [bool]) {
        let mut next: Vec<Entry> = roots.into_iter().collect();
        while let Some(entry) = next.pop() {
            let Some(seen) = reached.get_mut(entry as usize).filter(|seen| !**seen) else { continue };
            *seen = true;
            next.extend(self.leads(entry));
        }
    }

    /// What each owner takes, `owners` of them. What no root reaches counts as needed by others.
    pub fn taken(&self, roots: &[Root], owners: usize) -> Vec<Taken> {
        let mut taken = vec![Taken::default(); owners];
        for (bytes, owner) in self.owner_of_bytes(roots).into_iter().enumerate() {
            let free = !self.elsewhere.get(bytes).copied().unwrap_or(true);
            if free && let Some(one) = taken.get_mut(owner as usize) {
                one.exclusive += self.sizes.get(bytes).copied().unwrap_or(0);
            }
        }
        let mut sorted: Vec<Root> = roots.iter().filter(|root| (root.owner as usize) < owners).copied().collect();
        sorted.sort_unstable_by_key(|root| (root.owner, root.entry));
        sorted.dedup();
        let (mut manifests, mut bytes) = (Seen::new(self.needs.ends.len()), Seen::new(self.sizes.len()));
        // Roots that are one and the same manifest take the same: tags of one digest are many.
        let mut alone: HashMap<Entry, u64> = HashMap::new();
        for of_one in sorted.chunk_by(|a, b| a.owner == b.owner) {
            let Some(first) = of_one.first() else { continue };
            let known = if of_one.len() == 1 { alone.get(&first.entry).copied() } else { None };
            let total = known.unwrap_or_else(|| self.total(of_one, &mut manifests, &mut bytes));
            if of_one.len() == 1 {
                alone.insert(first.entry, total);
            }
            if let Some(one) = taken.get_mut(first.owner as usize) {
                one.total = total;
            }
        }
        taken
    }

    /// All that the roots need.
    fn total(&self, roots: &[Root], manifests: &mut Seen, bytes: &mut Seen) -> u64 {
        manifests.forget();
        bytes.forget();
        let mut next: Vec<Entry> = roots.iter().map(|root| root.entry).collect();
        let mut total = 0;
        while let Some(entry) = next.pop() {
            if !manifests.is_new(entry) {
                continue;
            }
            next.extend(self.leads(entry));
            for one in self.needs.row(entry) {
                if bytes.is_new(*one) {
                    total += self.sizes.get(*one as usize).copied().unwrap_or(0);
                }
            }
        }
        total
    }

    /// Whose bytes are; [`SEVERAL`] where they are not one owner's.
    fn owner_of_bytes(&self, roots: &[Root]) -> Vec<u32> {
        let mut owner = vec![NOBODY; self.needs.ends.len()];
        let mut changed: Vec<Root> = roots.to_vec();
        // An owner becomes one of several at most once: each manifest is passed at most twice, however often it is named.
        while let Some(Root { entry, owner: new }) = changed.pop() {
            let Some(now) = owner.get_mut(entry as usize) else { continue };
            let both = joined(*now, new);
            if both != *now {
                *now = both;
                changed.extend(self.leads(entry).iter().map(|next| Root { entry: *next, owner: both }));
            }
        }
        let mut of_bytes = vec![NOBODY; self.sizes.len()];
        for (entry, owner) in (0..).zip(owner) {
            // What no root reaches is somebody's all the same.
            let owner = if owner == NOBODY { SEVERAL } else { owner };
            for bytes in self.needs.row(entry) {
                if let Some(of_one) = of_bytes.get_mut(*bytes as usize) {
                    *of_one = joined(*of_one, owner);
                }
            }
        }
        of_bytes
    }
}

/// The owner of what these two own.
fn joined(a: u32, b: u32) -> u32 {
    match (a, b) {
        (NOBODY, other) | (other, NOBODY) => other,
        (a, b) if a == b => a,
        _ => SEVERAL,
    }
}

/// The manifests of a repository by their digests.
pub fn places(holding: &Holding, start: Entry) -> HashMap<Digest, Entry> {
    (start..).zip(&holding.manifests).map(|(entry, manifest)| (manifest.digest, entry)).collect()
}

/// Numbers that were seen in this round; a new round costs nothing.
struct Seen {
    rounds: Vec<u32>,
    round: u32,
}

impl Seen {
    fn new(count: usize) -> Self {
        Self { rounds: vec![0; count], round: 0 }
    }

    fn forget(&mut self) {
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.rounds.fill(0);
            self.round = 1;
        }
    }

    fn is_new(&mut self, number: u32) -> bool {
        match self.rounds.get_mut(number as usize) {
            Some(round) if *round != self.round => {
                *round = self.round;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;

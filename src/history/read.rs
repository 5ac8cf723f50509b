//! Reading what was written down, segment by segment.

use std::collections::VecDeque;
use std::io;
use std::io::Read as _;
use std::path::PathBuf;

use crate::clock::Timestamp;

use super::Pull;
use super::log::Segment;
use super::segment;
use super::segment::Entry;
use super::segment::Reader;

/// Why the history can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A segment can't be read.
    #[error("reading the history of pulls from {}", path.display())]
    Io {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A segment is not what was written.
    #[error("the history of pulls in {} is damaged", path.display())]
    Damaged {
        /// Its file.
        path: PathBuf,
    },
}

/// What was written since a moment. Where a segment can't be read, an error stands for its rest, and the next one follows.
#[derive(Debug)]
pub(super) struct Entries {
    segments: VecDeque<Segment>,
    since: Timestamp,
    reading: Option<(PathBuf, Reader)>,
}

impl Entries {
    pub(super) fn new(segments: Vec<Segment>, since: Timestamp) -> Self {
        let mut segments: VecDeque<Segment> = segments.into();
        // What came before the next segment began is not in it.
        while segments.get(1).is_some_and(|following| following.start <= since) {
            segments.pop_front();
        }
        Self { segments, since, reading: None }
    }

    /// Where the next segment begins that was not begun to be read.
    pub(super) fn next_start(&self) -> Option<Timestamp> {
        self.segments.front().map(|s| s.start)
    }

    fn open(&mut self) -> Option<Result<(), Error>> {
        let segment = self.segments.pop_front()?;
        let mut bytes = Vec::new();
        // What is written behind it meanwhile may be half a frame.
        let read = std::fs::File::open(&segment.path).and_then(|file| file.take(segment.bytes).read_to_end(&mut bytes));
        let path = segment.path;
        if let Err(source) = read {
            return Some(Err(Error::Io { path, source }));
        }
        let Some((_, frames)) = segment::split(&bytes) else { return Some(Err(Error::Damaged { path })) };
        self.reading = Some((path, Reader::new(frames)));
        Some(Ok(()))
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((path, reader)) = &mut self.reading else {
                match self.open()? {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            };
            match reader.next() {
                Some(Ok(entry)) if entry.at() >= self.since => return Some(Ok(entry)),
                Some(Ok(_)) => {}
                Some(Err(segment::Broken)) => {
                    let path = std::mem::take(path);
                    self.reading = None;
                    return Some(Err(Error::Damaged { path }));
                }
                None => self.reading = None,
            }
        }
    }
}

/// Pulls, the oldest first.
#[derive(Debug)]
pub struct Pulls(Entries);

impl Pulls {
    pub(super) fn new(segments: Vec<Segment>, since: Timestamp) -> Self {
        Self(Entries::new(segments, since))
    }
}

impl Iterator for Pulls {
    type Item = Result<Pull, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find_map(|entry| match entry {
            Ok(Entry::Pull(pull)) => Some(Ok(pull)),
            Ok(Entry::Sent(_) | Entry::Pruned(_)) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

//! How an answer came to be, in the words of RFC 9211 (`Cache-Status`): metrics and logs take their labels from here.

use std::fmt;
use std::time::Duration;

/// How an answer came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was here, and nothing was asked.
    Hit,
    /// It was not here: the upstream was asked.
    Miss,
    /// It was not here: the upstream was asked, and the answer is of the kind that is not kept: a list, a size.
    Asked,
    /// It was here and past its freshness; the upstream confirmed it.
    Revalidated,
    /// It was here and past its freshness; the upstream had another, which is served.
    Moved,
    /// It is past its freshness and served while the upstream is asked in the background.
    StaleWhileRevalidate,
    /// It is past its freshness, the upstream was asked and could not answer.
    StaleIfError,
    /// It is past its freshness, and the upstream is known not to answer, so it was not asked.
    StaleUnasked,
    /// It passes through and is not kept: the store is full or read-only.
    PassThrough,
}

/// The whole of `Cache-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    /// How it came to be.
    pub source: Source,
    /// Whether it waited for somebody else's request.
    pub collapsed: bool,
    /// Whether the slice went out before the blob was verified.
    pub unverified: bool,
    /// How long ago it was validated, for `Age`.
    pub age: Duration,
}

impl CacheStatus {
    /// An answer that came so, now.
    pub fn new(source: Source) -> Self {
        Self { source, collapsed: false, unverified: false, age: Duration::ZERO }
    }

    /// The same, with its age.
    #[must_use]
    pub fn aged(self, age: Duration) -> Self {
        Self { age, ..self }
    }

    /// The same, said to have waited for another request or not.
    #[must_use]
    pub fn collapsed(self, collapsed: bool) -> Self {
        Self { collapsed, ..self }
    }

    /// Whether the answer may be out of date, so that a `Warning` belongs to it.
    pub fn is_stale(&self) -> bool {
        matches!(self.source, Source::StaleIfError | Source::StaleUnasked)
    }

    /// Whether the upstream was spared.
    pub fn is_hit(&self) -> bool {
        matches!(self.source, Source::Hit | Source::StaleWhileRevalidate | Source::StaleUnasked)
    }

    /// The label in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self.source {
            Source::Hit => "hit",
            Source::Miss | Source::Asked | Source::Moved => "miss",
            Source::Revalidated => "revalidated",
            Source::StaleWhileRevalidate | Source::StaleIfError | Source::StaleUnasked => "stale",
            Source::PassThrough => "pass",
        }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())?;
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        if self.unverified {
            f.write_str("; detail=unverified")?;
        }
        Ok(())
    }
}

impl CacheStatus {
    /// All of it in writing, where nothing has to be put together for it.
    pub fn as_static(&self) -> Option<&'static str> {
        (!self.collapsed && !self.unverified).then(|| self.words())
    }

    fn words(&self) -> &'static str {
        match self.source {
            Source::Hit => "larder; hit",
            Source::Miss => "larder; fwd=miss; stored",
            Source::Asked => "larder; fwd=miss",
            Source::Revalidated => "larder; fwd=stale; detail=revalidated",
            Source::Moved => "larder; fwd=stale; stored; detail=moved",
            Source::StaleWhileRevalidate => "larder; hit; detail=stale-while-revalidate",
            Source::StaleIfError => "larder; fwd=stale; detail=stale-if-error",
            Source::StaleUnasked => "larder; hit; detail=stale-if-error",
            Source::PassThrough => "larder; fwd=miss; detail=not-stored",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_rfcs() {
        assert_eq!(CacheStatus::new(Source::Hit).to_string(), "larder; hit");
        assert_eq!(CacheStatus::new(Source::Miss).collapsed(true).to_string(), "larder; fwd=miss; stored; collapsed");
        let slice = CacheStatus { unverified: true, ..CacheStatus::new(Source::Miss) };
        assert_eq!(slice.to_string(), "larder; fwd=miss; stored; detail=unverified");
        assert!(CacheStatus::new(Source::StaleUnasked).is_stale());
    }
}

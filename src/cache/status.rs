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

/// Who decided which manifest a tag means, where that was not the tag's own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The run that asks: it saw this one before.
    Run,
    /// The tag is missing, and the build cache of another is served.
    Fallback,
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
    /// The view that it was seen through.
    pub view: Option<View>,
    /// How long ago it was validated, for `Age`.
    pub age: Duration,
}

impl CacheStatus {
    /// An answer that came so, now.
    pub fn new(source: Source) -> Self {
        Self { source, collapsed: false, unverified: false, view: None, age: Duration::ZERO }
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

    /// The same, seen through a view.
    #[must_use]
    pub fn seen_through(self, view: View) -> Self {
        Self { view: Some(view), ..self }
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
        match self.view {
            None => {}
            Some(View::Run) => f.write_str("; detail=run")?,
            Some(View::Fallback) => f.write_str("; detail=fallback")?,
        }
        Ok(())
    }
}

impl CacheStatus {
    /// All of it in writing, where nothing has to be put together for it.
    pub fn as_static(&self) -> Option<&'static str> {
        (!self.collapsed && !self.unverified && self.view.is_none()).then(|| self.words())
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
        let seen = |view| CacheStatus::new(Source::Hit).seen_through(view);
        assert_eq!(seen(View::Run).to_string(), "larder; hit; detail=run");
        assert_eq!(
            (seen(View::Fallback).as_static(), &*seen(View::Fallback).to_string()),
            (None, "larder; hit; detail=fallback")
        );
        assert!(CacheStatus::new(Source::StaleUnasked).is_stale());
    }
}

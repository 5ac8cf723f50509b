//! What becomes of a tag, and why, in types: the table, the document and `explain` say it with the same words.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::retention::Policy;
use crate::config::retention::Protect;

/// What becomes of a tag or an untagged manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Goes(Doom),
    /// It is in the plan, and goes when its grace is over, unless something keeps it by then.
    Waits {
        /// What would make it go.
        doom: Doom,
        /// When the grace is over.
        until: Timestamp,
    },
    /// It stays.
    Stays(Why),
}

/// What makes something go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// The policy: the first that selects it. Of what goes along, that of what it goes with.
    pub policy: u16,
    /// Whether it goes along with something: a referrer's tag with its subject, a manifest with the last that needs it.
    pub along: bool,
}

/// Why something stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No policy selects it.
    Unselected,
    /// An item of `keep` of a policy that selects it holds.
    Kept {
        /// The policy.
        policy: u16,
        /// Which of its items.
        item: u16,
        /// How each condition of the item is met.
        because: Box<[Because]>,
    },
    /// A pattern of `protect` names it.
    Protected(u16),
    /// A list of what is in use names it, or something that it needs.
    InUse,
    /// Its repository's `immutable_tags` name it.
    Immutable,
    /// It refers to something that stays.
    Follows,
    /// It is a referrer's tag of something that is not here, and no policy selects `untagged`.
    NoSubject,
    /// Something that stays needs it.
    Needed,
}

/// How a condition is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// It is so new.
    Newest {
        /// 1 is the newest.
        rank: u32,
        /// What is counted; none where that is the repository.
        of: Option<Arc<str>>,
    },
    /// It was pushed then.
    Pushed(Timestamp),
    /// It was pulled then.
    Pulled(Timestamp),
    /// The branch lives.
    Branch(Arc<str>),
    /// The branch's end was a short while ago.
    BranchEnded {
        /// Until when it counts as living.
        until: Timestamp,
    },
    /// The pull request is open.
    Pull(u64),
    /// The pull request's end was a short while ago.
    PullEnded {
        /// Until when it counts as open.
        until: Timestamp,
    },
    /// The tag is called like that.
    Called,
    /// It is so high a version.
    Version {
        /// 1 is the highest.
        rank: u32,
    },
    /// It can't be told.
    Unknown(Unknown),
}

/// What is not known. It keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// When it was pushed.
    PushTime,
    /// Whether it was pulled since.
    PullTime,
    /// Of which branch it is.
    Branch,
    /// Of which pull request it is.
    Pull,
    /// Which repository of the forge that would be.
    Mapping,
    /// What came since the list of branches or pull requests was made.
    Later,
    /// What the forge or the file would say, and why.
    Answer(Arc<str>),
}

/// What the numbers in verdicts mean.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The policies.
    pub policies: &'a [Policy],
    /// What is protected.
    pub protect: &'a Protect,
}

impl Verdict {
    /// Whether it goes now.
    pub fn goes(&self) -> Option<Doom> {
        match self {
            Self::Goes(doom) => Some(*doom),
            Self::Waits { .. } | Self::Stays(_) => None,
        }
    }

    /// Whether it stays only because something is not known.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Stays(Why::Kept { because, .. }) => because.iter().any(|one| matches!(one, Because::Unknown(_))),
            Self::Stays(_) | Self::Waits { .. } | Self::Goes(_) => false,
        }
    }
}

impl Names<'_> {
    /// The name of a policy.
    pub fn policy(&self, number: u16) -> &str {
        self.policies.get(usize::from(number)).map_or("", |policy| &policy.name)
    }

    /// What keeps it, in a word for sums: `newest: 3 of branches`.
    pub fn keeper(&self, why: &Why) -> String {
        match why {
            Why::Unselected => "no policy selects it".to_owned(),
            Why::Kept { policy, item, because } => {
                let unknown = because.iter().any(|one| matches!(one, Because::Unknown(_)));
                let doubt = if unknown { ", for want of knowledge" } else { "" };
                format!("{} of {}{doubt}", self.item(*policy, *item), self.policy(*policy))
            }
            Why::Protected(number) => format!("protect {}", self.pattern(*number)),
            Why::InUse => "a list of what is in use".to_owned(),
            Why::Immutable => "immutable_tags".to_owned(),
            Why::Follows => "what it refers to".to_owned(),
            Why::NoSubject => "nothing selects what refers to nothing".to_owned(),
            Why::Needed => "what needs it".to_owned(),
        }
    }

    /// Why it stays, in a sentence.
    pub fn why(&self, why: &Why) -> String {
        match why {
            Why::Unselected => "no policy selects it".to_owned(),
            Why::Kept { policy, item, because } => {
                let because: Vec<String> = because.iter().map(ToString::to_string).collect();
                let (item, policy) = (self.item(*policy, *item), self.policy(*policy));
                format!("`{item}` of the policy {policy} keeps it: {}", because.join(", and "))
            }
            Why::Protected(number) => format!("`{}` of protect names it", self.pattern(*number)),
            Why::InUse => "a list of what is in use (refs_file) names it, or something that it needs".to_owned(),
            Why::Immutable => "immutable_tags of its repository name it".to_owned(),
            Why::Follows => "what it refers to stays".to_owned(),
            Why::NoSubject => "what it refers to is not here; a policy that selects untagged would take it".to_owned(),
            Why::Needed => "something that stays needs it".to_owned(),
        }
    }

    /// What becomes of it, in a sentence.
    pub fn sentence(&self, verdict: &Verdict) -> String {
        let by = |doom: &Doom| {
            let along = if doom.along { ", along with what it belongs to" } else { "" };
            format!("the policy {} selects it and nothing keeps it{along}", self.policy(doom.policy))
        };
        match verdict {
            Verdict::Goes(doom) => format!("it goes with the next run that deletes: {}", by(doom)),
            Verdict::Waits { doom, until } => format!("it goes after {until}, when its grace is over: {}", by(doom)),
            Verdict::Stays(why) => format!("it stays: {}", self.why(why)),
        }
    }

    /// An item of `keep` as it stands in the configuration.
    pub fn item(&self, policy: u16, item: u16) -> String {
        let policy = self.policies.get(usize::from(policy));
        policy.and_then(|policy| policy.keep.get(usize::from(item))).map(ToString::to_string).unwrap_or_default()
    }

    fn pattern(&self, number: u16) -> &str {
        self.protect.patterns.get(usize::from(number)).map_or("", |pattern| pattern.as_str())
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest { rank, of: Some(of) } => write!(f, "it is the {} of {of}", nth(*rank, "newest")),
            Self::Newest { rank, of: None } => write!(f, "it is the {} of its repository", nth(*rank, "newest")),
            Self::Pushed(at) => write!(f, "it was pushed at {at}"),
            Self::Pulled(at) => write!(f, "it was pulled at {at}"),
            Self::Branch(branch) => write!(f, "the branch {branch} lives"),
            Self::BranchEnded { until } => write!(f, "its branch ended, and it stays until {until}"),
            Self::Pull(number) => write!(f, "the pull request {number} is open"),
            Self::PullEnded { until } => write!(f, "its pull request was closed, and it stays until {until}"),
            Self::Called => f.write_str("it is called so"),
            Self::Version { rank } => write!(f, "it is the {} version", nth(*rank, "highest")),
            Self::Unknown(unknown) => unknown.fmt(f),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PushTime => f.write_str("when it was pushed is not known"),
            Self::PullTime => f.write_str("whether it was pulled since is not known"),
            Self::Branch => f.write_str("of which branch it is, is not known"),
            Self::Pull => f.write_str("its pull request is not known"),
            Self::Mapping => f.write_str("which repository of the forge it belongs to is not known"),
            Self::Later => f.write_str("it may have come after the forge or the file was asked"),
            Self::Answer(why) => f.write_str(why),
        }
    }
}

/// `newest`, `2nd newest`, `3rd newest` …
fn nth(rank: u32, word: &str) -> String {
    let ending = match (rank % 10, rank % 100) {
        (1, tens) if tens != 11 => "st",
        (2, tens) if tens != 12 => "nd",
        (3, tens) if tens != 13 => "rd",
        _ => "th",
    };
    if rank == 1 { word.to_owned() } else { format!("{rank}{ending} {word}") }
}

#[cfg(test)]
mod tests {
    use super::nth;

    #[test]
    fn ranks_are_words() {
        let said: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(|rank| nth(rank, "newest")).to_vec();
        let wanted = [
            "newest",
            "2nd newest",
            "3rd newest",
            "4th newest",
            "11th newest",
            "12th newest",
            "13th newest",
            "21st newest",
            "102nd newest",
            "111th newest",
        ];
        assert_eq!(said, wanted);
    }
}

//! Whether a log is what it was: the same check for every backend, fed with stored bytes.

use std::fmt;

use crate::{
    error::AuditError,
    event::AuditEvent,
    note::Checkpoint,
    tree::{Frontier, Hash32, TreeHead, leaf_hash},
};

/// The answer of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum Verdict {
    /// Events below `anchored_to.size` are those that the checkpoint's signer saw. Those from there up to `head.size` fit the log's
    /// own head, which whoever can write the store can rewrite too.
    Ok {
        /// The checkpoint's head.
        anchored_to: TreeHead,
        /// The log's head.
        head: TreeHead,
        /// The first event whose bytes were hashed: 0 unless a bounded log has forgotten some.
        first_index: u64,
    },
    /// The log is not what it was.
    Tampered {
        /// The first event that is wrong, if that can be told.
        first_bad_index: Option<u64>,
        /// What is wrong.
        kind: Tampering,
    },
    /// The log fits itself, which proves nothing against somebody who can write to it.
    Unanchored {
        /// The log's head.
        head: TreeHead,
        /// Why no outside witness speaks for it.
        reason: Unanchored,
    },
}

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum Tampering {
    /// Stored bytes do not hash to the leaf hash beside them.
    LeafHash,
    /// Stored bytes are no event.
    Undecodable,
    /// What is stored beside the bytes for searching differs from them.
    SearchColumns,
    /// An index is missing, or stands there twice.
    Gap,
    /// There are events beyond the head.
    Surplus,
    /// The head is missing or is not the root of the stored events.
    Head,
    /// The log is shorter than its checkpoint: its end was cut off, or an old copy was restored.
    Truncated,
    /// The events below the checkpoint are not those that it was signed for.
    History,
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeafHash => "stored bytes do not fit their hash",
            Self::Undecodable => "stored bytes are no event",
            Self::SearchColumns => "search columns differ from the stored bytes",
            Self::Gap => "an event is missing",
            Self::Surplus => "there are events beyond the head",
            Self::Head => "the head is not the root of the stored events",
            Self::Truncated => "the log is shorter than its checkpoint",
            Self::History => "the history differs from what the checkpoint was signed for",
        })
    }
}

/// Why nothing outside speaks for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum Unanchored {
    /// No checkpoint was given.
    NoCheckpoint,
    /// The checkpoint is of the empty log, which every log extends.
    EmptyCheckpoint,
    /// A bounded log has forgotten events beyond the checkpoint.
    Evicted {
        /// The oldest event that is left.
        first_kept: u64,
    },
}

/// Recomputes a tree from stored bytes, event by event. Backends and offline tools feed it.
#[derive(Debug)]
pub struct Verifier<'a> {
    first_index: u64,
    frontier: Frontier,
    checkpoint: Option<&'a Checkpoint>,
    root_at_checkpoint: Option<Hash32>,
}

impl<'a> Verifier<'a> {
    /// Starts at the first event.
    #[must_use]
    pub fn new(checkpoint: Option<&'a Checkpoint>) -> Self {
        Self::starting_at(Frontier::default(), checkpoint)
    }

    /// Starts behind forgotten events, of which `frontier` is left.
    #[must_use]
    pub fn starting_at(frontier: Frontier, checkpoint: Option<&'a Checkpoint>) -> Self {
        let first_index = frontier.size();
        let mut this = Self { first_index, frontier, checkpoint, root_at_checkpoint: None };
        this.note_root();
        this
    }

    fn note_root(&mut self) {
        if self.checkpoint.is_some_and(|c| c.head().size == self.frontier.size()) {
            self.root_at_checkpoint = Some(self.frontier.root());
        }
    }

    /// How many events were taken, the forgotten ones included: the index that must come next.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Takes the next event as it is stored and answers what it says.
    ///
    /// # Errors
    /// The verdict `Tampered`, which ends the verification.
    pub fn take(&mut self, index: u64, data: &[u8], stored_leaf: Hash32) -> Result<AuditEvent, Verdict> {
        let here = |kind| Verdict::Tampered { first_bad_index: Some(index), kind };
        if index != self.frontier.size() {
            let first_bad_index = Some(self.frontier.size().min(index));
            return Err(Verdict::Tampered { first_bad_index, kind: Tampering::Gap });
        }
        let leaf = leaf_hash(data);
        if leaf != stored_leaf {
            return Err(here(Tampering::LeafHash));
        }
        let event = AuditEvent::decode(data).map_err(|_: AuditError| here(Tampering::Undecodable))?;
        self.frontier.push(leaf);
        self.note_root();
        Ok(event)
    }

    /// Ends with the head that the log itself states.
    #[must_use]
    pub fn finish(self, stated: TreeHead) -> Verdict {
        let bad = |first_bad_index, kind| Verdict::Tampered { first_bad_index, kind };
        let head = self.frontier.head();
        if head.size < stated.size {
            return bad(Some(head.size), Tampering::Gap);
        }
        if head.size > stated.size {
            return bad(Some(stated.size), Tampering::Surplus);
        }
        if head != stated {
            return bad(None, Tampering::Head);
        }
        let Some(anchor) = self.checkpoint.map(Checkpoint::head) else {
            return Verdict::Unanchored { head, reason: Unanchored::NoCheckpoint };
        };
        match self.root_at_checkpoint {
            _ if anchor.size > head.size => bad(Some(head.size), Tampering::Truncated),
            // The signer saw another log if even this root differs, so this comes before the empty one.
            Some(root) if root != anchor.root => bad(None, Tampering::History),
            Some(_) if anchor.size == 0 => Verdict::Unanchored { head, reason: Unanchored::EmptyCheckpoint },
            Some(_) => Verdict::Ok { anchored_to: anchor, head, first_index: self.first_index },
            None => Verdict::Unanchored { head, reason: Unanchored::Evicted { first_kept: self.first_index } },
        }
    }
}

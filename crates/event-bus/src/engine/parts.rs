//! Which events of a batch go to the store in one call, so that none overtakes an earlier one of its key that was refused.
//!
//! A store refuses an event because a group that wants its topic is full. In one call, which is one step, it refuses later ones of that topic as well,
//! but not those of the same key that other groups want. So events of one key go together only if they have one topic.

use std::collections::HashMap;

use infra_types::{ErrorKind, Topic};

use crate::{BusError, Published, broker::Append};

/// Events that share one write at most.
const EVENTS_MAX: usize = 256;
/// Bytes of data that share one write, unless one event has more: within what every broker takes in one step.
const BYTES_MAX: usize = 4 << 20;

type Checked = Result<Append, BusError>;

/// A lane: a key, with priority or without.
type Lane<'a> = (&'a str, bool);

fn lane(event: &Append) -> Lane<'_> {
    (&event.envelope.key, event.is_priority)
}

/// What became of the parts of a batch so far.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    /// The lanes of refused events, and which group was full.
    held: HashMap<Lane<'a>, String>,
    /// A part may not have reached the store.
    is_cut: bool,
}

impl<'a> Parts<'a> {
    /// The next events, and those of them that go to the store.
    pub(super) fn next(&self, rest: &'a [Checked]) -> (&'a [Checked], Vec<Append>) {
        let mut topics: HashMap<Lane<'a>, &'a Topic> = HashMap::new();
        let (mut sent, mut bytes, mut count) = (Vec::new(), 0, 0);
        for checked in rest {
            if let Ok(event) = checked
                && self.held_back(event).is_none()
            {
                bytes += event.envelope.data.len();
                let topic = *topics.entry(lane(event)).or_insert(&event.envelope.topic);
                let is_full = sent.len() == EVENTS_MAX || bytes > BYTES_MAX;
                if !sent.is_empty() && (is_full || *topic != event.envelope.topic) {
                    break;
                }
                sent.push(event.clone());
            }
            count += 1;
        }
        (&rest[..count], sent)
    }

    /// Why an event is not sent at all.
    pub(super) fn held_back(&self, event: &Append) -> Option<BusError> {
        // First what is so for longer: who spills what the store did not get must not spill what would overtake.
        if let Some(group) = self.held.get(&lane(event)) {
            return Some(BusError::HeldBack { key: event.envelope.key.clone(), group: group.clone() });
        }
        let message = "an earlier part of the batch failed, so this one was not sent: try again".into();
        self.is_cut.then_some(BusError::Backend { message, kind: ErrorKind::Transient })
    }

    /// Learns how a part ended.
    pub(super) fn end(&mut self, part: &'a [Checked], answers: &[Result<Published, BusError>]) {
        for (event, answer) in part.iter().zip(answers) {
            match (event, answer) {
                (Ok(event), Err(BusError::BacklogFull { group, .. })) => {
                    self.held.entry(lane(event)).or_insert_with(|| group.clone());
                }
                (Ok(_), Err(e)) if !matches!(e.kind(), ErrorKind::Invalid | ErrorKind::LimitExceeded) => {
                    self.is_cut = true;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use infra_types::{Envelope, Timestamp};

    use super::*;

    fn event(topic: &str, key: &str, bytes: usize) -> Checked {
        let envelope = Envelope::new(Topic::new(topic).unwrap(), "k", Timestamp::EPOCH, vec![0; bytes]).with_key(key);
        Ok(Append { envelope: Arc::new(envelope), is_priority: false })
    }

    #[test]
    fn a_key_goes_with_one_topic_and_a_part_is_bounded() {
        let batch =
            [event("a", "1", 1), event("a", "2", 1), event("a", "1", 1), event("b", "3", 1), event("b", "1", 1)];
        assert_eq!(Parts::default().next(&batch).1.len(), 4);
        let many: Vec<_> = (0..EVENTS_MAX + 1).map(|_| event("a", "1", 1)).collect();
        assert_eq!(Parts::default().next(&many).0.len(), EVENTS_MAX);
        let heavy = [event("a", "1", BYTES_MAX + 1), event("a", "1", BYTES_MAX), event("a", "1", 1)];
        assert_eq!(Parts::default().next(&heavy).0.len(), 1);
        assert_eq!(Parts::default().next(&heavy[1..]).0.len(), 1);
    }
}

//! How keys are laid out.
//!
//! Everything of a bus begins with `<prefix>bus:{name}:`. The braces make it one slot of a Cluster. Then comes
//!
//! | what | which type of key | holds |
//! |---|---|---|
//! | `log` | stream | the events that somebody needs, by their places (`PLACE-0`): id, topic, lane and the rest |
//! | `live` | hash | place → how many groups need the event; 0: none wanted it, and it is kept |
//! | `kept` | sorted set | the places of those that no group wanted |
//! | `ids` | sorted set | id → place, of events that are there or finished not long ago |
//! | `late` | hash | place → id, of events that are there although their ids would be forgotten by now |
//! | `meta` | hash | newest place, up to which place ids are forgotten, last group, version of the groups |
//! | `groups` | hash | name → number and pattern |
//! | `sizes` | hash | number → how many events the group has still to do |
//! | `gN:lane:HASHKEY` | list | the places of a key's events that the group has still to do |
//! | `gN:heads` | sorted set | lane → place of its first event |
//! | `gN:free` | sorted set | as `heads`, of those lanes that may be claimed |
//! | `gN:waits` | sorted set | lane → until when its first event waits or is lent out; each lane is here or in `free` |
//! | `gN:touched` | hash | place → attempts, next one, claim and last error of events that were claimed once |
//! | `gN:dead` | stream | the dead letters |
//!
//! The log is never trimmed: an event leaves it when the last group is done with it. Redis's own consumer groups are not used: they
//! know no order of a key, no wait before a retry, and no giving back.

use crate::BusError;

/// What a prefix is when the configuration names none.
const PREFIX: &str = "infra:";

/// What all keys of a bus begin with.
pub(super) fn base(prefix: &str, name: &str) -> Result<String, BusError> {
    if prefix.contains(['{', '}']) {
        // They would decide the slot in the place of the name.
        return Err(BusError::Invalid { rule: "a key prefix of Redis must not hold { or }".into() });
    }
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && !b"{}".contains(&b));
    if !is_name {
        return Err(BusError::Invalid {
            rule: "the name of a bus must be 1 to 64 printable characters but { and }".into(),
        });
    }
    Ok(format!("{}bus:{{{name}}}:", if prefix.is_empty() { PREFIX } else { prefix }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_only_tag() {
        assert_eq!(base("", "events").unwrap(), "infra:bus:{events}:");
        assert_eq!(base("bot:", "a:b").unwrap(), "bot:bus:{a:b}:");
        for (prefix, name) in [("a{b", "n"), ("", "a}b"), ("", ""), ("", "a b")] {
            assert!(base(prefix, name).is_err());
        }
    }
}

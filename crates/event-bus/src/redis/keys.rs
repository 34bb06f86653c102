//! How keys are laid out.
//!
//! Everything of a bus begins with `<prefix>bus:{name}:`. The braces make it one slot of a Cluster. Then comes
//!
//! | what | which type of key | holds |
//! |---|---|---|
//! | `log` | stream | the events in rows of up to 64 that the same groups want (`FIRST-MORE`): one field, named by its head (`NUMBERS;LANES`), with the rest as its value |
//! | `meta` | hash | `numbers`: those of the bus, `gN`: those of a group, each packed (`lua/common.lua`); `version` of the groups, `layout` |
//! | `groups`, `gone` | hash, set | name → number and pattern; numbers of groups that were removed and are being cleared up |
//! | `ids`, `queue` | hash, list | id → place (of a delayed event `d` and its number), or `=` and the newest place of its batch; the ids in rows as they came, each with its newest place |
//! | `live` | hash | place → how many groups need the event, where these are more than one |
//! | `unwanted` | sorted set | the places of kept events that no group ever wanted |
//! | `held`, `freed` | sorted sets | places in the log before `trimmed`: still needed, and no more |
//! | `copies` | sorted set | places of events that were put back to work for one group, also when they are gone |
//! | `delayed`, `delays` | sorted set, hash | numbers of delayed events by their time; number → event |
//! | `walk` | hash | how far the due events were looked at, if some were left: when that began, the time and the number of the last one left, the numbers of the full groups |
//! | `gN:claims` | hash | number → a claim straight off the log: until when, whose, which places and lanes |
//! | `gN:slow` | hash | place → lane, or attempts, next one, claim, lane and last error, of events in lanes |
//! | `gN:lane:LANE` | list | the places of a lane's events |
//! | `gN:heads:n`, `gN:heads:p` | sorted sets | lane → place of its first event; those with priority apart |
//! | `gN:free:n`, `gN:free:p` | sorted sets | as `heads`, of those lanes that may be claimed |
//! | `gN:waits` | sorted set | lane → until when its first event waits or is lent out; each lane is here or in `free` |
//! | `gN:dead`, `gN:deads` | hash, sorted set | place → dead letter; the places |
//! | `gN:names` | hash | name of a consumer → its run that took it last |
//!
//! **A group is a cursor** (`c` of its numbers in `meta`) into the log, and what is not that simple. A claim reads on from the cursor and writes one record of what it
//! took; acknowledging all of it removes the record. An event gets into a *lane* (a list of its key) if it has priority, failed, was given back, outlived its
//! consumer, or stood before the cursor when it could not be lent: its key was lent to somebody, or its shard had no room. A key's events before the cursor are
//! either all in one record or all in its lane. `s` is how many events the group has to do, `u` how many of them are behind the cursor, and nothing before
//! `f` is needed.
//!
//! `trimmed` is the place up to which the history is gone; the log is cut behind it in whole nodes, so some older entries stay for a while. If an event
//! before it is still needed the log is not cut but single entries are removed (`odd` counts those that stay). Places in the log are without a hole but for `copies`;
//! so what somebody else removed is noticed.
//!
//! A consumer that waits has left its word in `i` of the group's numbers: the next append lends to it what it stores, if the group is done with everything
//! else, and tells it on the channel `to:PROGRAM`, or in its answer if it is of that program.
//!
//! Redis's own consumer groups are not used: they know no order of a key, no wait before a retry, and no giving back.
//!
//! This is layout 3, and `meta` says so. Another one is refused.

use crate::BusError;

/// The layout that this program reads and writes; `lua/common.lua` writes it.
pub(super) const LAYOUT: u32 = 3;

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

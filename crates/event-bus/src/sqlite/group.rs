//! Groups: creating, removing, how far they are.

use infra_types::{Timestamp, Topic};
use rusqlite::{Connection, OptionalExtension, params};

use super::{append, event, from_sql, ledger::Ledger, to_sql};
use crate::{
    BusError, GroupStatus, Limits, Pattern, StartFrom,
    broker::{GroupNames, GroupSpec, Progress, Seq},
};

#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) pattern: Pattern,
    pub(super) pending: u64,
    pub(super) dead: u64,
    before: (u64, u64),
}

impl Group {
    fn new(id: i64, name: String, pattern: String, counts: (u64, u64)) -> Result<Self, BusError> {
        let pattern = Pattern::new(pattern)?;
        Ok(Self { id, name, pattern, pending: counts.0, dead: counts.1, before: counts })
    }

    /// Whether its counts are no longer those in the file.
    pub(super) fn has_changed(&self) -> bool {
        self.before != (self.pending, self.dead)
    }
}

/// All groups, by name.
pub(super) fn all(conn: &Connection) -> Result<Vec<Group>, BusError> {
    let mut select =
        conn.prepare_cached("SELECT group_id, name, pattern, pending, dead FROM bus_group ORDER BY name")?;
    let mut rows = select.query([])?;
    let mut groups = Vec::new();
    while let Some(r) = rows.next()? {
        let counts = (from_sql(r.get(3)?), from_sql(r.get(4)?));
        groups.push(Group::new(r.get(0)?, r.get(1)?, r.get(2)?, counts)?);
    }
    Ok(groups)
}

/// A group by name.
pub(super) fn find(conn: &Connection, name: &str) -> Result<Group, BusError> {
    let mut select = conn.prepare_cached("SELECT group_id, pattern, pending, dead FROM bus_group WHERE name = ?1")?;
    let mut rows = select.query([name])?;
    let Some(r) = rows.next()? else { return Err(BusError::NoGroup { group: name.into() }) };
    Group::new(r.get(0)?, name.into(), r.get(1)?, (from_sql(r.get(2)?), from_sql(r.get(3)?)))
}

pub(super) fn names(conn: &Connection, after: &str, limit: usize) -> Result<Vec<GroupNames>, BusError> {
    let mut select =
        conn.prepare_cached("SELECT group_id, name, pattern FROM bus_group WHERE name > ?1 ORDER BY name LIMIT ?2")?;
    let groups = select.query_map(params![after, to_sql(limit as u64)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let groups: Vec<(i64, String, String)> = groups.collect::<rusqlite::Result<_>>()?;
    let consumers = |id: i64| -> Result<Vec<String>, BusError> {
        let mut select = conn.prepare_cached("SELECT name FROM bus_consumer WHERE group_id = ?1 ORDER BY name")?;
        Ok(select.query_map([id], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
    };
    let all = groups.into_iter().map(|(id, name, pattern)| Ok(GroupNames { consumers: consumers(id)?, name, pattern }));
    all.collect()
}

pub(super) fn open(conn: &Connection, spec: &GroupSpec, limits: &Limits) -> Result<(), BusError> {
    match find(conn, &spec.name) {
        Ok(group) if group.pattern == spec.pattern => return Ok(()),
        Ok(group) => {
            let (stored, asked) = (group.pattern.to_string(), spec.pattern.to_string());
            return Err(BusError::GroupDiffers { group: group.name, stored, asked });
        }
        Err(BusError::NoGroup { .. }) => {}
        Err(e) => return Err(e),
    }
    conn.execute(
        "INSERT INTO bus_group (name, pattern, pending) VALUES (?1, ?2, 0)",
        params![spec.name.as_ref(), spec.pattern.as_str()],
    )?;
    match spec.from {
        StartFrom::New => Ok(()),
        StartFrom::Earliest => begin_with_history(Ledger::of_one(conn, limits, &spec.name)?),
    }
}

/// Gives a new group everything that is kept and that it wants.
fn begin_with_history(mut ledger: Ledger<'_>) -> Result<(), BusError> {
    let (conn, group) = (ledger.conn, &mut ledger.groups[0]);
    let mut select =
        conn.prepare("SELECT seq, topic, key, priority, outstanding = 0 FROM bus_event WHERE copy = 0 ORDER BY seq")?;
    let rows = select.query_map([], |r| {
        // What is no text cannot be read later either.
        let text = |n| r.get::<_, String>(n).unwrap_or_default();
        Ok((r.get(0)?, text(1), text(2), r.get(3)?, r.get(4)?))
    })?;
    // Read to the end before writing: a cursor over rows that change under it may see them twice.
    let retained: Vec<(i64, String, String, bool, bool)> = rows.collect::<rusqlite::Result<_>>()?;
    for (seq, topic, key, is_priority, is_history) in retained {
        // A topic that cannot be read matches nothing.
        if !Topic::new(topic).is_ok_and(|topic| group.pattern.matches(&topic)) {
            continue;
        }
        append::lay_out(conn, group.id, seq, &key, is_priority)?;
        group.pending += 1;
        ledger.history = ledger.history.saturating_sub(u64::from(is_history));
        conn.prepare_cached("UPDATE bus_event SET outstanding = outstanding + 1, wanted = 1 WHERE seq = ?1")?
            .execute([seq])?;
    }
    ledger.save()
}

pub(super) fn remove(conn: &Connection, name: &str, limits: &Limits) -> Result<bool, BusError> {
    let mut ledger = match Ledger::of_one(conn, limits, name) {
        Ok(ledger) => ledger,
        Err(BusError::NoGroup { .. }) => return Ok(false),
        Err(e) => return Err(e),
    };
    let id = ledger.groups[0].id;
    conn.execute(
        "UPDATE bus_event SET outstanding = outstanding - 1
         WHERE seq IN (SELECT seq FROM bus_delivery WHERE group_id = ?1)",
        [id],
    )?;
    // Nobody else needs the group's copies, and they are never history.
    conn.execute(
        "DELETE FROM bus_event WHERE copy = 1 AND seq IN (SELECT seq FROM bus_delivery WHERE group_id = ?1)",
        [id],
    )?;
    let freed: i64 = conn.query_row(
        "SELECT count(*) FROM bus_delivery d JOIN bus_event e ON e.seq = d.seq WHERE d.group_id = ?1 AND e.outstanding = 0",
        [id],
        |r| r.get(0),
    )?;
    ledger.history += from_sql(freed);
    ledger.save()?;
    for table in ["bus_delivery", "bus_dead", "bus_consumer", "bus_group"] {
        conn.execute(&format!("DELETE FROM {table} WHERE group_id = ?1"), [id])?;
    }
    Ok(true)
}

pub(super) const IS_PENDING: &str = "SELECT EXISTS (SELECT 1 FROM bus_delivery WHERE group_id = ?1 AND seq <= ?2)";

pub(super) fn progress(conn: &Connection, name: &str, through: Option<Seq>) -> Result<Progress, BusError> {
    let group = find(conn, name)?;
    let through = match through {
        Some(through) => through,
        None => event::newest(conn)?,
    };
    let is_pending = conn.prepare_cached(IS_PENDING)?.query_row(params![group.id, to_sql(through)], |r| r.get(0))?;
    Ok(Progress { through, is_pending })
}

pub(super) const OLDEST: &str = "SELECT e.time_ns FROM bus_event e
     WHERE e.seq = (SELECT min(seq) FROM bus_delivery WHERE group_id = ?1) AND typeof(e.time_ns) = 'integer'";

pub(super) fn status(conn: &Connection, name: &str) -> Result<GroupStatus, BusError> {
    let group = find(conn, name)?;
    // None as well if what is stored is no time.
    let oldest: Option<i64> = conn.prepare_cached(OLDEST)?.query_row([group.id], |r| r.get(0)).optional()?;
    Ok(GroupStatus { pending: group.pending, oldest: oldest.map(Timestamp::from_nanos), dead_letters: group.dead })
}

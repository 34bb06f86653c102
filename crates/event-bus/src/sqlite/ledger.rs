//! What a transaction counts: read once at its begin, written once at its end.

use infra_types::Topic;
use rusqlite::{Connection, params};

use super::{
    from_sql,
    group::{self, Group},
    to_sql,
};
use crate::{BusError, Limits};

/// The counts of one transaction. What it changed is only in the file after [`save`](Self::save).
#[derive(Debug)]
pub(super) struct Ledger<'c> {
    pub(super) conn: &'c Connection,
    pub(super) limits: &'c Limits,
    /// All groups by name, or the one that the transaction is about.
    pub(super) groups: Vec<Group>,
    /// Events that no group needs (any more).
    pub(super) history: u64,
    /// Events that wait for their time.
    pub(super) delayed: u64,
    before: (u64, u64),
}

impl<'c> Ledger<'c> {
    /// For what touches every group.
    pub(super) fn of_all(conn: &'c Connection, limits: &'c Limits) -> Result<Self, BusError> {
        Self::new(conn, limits, group::all(conn)?)
    }

    /// For what touches one group: it is `groups[0]`.
    pub(super) fn of_one(conn: &'c Connection, limits: &'c Limits, name: &str) -> Result<Self, BusError> {
        Self::new(conn, limits, vec![group::find(conn, name)?])
    }

    fn new(conn: &'c Connection, limits: &'c Limits, groups: Vec<Group>) -> Result<Self, BusError> {
        let sql = "SELECT (SELECT value FROM bus_meta WHERE name = 'history'),
                   (SELECT value FROM bus_meta WHERE name = 'delayed')";
        let counts = conn.prepare_cached(sql)?.query_row([], |r| Ok((from_sql(r.get(0)?), from_sql(r.get(1)?))))?;
        Ok(Self { conn, limits, groups, history: counts.0, delayed: counts.1, before: counts })
    }

    /// Where a group is in `groups`.
    pub(super) fn place_of(&self, name: &str) -> Result<usize, BusError> {
        let found = self.groups.iter().position(|group| group.name == name);
        found.ok_or_else(|| BusError::NoGroup { group: name.into() })
    }

    /// The first group that wants the topic and has no room. A topic that cannot be read is wanted by none.
    pub(super) fn full(&self, topic: Option<&Topic>) -> Option<BusError> {
        let is_full = |g: &&Group| g.pending >= self.limits.backlog_max && topic.is_some_and(|t| g.pattern.matches(t));
        let full = self.groups.iter().find(is_full)?;
        Some(BusError::BacklogFull { group: full.name.clone(), pending: full.pending })
    }

    /// Writes what has changed.
    pub(super) fn save(self) -> Result<(), BusError> {
        for group in self.groups.iter().filter(|group| group.has_changed()) {
            let sql = "UPDATE bus_group SET pending = ?2, dead = ?3 WHERE group_id = ?1";
            self.conn.prepare_cached(sql)?.execute(params![group.id, to_sql(group.pending), to_sql(group.dead)])?;
        }
        let counts = [("history", self.history, self.before.0), ("delayed", self.delayed, self.before.1)];
        for (name, value, _) in counts.into_iter().filter(|(_, value, before)| value != before) {
            let sql = "UPDATE bus_meta SET value = ?2 WHERE name = ?1";
            self.conn.prepare_cached(sql)?.execute(params![name, to_sql(value)])?;
        }
        Ok(())
    }
}

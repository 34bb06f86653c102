//! Groups: creating, removing, how far they are.

use rusqlite::{Connection, params};

use super::{append, from_sql, to_sql};
use crate::{
    BusError, Pattern, StartFrom,
    broker::{GroupSpec, Progress, Seq},
};

#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) pattern: Pattern,
    pub(super) pending: u64,
}

/// All groups, by name.
pub(super) fn all(conn: &Connection) -> Result<Vec<Group>, BusError> {
    let mut select = conn.prepare_cached("SELECT group_id, name, pattern, pending FROM bus_group ORDER BY name")?;
    let rows = select.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get::<_, String>(2)?, r.get(3)?)))?;
    let mut groups = Vec::new();
    for row in rows {
        let (id, name, pattern, pending) = row?;
        groups.push(Group { id, name, pattern: Pattern::new(pattern)?, pending: from_sql(pending) });
    }
    Ok(groups)
}

/// A group by name.
pub(super) fn find(conn: &Connection, name: &str) -> Result<Group, BusError> {
    let mut select = conn.prepare_cached("SELECT group_id, pattern, pending FROM bus_group WHERE name = ?1")?;
    let row = select.query_row([name], |r| Ok((r.get(0)?, r.get::<_, String>(1)?, r.get(2)?)));
    match row {
        Ok((id, pattern, pending)) => {
            Ok(Group { id, name: name.into(), pattern: Pattern::new(pattern)?, pending: from_sql(pending) })
        }
        Err(rusqlite::Error::QueryReturnedNoRows) => Err(BusError::NoGroup { group: name.into() }),
        Err(e) => Err(e.into()),
    }
}

pub(super) fn open(conn: &Connection, spec: &GroupSpec) -> Result<(), BusError> {
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
    let id = conn.last_insert_rowid();
    if spec.from == StartFrom::New {
        return Ok(());
    }
    let mut select =
        conn.prepare("SELECT seq, topic, key, kept FROM bus_event WHERE outstanding > 0 OR kept = 1 ORDER BY seq")?;
    let rows = select.query_map([], |r| Ok((r.get(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?, r.get(3)?)))?;
    // Read to the end before writing: a cursor over rows that change under it may see them twice.
    let retained: Vec<(i64, String, String, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    for (seq, topic, key, kept) in retained {
        // A topic that cannot be read matches nothing.
        if !infra_types::Topic::new(topic).is_ok_and(|topic| spec.pattern.matches(&topic)) {
            continue;
        }
        append::lay_out(conn, id, seq, &key)?;
        conn.prepare_cached("UPDATE bus_event SET outstanding = outstanding + 1, kept = 0 WHERE seq = ?1")?
            .execute([seq])?;
        conn.prepare_cached("UPDATE bus_meta SET value = value - ?1 WHERE name = 'kept'")?.execute([kept])?;
    }
    Ok(())
}

pub(super) fn remove(conn: &Connection, name: &str) -> Result<bool, BusError> {
    let group = match find(conn, name) {
        Ok(group) => group,
        Err(BusError::NoGroup { .. }) => return Ok(false),
        Err(e) => return Err(e),
    };
    conn.execute(
        "UPDATE bus_event SET outstanding = outstanding - 1, data = CASE outstanding WHEN 1 THEN x'' ELSE data END
         WHERE seq IN (SELECT seq FROM bus_delivery WHERE group_id = ?1)",
        [group.id],
    )?;
    for table in ["bus_delivery", "bus_dead", "bus_group"] {
        conn.execute(&format!("DELETE FROM {table} WHERE group_id = ?1"), [group.id])?;
    }
    Ok(true)
}

pub(super) fn progress(conn: &Connection, name: &str, through: Option<Seq>) -> Result<Progress, BusError> {
    let group = find(conn, name)?;
    let through = match through {
        Some(through) => through,
        None => append::newest(conn)?,
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM bus_delivery WHERE group_id = ?1 AND seq <= ?2)";
    let is_pending = conn.prepare_cached(sql)?.query_row(params![group.id, to_sql(through)], |r| r.get(0))?;
    Ok(Progress { through, is_pending })
}

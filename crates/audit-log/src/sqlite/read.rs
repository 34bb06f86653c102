//! What is read from the file: searches, and rows as they stand for verification.

use rusqlite::{
    Connection, OptionalExtension, Row,
    types::{Value, ValueRef},
};

use super::{Sql, damaged};
use crate::{
    error::AuditError,
    event::AuditEvent,
    log::{AuditPage, AuditQuery, Statistics, StoredEvent},
    tree::{Frontier, Hash32, TreeHead, leaf_hash},
    verify::{Tampering, Verdict, Verifier},
};

pub(super) fn query(conn: &Connection, query: &AuditQuery) -> Result<AuditPage, AuditError> {
    let mut sql = String::from("SELECT idx, leaf_hash, data FROM audit_event WHERE true");
    let mut values: Vec<Value> = Vec::new();
    let mut condition = |text: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(text);
        }
    };
    let text = |text: &str| Value::from(text.to_owned());
    // An index beyond i64 is beyond every row.
    let after = query.after_index.map(|after| i64::try_from(after).unwrap_or(i64::MAX));
    condition(" AND idx > ?", after.map(Value::from));
    condition(" AND kind = ?", query.kind.as_ref().map(|kind| text(kind.as_str())));
    condition(" AND symbol = ?", query.symbol.as_ref().map(|symbol| text(symbol.as_str())));
    condition(" AND user = ?", query.user.as_ref().map(|user| text(user.as_str())));
    condition(" AND at >= ?", query.from.map(|from| Value::from(from.as_nanos())));
    condition(" AND at < ?", query.to.map(|to| Value::from(to.as_nanos())));
    // One more than asked for tells whether there is a next page.
    condition(" ORDER BY idx LIMIT ?", i64::try_from(query.limit + 1).ok().map(Value::from));

    let mut statement = conn.prepare_cached(&sql).sql()?;
    let mut rows = statement.query(rusqlite::params_from_iter(values)).sql()?;
    let mut page = AuditPage::default();
    while let Some(row) = rows.next().sql()? {
        if page.events.len() == query.limit {
            page.next = page.events.last().map(|last: &StoredEvent| last.index);
            break;
        }
        let stored = stored_event(row)?;
        if !query.matches(&stored.event) {
            return Err(damaged(Some(stored.index), "its search columns differ from its bytes"));
        }
        page.events.push(stored);
    }
    Ok(page)
}

fn stored_event(row: &Row<'_>) -> Result<StoredEvent, AuditError> {
    let index = row.get::<_, i64>(0).sql()?.cast_unsigned();
    let (leaf, data): (Vec<u8>, Vec<u8>) = (row.get(1).sql()?, row.get(2).sql()?);
    let leaf_hash = leaf_hash(&data);
    if leaf != leaf_hash.as_bytes() {
        return Err(damaged(Some(index), "its bytes do not fit their hash"));
    }
    Ok(StoredEvent { index, leaf_hash, event: AuditEvent::decode(&data)? })
}

pub(super) fn statistics(conn: &Connection) -> Result<Statistics, AuditError> {
    let mut statement = conn.prepare_cached("SELECT kind, count(*) FROM audit_event GROUP BY kind").sql()?;
    let mut rows = statement.query([]).sql()?;
    let mut counts = Statistics::default();
    while let Some(row) = rows.next().sql()? {
        let (kind, count): (String, i64) = (row.get(0).sql()?, row.get(1).sql()?);
        let kind = kind.parse().map_err(|_| damaged(None, "a kind column holds no kind"))?;
        let count = count.cast_unsigned();
        counts.by_kind.insert(kind, count);
        counts.total += count;
    }
    Ok(counts)
}

/// The head as it is stored, and the highest index; none if there is no head of the right shape.
pub(super) fn stated_head(conn: &Connection) -> Result<Option<(TreeHead, Option<u64>)>, AuditError> {
    let head = "SELECT size, frontier, (SELECT max(idx) FROM audit_event) FROM audit_head WHERE one = 1";
    let mut statement = conn.prepare_cached(head).sql()?;
    let read = statement.query_row([], |row| {
        let size = integer(row, 0).and_then(|size| u64::try_from(size).ok());
        let frontier = size.zip(blob(row, 1)).and_then(|(size, nodes)| Frontier::from_node_bytes(size, &nodes));
        let newest = integer(row, 2).and_then(|newest| u64::try_from(newest).ok());
        Ok(frontier.map(|frontier| (frontier.head(), newest)))
    });
    Ok(read.optional().sql()?.flatten())
}

/// A row of whatever was found in it: a forger need not keep to the columns' types.
pub(super) struct StoredRow {
    index: i64,
    columns: Option<Columns>,
}

struct Columns {
    id: String,
    kind: String,
    symbol: Option<String>,
    user: Option<String>,
    at: i64,
    leaf: Hash32,
    data: Vec<u8>,
}

pub(super) struct Page {
    pub(super) rows: Vec<StoredRow>,
    /// Where the next page starts; none at the end.
    pub(super) last: Option<i64>,
}

pub(super) fn stored_rows(conn: &Connection, after: i64, limit: i64) -> Result<Page, AuditError> {
    let select = "SELECT idx, id, kind, symbol, user, at, leaf_hash, data FROM audit_event
                  WHERE idx > ?1 ORDER BY idx LIMIT ?2";
    let mut statement = conn.prepare_cached(select).sql()?;
    let rows = statement.query_map([after, limit], |row| Ok(StoredRow { index: row.get(0)?, columns: columns(row) }));
    let rows: Vec<_> = rows.and_then(Iterator::collect).sql()?;
    let last = rows.last().map(|row| row.index);
    Ok(Page { rows, last })
}

fn columns(row: &Row<'_>) -> Option<Columns> {
    Some(Columns {
        id: text(row, 1)??,
        kind: text(row, 2)??,
        symbol: text(row, 3)?,
        user: text(row, 4)?,
        at: integer(row, 5)?,
        leaf: Hash32::try_from(blob(row, 6)?.as_slice()).ok()?,
        data: blob(row, 7)?,
    })
}

fn integer(row: &Row<'_>, column: usize) -> Option<i64> {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(n)) => Some(n),
        _ => None,
    }
}

fn blob(row: &Row<'_>, column: usize) -> Option<Vec<u8>> {
    match row.get_ref(column) {
        Ok(ValueRef::Blob(bytes)) => Some(bytes.to_vec()),
        _ => None,
    }
}

#[expect(clippy::option_option, reason = "the outer one is a column of the wrong type, the inner one is NULL")]
fn text(row: &Row<'_>, column: usize) -> Option<Option<String>> {
    match row.get_ref(column) {
        Ok(ValueRef::Null) => Some(None),
        Ok(ValueRef::Text(bytes)) => Some(Some(std::str::from_utf8(bytes).ok()?.to_owned())),
        _ => None,
    }
}

impl StoredRow {
    pub(super) fn check(self, verifier: &mut Verifier<'_>) -> Result<(), Verdict> {
        let expected = verifier.size();
        let at = |index, kind| Verdict::Tampered { first_bad_index: Some(index), kind };
        // A negative index sorts before all others, so it stands where the first event should.
        let index = u64::try_from(self.index).map_err(|_| at(expected, Tampering::Gap))?;
        let columns = self.columns.ok_or_else(|| at(index, Tampering::Undecodable))?;
        let event = verifier.take(index, &columns.data, columns.leaf)?;
        let same = columns.id == event.id.as_str()
            && columns.kind == event.kind.as_str()
            && columns.symbol.as_deref() == event.symbol.as_ref().map(|symbol| symbol.as_str())
            && columns.user.as_deref() == event.context.user.as_ref().map(|user| user.as_str())
            && columns.at == event.at.as_nanos();
        if same { Ok(()) } else { Err(at(index, Tampering::SearchColumns)) }
    }
}

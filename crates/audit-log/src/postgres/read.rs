//! What is read from the server: searches, and rows as they stand for verification.

use infra_backends::{PgQuery, Postgres};
use sqlx::{AssertSqlSafe, Row, postgres::PgRow};

use super::{append::Tip, damaged, unreadable};
use crate::{
    codec::LEAF_BYTES_MAX,
    error::AuditError,
    event::AuditEvent,
    log::{AuditPage, AuditQuery, Statistics, StoredEvent},
    tree::{Frontier, Hash32, TreeHead, leaf_hash},
    verify::{Tampering, Verdict, Verifier},
};

const HEAD: &str =
    "SELECT size, turn, frontier, (SELECT max(idx) FROM audit_event) AS newest FROM audit_head WHERE one = 1";

/// Rows of one step of a verification, and their bytes: what it holds in memory, and what must arrive within one operation's time.
const PAGE_ROWS: i64 = 512;
const PAGE_BYTES: i64 = 2 * 1024 * 1024;

pub(super) async fn head(postgres: &Postgres) -> Result<TreeHead, AuditError> {
    match postgres.read(|| sqlx::query(HEAD)).await?.as_slice() {
        [row] => Ok(Tip::read(row)?.frontier.head()),
        rows => Err(damaged(None, &format!("it has {} heads", rows.len()))),
    }
}

/// Which conditions a query needs, and their values in the same order.
fn search(query: &AuditQuery) -> PgQuery<'static> {
    let mut sql = String::from("SELECT idx, leaf_hash, data FROM audit_event WHERE true");
    let mut count = 0;
    // The text is made of constant parts; values are only ever bound.
    let mut condition = |text: &str, is_asked: bool| {
        if is_asked {
            count += 1;
            sql.push_str(text);
            sql.push_str(&count.to_string());
        }
    };
    condition(" AND idx > $", query.after_index.is_some());
    condition(" AND kind = $", query.kind.is_some());
    condition(" AND symbol = $", query.symbol.is_some());
    condition(" AND person = $", query.user.is_some());
    condition(" AND at >= $", query.from.is_some());
    condition(" AND at < $", query.to.is_some());
    condition(" ORDER BY idx LIMIT $", true);

    let mut statement = sqlx::query(AssertSqlSafe(sql));
    if let Some(after) = query.after_index {
        // An index beyond i64 is beyond every row.
        statement = statement.bind(i64::try_from(after).unwrap_or(i64::MAX));
    }
    if let Some(kind) = &query.kind {
        statement = statement.bind(kind.as_str().to_owned());
    }
    if let Some(symbol) = &query.symbol {
        statement = statement.bind(symbol.as_str().to_owned());
    }
    if let Some(user) = &query.user {
        statement = statement.bind(user.as_str().to_owned());
    }
    for bound in [query.from, query.to].into_iter().flatten() {
        statement = statement.bind(bound.as_nanos());
    }
    // One more than asked for tells whether there is a next page.
    statement.bind(i64::try_from(query.limit + 1).unwrap_or(i64::MAX))
}

pub(super) async fn query(postgres: &Postgres, query: &AuditQuery) -> Result<AuditPage, AuditError> {
    let rows = postgres.read(|| search(query)).await?;
    let mut page = AuditPage::default();
    for row in &rows {
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

fn stored_event(row: &PgRow) -> Result<StoredEvent, AuditError> {
    let index = row.try_get::<i64, _>("idx").map_err(unreadable)?.cast_unsigned();
    let leaf: Vec<u8> = row.try_get("leaf_hash").map_err(unreadable)?;
    let data: &[u8] = row.try_get("data").map_err(unreadable)?;
    let leaf_hash = leaf_hash(data);
    if leaf != leaf_hash.as_bytes() {
        return Err(damaged(Some(index), "its bytes do not fit their hash"));
    }
    Ok(StoredEvent { index, leaf_hash, event: AuditEvent::decode(data)? })
}

pub(super) async fn statistics(postgres: &Postgres) -> Result<Statistics, AuditError> {
    let sql = "SELECT kind, count(*) AS events FROM audit_event GROUP BY kind";
    let mut counts = Statistics::default();
    for row in postgres.read(|| sqlx::query(sql)).await? {
        let kind: String = row.try_get("kind").map_err(unreadable)?;
        let kind = kind.parse().map_err(|_| damaged(None, "a kind column holds no kind"))?;
        let events = row.try_get::<i64, _>("events").map_err(unreadable)?.cast_unsigned();
        counts.by_kind.insert(kind, events);
        counts.total += events;
    }
    Ok(counts)
}

/// The head as it is stored, and the highest index; none if there is not one head of the right shape.
pub(super) async fn stated_head(postgres: &Postgres) -> Result<Option<(TreeHead, Option<u64>)>, AuditError> {
    let rows = postgres.read(|| sqlx::query(HEAD)).await?;
    let [row] = rows.as_slice() else { return Ok(None) };
    let size = row.try_get::<i64, _>("size").ok().and_then(|size| u64::try_from(size).ok());
    let nodes = row.try_get::<Vec<u8>, _>("frontier").ok();
    let frontier = size.zip(nodes).and_then(|(size, nodes)| Frontier::from_node_bytes(size, &nodes));
    let newest: Option<i64> = row.try_get("newest").map_err(unreadable)?;
    Ok(frontier.map(|frontier| (frontier.head(), newest.and_then(|newest| u64::try_from(newest).ok()))))
}

/// A row of whatever was found in it: a forger may have changed the table.
pub(super) struct StoredRow {
    pub(super) index: i64,
    columns: Option<Columns>,
}

struct Columns {
    id: String,
    kind: String,
    symbol: Option<String>,
    person: Option<String>,
    at: i64,
    leaf: Hash32,
    data: Vec<u8>,
}

/// The rows from `from` on, included. At least one, if there is one.
pub(super) async fn stored_rows(postgres: &Postgres, from: i64) -> Result<Vec<StoredRow>, AuditError> {
    // What is longer than any event is not fetched: it is no event, and may be a gigabyte.
    let sql = "SELECT idx, id, kind, symbol, person, at, leaf_hash,
                      CASE WHEN octet_length(data) <= $3 THEN data END AS data
               FROM (SELECT *, sum(octet_length(data)) OVER (ORDER BY idx ROWS UNBOUNDED PRECEDING)
                               - octet_length(data) AS before
                     FROM (SELECT * FROM audit_event WHERE idx >= $1 ORDER BY idx LIMIT $2) AS page) AS measured
               WHERE before < $4 OR before IS NULL ORDER BY idx";
    let longest = i32::try_from(LEAF_BYTES_MAX).unwrap_or(i32::MAX);
    let select = || sqlx::query(sql).bind(from).bind(PAGE_ROWS).bind(longest).bind(PAGE_BYTES);
    let read =
        |row: &PgRow| Ok(StoredRow { index: row.try_get("idx").map_err(unreadable)?, columns: columns(row).ok() });
    postgres.read(select).await?.iter().map(read).collect()
}

fn columns(row: &PgRow) -> Result<Columns, sqlx::Error> {
    let leaf: Vec<u8> = row.try_get("leaf_hash")?;
    Ok(Columns {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        symbol: row.try_get("symbol")?,
        person: row.try_get("person")?,
        at: row.try_get("at")?,
        leaf: Hash32::try_from(leaf.as_slice()).map_err(|e| sqlx::Error::Decode(e.into()))?,
        data: row.try_get("data")?,
    })
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
            && columns.person.as_deref() == event.context.user.as_ref().map(|user| user.as_str())
            && columns.at == event.at.as_nanos();
        if same { Ok(()) } else { Err(at(index, Tampering::SearchColumns)) }
    }
}

//! What a snapshot of the database answers: each read is one statement.

use infra_backends::Postgres;
use infra_types::{EventId, Namespace, Timestamp};
use sqlx::{Row, postgres::PgRow};

use super::{
    answer::{damaged, unsigned},
    apply::{kind_number, up_to_number},
};
use crate::{
    batch::{OutboxPosition, OutboxRow, Version},
    changes::{Change, ChangePosition, Changes},
    error::StoreError,
    key::{Key, KeyKind},
    list::{ListOrder, ListPage, ListRange},
    store::{Entry, Page, Scan, Value},
    validate::changes_not_kept,
};

fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) async fn entries(
    postgres: &Postgres,
    namespace: &Namespace,
    keys: &[Key],
) -> Result<Vec<Option<Entry>>, StoreError> {
    let mut found = vec![None; keys.len()];
    match keys {
        [] => {}
        [key] => {
            if let Some(row) = one(postgres, namespace, key).await?.first() {
                found[0] = Some(entry(row, key.kind())?);
            }
        }
        keys => {
            let (mut kinds, mut names, mut places) = (Vec::new(), Vec::new(), Vec::new());
            let (mut leases, mut lease_places) = (Vec::new(), Vec::new());
            for (place, key) in (0i64..).zip(keys) {
                if key.kind() == KeyKind::Lease {
                    leases.push(key.name());
                    lease_places.push(place);
                } else {
                    kinds.push(kind_number(key.kind()));
                    names.push(key.name());
                    places.push(place);
                }
            }
            let query = || {
                let has_leases = !leases.is_empty();
                let sql = if has_leases { include_str!("get_mixed.sql") } else { include_str!("get.sql") };
                let query = sqlx::query(sql).bind(namespace.as_str()).bind(&kinds).bind(&names).bind(&places);
                if has_leases { query.bind(&leases).bind(&lease_places) } else { query }
            };
            for row in postgres.read(query).await? {
                let place: i64 = row.try_get("at").map_err(damaged)?;
                let place = usize::try_from(place).map_err(damaged)?;
                let (Some(key), Some(slot)) = (keys.get(place), found.get_mut(place)) else {
                    return Err(damaged("it answers a key that was not asked for"));
                };
                *slot = Some(entry(&row, key.kind())?);
            }
        }
    }
    Ok(found)
}

async fn one(postgres: &Postgres, namespace: &Namespace, key: &Key) -> Result<Vec<PgRow>, StoreError> {
    let rows = if key.kind() == KeyKind::Lease {
        let query = || sqlx::query(include_str!("get_lease.sql")).bind(namespace.as_str()).bind(key.name());
        postgres.read(query).await
    } else {
        let kind = kind_number(key.kind());
        let query = || sqlx::query(include_str!("get_one.sql")).bind(namespace.as_str()).bind(kind).bind(key.name());
        postgres.read(query).await
    };
    Ok(rows?)
}

/// Columns `bytes, counter, version, expires_ms, holder`.
fn entry(row: &PgRow, kind: KeyKind) -> Result<Entry, StoreError> {
    let bytes: Option<Vec<u8>> = row.try_get("bytes").map_err(damaged)?;
    let counter: Option<i64> = row.try_get("counter").map_err(damaged)?;
    let holder: Option<String> = row.try_get("holder").map_err(damaged)?;
    let value = match (bytes, counter, holder) {
        (Some(bytes), None, None) => Value::Bytes(bytes.into()),
        (None, Some(counter), None) => Value::Counter(counter),
        (None, None, Some(holder)) => Value::Bytes(holder.into()),
        _ => return Err(StoreError::Corrupt { reason: "an entry is neither bytes nor a counter".into() }),
    };
    let version = unsigned(row.try_get("version").map_err(damaged)?)?;
    let expires_ms: Option<i64> = row.try_get("expires_ms").map_err(damaged)?;
    let version = (kind != KeyKind::Cache).then_some(Version(version));
    Ok(Entry { value, version, expires_at: expires_ms.map(Timestamp::from_millis) })
}

fn record_key(row: &PgRow) -> Result<Key, StoreError> {
    let name: String = row.try_get("name").map_err(damaged)?;
    Key::record(name).map_err(|e| StoreError::Corrupt { reason: e.to_string() })
}

pub(super) async fn page(postgres: &Postgres, namespace: &Namespace, scan: &Scan) -> Result<Page, StoreError> {
    let from = match scan.after.as_deref() {
        // The least name after it: none holds a control character.
        Some(after) if after >= scan.prefix.as_str() => format!("{after}\u{1}"),
        _ => scan.prefix.clone(),
    };
    let end = prefix_end(&scan.prefix);
    let query = || {
        sqlx::query(include_str!("scan.sql"))
            .bind(namespace.as_str())
            .bind(&from)
            .bind(&end)
            .bind(rows_max(scan.limit + 1))
    };
    let mut page = Page::default();
    for row in postgres.read(query).await? {
        if page.entries.len() == scan.limit {
            page.next = page.entries.last().map(|(key, _)| key.name().to_owned());
            break;
        }
        page.entries.push((record_key(&row)?, entry(&row, KeyKind::Record)?));
    }
    Ok(page)
}

/// What is greater than every name with this prefix: the prefix with its last character moved on.
fn prefix_end(prefix: &str) -> String {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Steps over the surrogates, which are no characters.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return chars.into_iter().collect();
        }
    }
    // Longer than every name, and no name can be greater before its end.
    char::MAX.to_string().repeat(Key::BYTES_MAX / char::MAX.len_utf8() + 1)
}

pub(super) async fn list(
    postgres: &Postgres,
    namespace: &Namespace,
    list: &Key,
    range: ListRange,
) -> Result<ListPage, StoreError> {
    let query = || {
        sqlx::query(include_str!("list.sql"))
            .bind(namespace.as_str())
            .bind(list.name())
            .bind(i64::from(range.skip))
            .bind(rows_max(range.limit))
            .bind(range.order == ListOrder::NewestFirst)
    };
    let mut page = ListPage::default();
    for row in postgres.read(query).await? {
        let length: i64 = row.try_get("length").map_err(damaged)?;
        page.length = u32::try_from(length).map_err(damaged)?;
        let bytes: Option<Vec<u8>> = row.try_get("bytes").map_err(damaged)?;
        page.values.extend(bytes.map(bytes::Bytes::from));
    }
    Ok(page)
}

pub(super) async fn changes(
    postgres: &Postgres,
    namespace: &Namespace,
    after: Option<ChangePosition>,
    limit: usize,
) -> Result<Changes, StoreError> {
    let from = up_to_number(after.map_or(u64::MAX, |after| after.0));
    let query = || sqlx::query(include_str!("changes.sql")).bind(namespace.as_str()).bind(from).bind(rows_max(limit));
    let rows = postgres.read(query).await?;
    let first = rows.first().ok_or_else(changes_not_kept)?;
    if first.try_get::<i32, _>("changes_max").map_err(damaged)? == 0 {
        return Err(changes_not_kept());
    }
    let end = ChangePosition(unsigned(first.try_get("last_number").map_err(damaged)?)?);
    let floor = unsigned(first.try_get("changes_floor").map_err(damaged)?)?;
    let Some(after) = after else { return Ok(Changes { changes: Vec::new(), next: end, gap: false }) };
    if after.0 < floor || after > end {
        return Ok(Changes { changes: Vec::new(), next: end, gap: true });
    }
    let mut changes = Vec::new();
    for row in &rows {
        let Some(number) = row.try_get::<Option<i64>, _>("number").map_err(damaged)? else { break };
        let version: Option<i64> = row.try_get("version").map_err(damaged)?;
        let expires_ms: Option<i64> = row.try_get("expires_ms").map_err(damaged)?;
        changes.push(Change {
            position: ChangePosition(unsigned(number)?),
            key: record_key(row)?,
            version: version.map(unsigned).transpose()?.map(Version),
            expires_at: expires_ms.map(Timestamp::from_millis),
        });
    }
    let next = changes.last().map_or(after, |change| change.position);
    Ok(Changes { changes, next, gap: false })
}

pub(super) async fn outbox(
    postgres: &Postgres,
    namespace: &Namespace,
    outbox: &Key,
    after: u64,
    limit: usize,
) -> Result<Vec<OutboxRow>, StoreError> {
    let query = || {
        sqlx::query(include_str!("outbox.sql"))
            .bind(namespace.as_str())
            .bind(outbox.name())
            .bind(up_to_number(after))
            .bind(rows_max(limit))
    };
    postgres.read(query).await?.iter().map(message).collect()
}

fn message(row: &PgRow) -> Result<OutboxRow, StoreError> {
    let id: String = row.try_get("event_id").map_err(damaged)?;
    let payload: Vec<u8> = row.try_get("payload").map_err(damaged)?;
    Ok(OutboxRow {
        // Commits are in order already.
        position: OutboxPosition { transaction: 0, sequence: unsigned(row.try_get("number").map_err(damaged)?)? },
        order_key: row.try_get("order_key").map_err(damaged)?,
        id: EventId::new(id).map_err(|e| StoreError::Corrupt { reason: e.to_string() })?,
        payload: payload.into(),
    })
}

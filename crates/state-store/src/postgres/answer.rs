//! What the server answers, as the store's words.

use std::time::Duration;

use infra_types::Timestamp;
use sqlx::{Row, postgres::PgRow};

use crate::{
    batch::{Applied, Batch, LeaseGrant, Version},
    error::StoreError,
    key::KeyKind,
    op::Op,
};

/// A reply that this library's functions do not give.
pub(super) fn damaged(e: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { reason: format!("the server's reply does not read as this library's: {e}") }
}

pub(super) fn only(rows: &[PgRow]) -> Result<&PgRow, StoreError> {
    rows.first().ok_or_else(|| damaged("it has no row"))
}

pub(super) fn unsigned(stored: i64) -> Result<u64, StoreError> {
    u64::try_from(stored).map_err(|_| damaged("a count is negative"))
}

/// The results of [`set_query`](super::apply::set_query).
pub(super) fn of_sets(batch: &Batch, rows: &[PgRow]) -> Result<Vec<Applied>, StoreError> {
    let first: Option<i64> = only(rows)?.try_get(0).map_err(damaged)?;
    Ok(match first.map(unsigned).transpose()? {
        Some(first) => (first..).take(batch.ops.len()).map(|number| Applied::Version(Version(number))).collect(),
        None => vec![Applied::Done; batch.ops.len()],
    })
}

/// The results of [`query`](super::apply::query), or why the batch was refused.
pub(super) fn of_batch(batch: &Batch, rows: &[PgRow]) -> Result<Vec<Applied>, StoreError> {
    let row = only(rows)?;
    if let Some(code) = row.try_get::<Option<i32>, _>("refusal").map_err(damaged)? {
        return Err(refusal(batch, code, row)?);
    }
    let results: Vec<i64> = row.try_get("results").map_err(damaged)?;
    let mut results = results.into_iter();
    batch.ops.iter().map(|op| applied(op, &mut results)).collect()
}

fn applied(op: &Op, results: &mut impl Iterator<Item = i64>) -> Result<Applied, StoreError> {
    let mut next = || results.next().ok_or_else(|| damaged("a result is missing"));
    let number = next()?;
    Ok(match op {
        Op::Set { key, .. } if key.kind() == KeyKind::Record => Applied::Version(Version(unsigned(number)?)),
        Op::Delete { .. } => Applied::Existed(number != 0),
        Op::Add { .. } => Applied::Counter(number),
        Op::Push { .. } => Applied::Length(u32::try_from(number).map_err(damaged)?),
        Op::Admit { .. } => Applied::Used(number),
        Op::AcquireLease { .. } | Op::RenewLease { .. } => {
            let expires_at = Timestamp::from_millis(next()?);
            Applied::Lease(LeaseGrant { fence: unsigned(number)?, expires_at })
        }
        Op::Set { .. }
        | Op::Check { .. }
        | Op::KeepChanges { .. }
        | Op::ReleaseLease { .. }
        | Op::CheckFence { .. }
        | Op::Enqueue { .. }
        | Op::Acknowledge { .. }
        | Op::MarkInbox { .. } => Applied::Done,
    })
}

/// The refusal that the server tells; the error of this function is that it does not make sense.
fn refusal(batch: &Batch, code: i32, row: &PgRow) -> Result<StoreError, StoreError> {
    let index: i32 = row.try_get("op_index").map_err(damaged)?;
    let index = usize::try_from(index).map_err(damaged)?;
    let op = batch.ops.get(index).ok_or_else(|| damaged("it refuses an operation that was not asked for"))?;
    let key = || op.key().cloned().ok_or_else(|| damaged("it refuses an operation without a key"));
    let detail: Option<i64> = row.try_get("detail").map_err(damaged)?;
    let number = || detail.ok_or_else(|| damaged("a refusal does not tell its number"));
    Ok(match code {
        1 => StoreError::Mismatch { index, key: key()?, found: detail.map(unsigned).transpose()?.map(Version) },
        2 => StoreError::OutOfBounds { index, key: key()?, current: number()? },
        3 => StoreError::Overflow { index, key: key()?, current: number()? },
        4 => StoreError::WrongType { index, key: key()? },
        5 => {
            let holder = row.try_get("words").map_err(damaged)?;
            StoreError::LeaseHeld { index, key: key()?, holder, expires_at: Timestamp::from_millis(number()?) }
        }
        6 => StoreError::Fenced { index, key: key()?, newest: unsigned(number()?)? },
        7 => {
            let wait: Option<i64> = row.try_get("extra").map_err(damaged)?;
            let retry_after = wait.map(unsigned).transpose()?.map(Duration::from_millis);
            StoreError::WindowFull { index, key: key()?, used: number()?, retry_after }
        }
        8 => StoreError::AlreadyProcessed { index },
        unknown => return Err(damaged(format!("refusal {unknown} is not known"))),
    })
}

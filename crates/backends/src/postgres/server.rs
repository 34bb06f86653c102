//! What the server says about itself.

use sqlx::{Executor, PgConnection, Row, postgres::PgRow};

use crate::error::BackendError;

/// Facts about the server that decide what a commit is worth, read over a connection with this handle's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresServer {
    /// The version as a number: 150004 is 15.4.
    pub version: u32,
    /// `on`, `off`, `local`, `remote_write` or `remote_apply`. With `off` a crash of the server loses the last commits.
    pub synchronous_commit: String,
    /// Whether the server waits for its disk at all. Without, a power cut may destroy the database.
    pub fsync: bool,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Whether new transactions are read-only.
    pub read_only: bool,
}

impl PostgresServer {
    /// The oldest version that will do.
    pub(super) const OLDEST: u32 = 150_000;

    /// Whether an answered write survives a crash of the server and a power cut.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.fsync && self.synchronous_commit != "off"
    }

    pub(super) async fn read(conn: &mut PgConnection) -> Result<Self, sqlx::Error> {
        // The simple protocol: one round trip, nothing is left prepared, every value is text.
        let row: PgRow = conn
            .fetch_one(sqlx::raw_sql(
                "SELECT current_setting('server_version_num'), current_setting('synchronous_commit'),
                        current_setting('fsync'), pg_catalog.pg_is_in_recovery()::text,
                        current_setting('default_transaction_read_only')",
            ))
            .await?;
        let text = |i: usize| row.try_get::<String, _>(i);
        Ok(Self {
            version: text(0)?.parse().unwrap_or(0),
            synchronous_commit: text(1)?,
            fsync: text(2)? == "on",
            in_recovery: text(3)? == "true",
            read_only: text(4)? == "on",
        })
    }

    pub(super) fn check(&self) -> Result<(), BackendError> {
        if self.version < Self::OLDEST {
            let found = format!("{}.{}", self.version / 10_000, self.version % 10_000);
            return Err(BackendError::TooOld { found, needed: "15.0" });
        }
        if self.in_recovery || self.read_only {
            return Err(BackendError::ReadOnly);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_and_standbys_are_refused() {
        let good = PostgresServer {
            version: 150_000,
            synchronous_commit: "on".into(),
            fsync: true,
            in_recovery: false,
            read_only: false,
        };
        assert!(good.check().is_ok() && good.is_durable());
        let old = PostgresServer { version: 140_012, ..good.clone() };
        assert!(matches!(old.check(), Err(BackendError::TooOld { found, needed: "15.0" }) if found == "14.12"));
        assert!(matches!(PostgresServer { in_recovery: true, ..good.clone() }.check(), Err(BackendError::ReadOnly)));
        assert!(matches!(PostgresServer { read_only: true, ..good.clone() }.check(), Err(BackendError::ReadOnly)));
        assert!(!PostgresServer { synchronous_commit: "off".into(), ..good.clone() }.is_durable());
        assert!(!PostgresServer { fsync: false, ..good }.is_durable());
    }
}

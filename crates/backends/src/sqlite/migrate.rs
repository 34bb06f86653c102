//! Forward-only schema steps, one table of versions for all components of a file.

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::BackendError;

/// The tables of one component, as the steps that lead to them. A step that was released never changes.
#[derive(Debug)]
pub struct Schema {
    /// Whose tables: `state`, `bus`, `audit` or `records`; each component prefixes its tables with it.
    pub component: &'static str,
    /// Step 1, step 2, …; each is a SQL script.
    pub steps: &'static [&'static str],
}

/// FNV-1a: tells an edited step from the original; it defends against mistakes, not against forgers.
fn fingerprint(step: &str) -> i64 {
    let hash = step.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    hash.cast_signed()
}

impl Schema {
    /// Runs the steps that are missing, inside the caller's transaction.
    pub(super) fn apply(&self, conn: &Connection) -> Result<(), BackendError> {
        conn.execute_batch(
            "CREATE TABLE IF NOT EXISTS infra_schema (
                 component TEXT NOT NULL, version INTEGER NOT NULL, fingerprint INTEGER NOT NULL,
                 PRIMARY KEY (component, version)) WITHOUT ROWID",
        )?;
        let newest = "SELECT max(version) FROM infra_schema WHERE component = ?1";
        let found: i64 = conn.query_row(newest, [self.component], |r| r.get::<_, Option<i64>>(0))?.unwrap_or(0);
        let known = i64::try_from(self.steps.len()).unwrap_or(i64::MAX);
        if found > known {
            return Err(BackendError::NewerSchema { component: self.component, found, known });
        }
        for (version, step) in (1i64..).zip(self.steps) {
            let stored = "SELECT fingerprint FROM infra_schema WHERE component = ?1 AND version = ?2";
            match conn.query_row(stored, params![self.component, version], |r| r.get::<_, i64>(0)).optional()? {
                Some(print) if print == fingerprint(step) => {}
                Some(_) => return Err(BackendError::ChangedMigration { component: self.component, version }),
                None => {
                    conn.execute_batch(step)?;
                    let insert = "INSERT INTO infra_schema (component, version, fingerprint) VALUES (?1, ?2, ?3)";
                    conn.execute(insert, params![self.component, version, fingerprint(step)])?;
                }
            }
        }
        Ok(())
    }
}

//! Forward-only schema steps, one table of versions for all components of a PostgreSQL schema.
//!
//! Each step is one transaction that holds an advisory lock *of the transaction*: it ends with it, whatever happens, so a
//! failed or killed migration can never leave the lock behind on a pooled connection. The connection is opened for the
//! migration and always closed after it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use super::{
    classify::{self, Phase},
    config::PostgresConfig,
};
use crate::error::BackendError;

/// The tables and functions of one component, as the steps that lead to them. A step that was released never changes.
///
/// A step is a SQL script that runs in one transaction with `search_path` set to the handle's schema: name tables and
/// functions without a schema, and write no `BEGIN` or `COMMIT`. After each step every PL/pgSQL function of the schema that
/// does not set a `search_path` itself is given this one (`ALTER FUNCTION … SET search_path`), so that it finds its tables
/// whatever the path of the session that calls it. Functions in other languages must say `SET search_path FROM CURRENT`
/// or `BEGIN ATOMIC`.
#[derive(Debug)]
pub struct PgSchema {
    /// Whose tables: `state`, `bus`, `audit` or `records`; each component prefixes its tables with it.
    pub component: &'static str,
    /// Step 1, step 2, …; each is a SQL script.
    pub steps: &'static [&'static str],
}

/// FNV-1a: tells an edited step from the original; it defends against mistakes, not against forgers.
fn digest(text: &str) -> i64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    hash.cast_signed()
}

const FUNCTIONS_KEEP_THE_PATH: &str = "DO $$
DECLARE f regprocedure;
BEGIN
  FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = pg_catalog.current_schema()::regnamespace AND l.lanname = 'plpgsql'
      AND pg_catalog.pg_has_role(p.proowner, 'USAGE')
      AND NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(p.proconfig) c WHERE c LIKE 'search\\_path=%')
  LOOP
    EXECUTE pg_catalog.format('ALTER ROUTINE %s SET search_path FROM CURRENT', f);
  END LOOP;
END $$";

/// A statement failed; whatever the transaction did is undone.
fn undone(e: &sqlx::Error) -> BackendError {
    classify::statement(e, Phase::NoEffect)
}

impl PgSchema {
    fn known(&self) -> i64 {
        i64::try_from(self.steps.len()).unwrap_or(i64::MAX)
    }

    /// Runs the steps that are missing. The caller opened `conn` for this and closes it.
    pub(super) async fn apply(&self, conn: &mut PgConnection, config: &PostgresConfig) -> Result<(), BackendError> {
        // Without the lock: the usual start finds everything done and waits for nobody.
        let mut done = self.verify(&self.stored(conn, config).await?)?;
        while done < self.steps.len() {
            done = self.step(conn, config).await?;
        }
        Ok(())
    }

    /// Runs the first missing step in a transaction of its own and answers how many are done.
    async fn step(&self, conn: &mut PgConnection, config: &PostgresConfig) -> Result<usize, BackendError> {
        let run = |sql: String| sqlx::raw_sql(AssertSqlSafe(sql));
        let ms = config.migration_timeout.max(Duration::from_millis(1)).as_millis();
        let key = digest(&format!("infra_schema {}", config.schema));
        // Configuration and a hash of it, nothing from outside: the schema's name was validated.
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms};
             SET LOCAL idle_in_transaction_session_timeout = {ms}; SELECT pg_catalog.pg_advisory_xact_lock({key})"
        );
        conn.execute(run(begin)).await.map_err(|e| undone(&e))?;
        if !self.has_versions(conn, config).await? {
            // Only if they are missing: IF NOT EXISTS asks for the right to create even then.
            let schema = &config.schema;
            let create = format!(
                "CREATE SCHEMA IF NOT EXISTS {schema};
                 CREATE TABLE IF NOT EXISTS {schema}.infra_schema (
                     component text COLLATE \"C\" NOT NULL, version bigint NOT NULL, digest bigint NOT NULL,
                     applied_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (component, version))"
            );
            conn.execute(run(create)).await.map_err(|e| undone(&e))?;
        }
        // Again, now under the lock: another process may have done it.
        let done = self.verify(&self.stored(conn, config).await?)?;
        if let Some(step) = self.steps.get(done) {
            let version = i64::try_from(done + 1).unwrap_or(i64::MAX);
            conn.execute(sqlx::raw_sql(*step)).await.map_err(|e| match undone(&e) {
                BackendError::Other { reason } => {
                    BackendError::Migration { component: self.component, version, reason }
                }
                known => known,
            })?;
            conn.execute(sqlx::raw_sql(FUNCTIONS_KEEP_THE_PATH)).await.map_err(|e| undone(&e))?;
            let insert = sqlx::query("INSERT INTO infra_schema (component, version, digest) VALUES ($1, $2, $3)")
                .bind(self.component)
                .bind(version)
                .bind(digest(step));
            conn.execute(insert).await.map_err(|e| undone(&e))?;
        }
        // A lost answer to this COMMIT is no riddle: the next `ready` reads the table of versions.
        conn.execute(sqlx::raw_sql("COMMIT")).await.map_err(|e| undone(&e))?;
        Ok((done + 1).min(self.steps.len()))
    }

    async fn has_versions(&self, conn: &mut PgConnection, config: &PostgresConfig) -> Result<bool, BackendError> {
        // From the tables, not by `to_regclass`: that answers from the session's cache, which has not heard yet of what the
        // process did that held the lock before us.
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = 'infra_schema')";
        let row = conn.fetch_one(sqlx::query(sql).bind(&config.schema)).await.map_err(|e| undone(&e))?;
        row.try_get(0).map_err(|e| undone(&e))
    }

    /// Version and digest of each step that was run, in order.
    async fn stored(&self, conn: &mut PgConnection, config: &PostgresConfig) -> Result<Vec<(i64, i64)>, BackendError> {
        if !self.has_versions(conn, config).await? {
            return Ok(Vec::new());
        }
        let sql = "SELECT version, digest FROM infra_schema WHERE component = $1 ORDER BY version";
        let rows = conn.fetch_all(sqlx::query(sql).bind(self.component)).await.map_err(|e| undone(&e))?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>().map_err(|e| undone(&e))
    }

    /// How many steps are done, if they are ours.
    fn verify(&self, stored: &[(i64, i64)]) -> Result<usize, BackendError> {
        let component = self.component;
        if let Some((found, _)) = stored.last().filter(|(version, _)| *version > self.known()) {
            return Err(BackendError::NewerSchema { component, found: *found, known: self.known() });
        }
        for ((expected, step), (version, print)) in (1i64..).zip(self.steps).zip(stored) {
            if expected != *version || digest(step) != *print {
                return Err(BackendError::ChangedMigration { component, version: expected });
            }
        }
        Ok(stored.len())
    }
}

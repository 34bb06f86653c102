//! State in Redis: one server, a primary behind sentinels, or a cluster.
//!
//! A batch is one script and so one round trip. Redis does not roll back, so the script runs every operation against what it read,
//! and writes only when none of them refused. Every value is a plain string with a short head, so that a read is a plain `GET`.
//! Why it is so: `docs/decisions/0006-redis-one-script-a-batch.md`; how keys are laid out: `redis/keys.rs`.

mod batch;
mod cell;
mod clear;
mod keys;
mod reads;
mod scripts;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use infra_backends::{Access, BackendError, Fsync, Redis, RedisConfig};
use infra_types::{Clock, Health, HealthStatus, Namespace};
use redis::Value as Reply;

use self::keys::{LAYOUT, Layout, Space};
use crate::{
    batch::{Applied, Batch, OutboxPosition, OutboxRow, Ttl, When},
    changes::{ChangePosition, Changes},
    error::StoreError,
    key::{Key, KeyKind},
    list::{ListPage, ListRange},
    op::Op,
    store::{Entry, Limits, Page, Scan, StateStore, StoreInfo, Value},
    validate,
};

/// A store in Redis 7.0 or newer. The first use connects.
///
/// * **Time** is the server's: the given clock only measures how long the probe of [`health`](StateStore::health) took.
/// * **Survival**: an answered write survives the server's process if it has an append-only file, and a power cut if that is synced
///   always; never where replicas take over (Sentinel, Cluster), because they may not have received it. See
///   [`durable`](Self::durable).
/// * **Reads** are linearizable and go to the primary. A page of a scan is read in one moment up to 4 MiB or 4,000 names that expired; a
///   larger one in several.
/// * **Bounds**: cache keys stay until their time; a server that may evict is refused unless `allow_eviction` says that all is cache.
/// * **Cluster**: one namespace is one slot. While its slot moves, operations may be `Transient`.
/// * **Rights**: all commands of the scripts on keys under the prefix (asked once; a user without one is refused before
///   anything is written), `SCAN`, and what the handle needs to look at the server.
pub struct RedisStateStore {
    redis: Redis,
    layout: Layout,
    /// For how long a probe took; expiry is judged by the server.
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// Whether closing the store closes the handle: nobody else has it.
    owns_handle: bool,
    is_durable: bool,
    /// Where health asks: in a cluster, another server may hold what nobody here needs.
    first_used: OnceLock<Namespace>,
    /// Whether the server was asked what this user may do.
    is_checked: AtomicBool,
    was_used: AtomicBool,
    is_closed: AtomicBool,
}

impl RedisStateStore {
    /// A store on a handle that others may use as well. Closing the store leaves the handle open.
    ///
    /// # Errors
    /// `Invalid` for a key prefix that holds `{` or `}`.
    pub fn new(redis: Redis, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self {
            layout: Layout::new(redis.key_prefix())?,
            redis,
            clock,
            limits: Limits::default(),
            owns_handle: false,
            is_durable: false,
            first_used: OnceLock::new(),
            is_checked: AtomicBool::new(false),
            was_used: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    /// A store on connections of its own; closing the store closes them.
    ///
    /// # Errors
    /// `Backend` for settings that make no sense, `Invalid` as [`new`](Self::new).
    pub fn open(config: RedisConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self { owns_handle: true, ..Self::new(Redis::new(config)?, clock)? })
    }

    /// Refuses to lose an answered write, as a ledger must: a server without `appendonly yes` and `appendfsync always` is
    /// refused, and so is everything after another server (or the same after a restart) took over, until
    /// [`acknowledge_failover`](Self::acknowledge_failover). What one server kept on its disk another may never have received.
    #[must_use]
    pub fn durable(self) -> Self {
        Self { redis: self.redis.guarded(), is_durable: true, ..self }
    }

    /// Lets a [durable](Self::durable) store go on after a failover: call it when what is in the store was compared with the truth
    /// elsewhere (open orders at the venue, say).
    pub fn acknowledge_failover(&self) {
        self.redis.accept_failover();
    }

    fn space(&self, namespace: &Namespace) -> Space {
        self.first_used.get_or_init(|| namespace.clone());
        self.layout.space(namespace)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        if !self.is_checked.load(Ordering::Acquire) {
            self.was_used.store(true, Ordering::Release);
            self.check_rights().await?;
            self.check_layout().await?;
            self.is_checked.store(true, Ordering::Release);
        }
        if self.is_durable { self.refuse_forgetful() } else { Ok(()) }
    }

    /// A script that lacks a right half way would leave half a batch.
    async fn check_rights(&self) -> Result<(), StoreError> {
        let probe = self.layout.probe(self.first_used.get());
        let mut call = scripts::RIGHTS.call(1);
        call.arg(&probe);
        match self.redis.script(probe.as_bytes(), &scripts::RIGHTS, &call, Access::Read).await.map_err(failed)? {
            Reply::BulkString(command) => {
                let reason = format!("{} on keys {}*", String::from_utf8_lossy(&command), self.layout.prefix());
                Err(BackendError::Denied { reason }.into())
            }
            _ => Ok(()),
        }
    }

    /// What a later release wrote in its own way must not be misread.
    async fn check_layout(&self) -> Result<(), StoreError> {
        let key = self.layout.number_key();
        let mut cmd = redis::cmd("GET");
        cmd.arg(&key);
        let bytes = match self.query(&key, &cmd, Access::Read).await? {
            Reply::Nil => return Ok(()),
            Reply::BulkString(bytes) => bytes,
            other => return Err(StoreError::Corrupt { reason: format!("GET {key} was answered with {other:?}") }),
        };
        match std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()) {
            Some(LAYOUT) => Ok(()),
            Some(found) if found > LAYOUT => {
                Err(BackendError::NewerSchema { component: "state", found, known: LAYOUT }.into())
            }
            _ => Err(StoreError::Corrupt { reason: format!("{key} does not hold the number of a layout") }),
        }
    }

    fn refuse_forgetful(&self) -> Result<(), StoreError> {
        let fsync = self.redis.server().and_then(|server| server.fsync);
        if fsync != Some(Fsync::Always) {
            let found = fsync.map_or_else(|| "an unknown setting".to_owned(), |fsync| fsync.to_string());
            return Err(BackendError::NotDurable { found, needed: Fsync::Always.to_string() }.into());
        }
        Ok(())
    }

    async fn query(&self, slot_key: &str, cmd: &redis::Cmd, access: Access) -> Result<Reply, StoreError> {
        self.redis.query(slot_key.as_bytes(), cmd, access).await.map_err(failed)
    }

    async fn script(
        &self,
        space: &Space,
        script: &infra_backends::RedisScript,
        call: &redis::Cmd,
        access: Access,
    ) -> Result<Reply, StoreError> {
        self.redis.script(space.base().as_bytes(), script, call, access).await.map_err(failed)
    }

    /// A cache key that depends on nothing needs no script that looks at what was there.
    async fn set_cache(&self, space: &Space, key: &Key, value: &Value, ttl: Ttl) -> Result<(), StoreError> {
        let key = space.key(key);
        let number = value.as_counter().map(|n| n.to_string());
        let (kind, text) = match (value, &number) {
            (Value::Bytes(bytes), _) => (0, &bytes[..]),
            (_, digits) => (1, digits.as_deref().unwrap_or_default().as_bytes()),
        };
        let reply = if let Ttl::After(time) = ttl {
            let mut call = scripts::SET.call(1);
            call.arg(&key).arg(["b", "n"][kind]).arg(text).arg(batch::millis(time));
            self.script(space, &scripts::SET, &call, Access::Write).await?
        } else {
            let mut stored = Vec::with_capacity(cell::CACHE_FOR_EVER[kind].len() + text.len());
            stored.extend_from_slice(cell::CACHE_FOR_EVER[kind]);
            stored.extend_from_slice(text);
            let mut cmd = redis::Cmd::with_capacity(3, 16 + key.len() + stored.len());
            cmd.arg("SET").arg(&key).arg(&stored);
            self.query(&key, &cmd, Access::Write).await?
        };
        match reply {
            Reply::Okay | Reply::Nil => Ok(()),
            other => Err(StoreError::Ambiguous { reason: format!("SET was answered with {other:?}") }),
        }
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.ready().await?;
        let key = self.layout.probe(self.first_used.get());
        let mut cmd = redis::cmd("SET");
        // It goes away by itself when nobody asks any more.
        cmd.arg(&key).arg(self.clock.wall().as_millis()).arg("PX").arg(60_000);
        self.query(&key, &cmd, Access::Write).await.map(|_| ())
    }
}

/// The one operation of a batch that only overwrites a cache key.
fn plain_set(batch: &Batch) -> Option<(&Key, &Value, Ttl)> {
    match &batch.ops[..] {
        [Op::Set { key, value, ttl: ttl @ (Ttl::Never | Ttl::After(_)), when: When::Always }]
            if key.kind() == KeyKind::Cache && !value.as_counter().is_some_and(batch::beyond) =>
        {
            Some((key, value, *ttl))
        }
        _ => None,
    }
}

/// What a backend's error means here: a key of another type was written by somebody else.
fn failed(error: BackendError) -> StoreError {
    match error {
        BackendError::Other { reason } if reason.starts_with("WRONGTYPE") => {
            StoreError::Corrupt { reason: format!("something else wrote a key of this store: {reason}") }
        }
        other => other.into(),
    }
}

#[async_trait]
impl StateStore for RedisStateStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        validate::keys(keys, &self.limits)?;
        self.ready().await?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let space = self.space(namespace);
        if keys.iter().any(|key| key.kind() == KeyKind::Lease) {
            self.read_with_time(&space, keys).await
        } else {
            self.read_plain(&space, keys).await
        }
    }

    async fn get(&self, namespace: &Namespace, key: &Key) -> Result<Option<Entry>, StoreError> {
        validate::readable(key)?;
        self.ready().await?;
        let space = self.space(namespace);
        if key.kind() == KeyKind::Lease {
            return Ok(self.read_with_time(&space, std::slice::from_ref(key)).await?.pop().flatten());
        }
        self.read_one(&space, key).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        validate::batch(&batch, &self.limits)?;
        self.ready().await?;
        if batch.ops.is_empty() {
            return Ok(Vec::new());
        }
        let space = self.space(&batch.namespace);
        if let Some((key, value, ttl)) = plain_set(&batch) {
            self.set_cache(&space, key, value, ttl).await?;
            return Ok(vec![Applied::Done]);
        }
        let call = batch::call(&space, &batch);
        match self.script(&space, &scripts::APPLY, &call, Access::Write).await? {
            Reply::BulkString(answer) => batch::results(&batch, &answer),
            other => Err(StoreError::Ambiguous { reason: format!("a batch was answered with {other:?}") }),
        }
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        validate::scan(&scan)?;
        self.ready().await?;
        self.page(&self.space(namespace), &scan).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        validate::list(list, &range)?;
        self.ready().await?;
        self.list_page(&self.space(namespace), list, range).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        validate::page(limit)?;
        self.ready().await?;
        self.changes_after(&self.space(namespace), after, limit).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        validate::outbox(outbox, limit)?;
        self.ready().await?;
        self.messages(&self.space(namespace), outbox, after, limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.ready().await?;
        self.clear_all(&self.space(namespace)).await
    }

    /// In a cluster, of the server that holds the namespace that was used first.
    async fn health(&self) -> Health {
        if !self.was_used.load(Ordering::Acquire) && !self.is_closed.load(Ordering::Acquire) {
            let detail = "no connection to Redis was asked for yet".to_owned();
            return Health { status: HealthStatus::NeverConnected, detail, probe: None };
        }
        let start = self.clock.now();
        match self.probe().await {
            Ok(()) => Health::up("Redis takes writes").with_probe(self.clock.now().since(start)),
            Err(e) => Health::down(e.to_string()),
        }
    }

    /// `survives_power_cut` is only claimed once the server was asked for its settings, and never where another server may take over:
    /// that one may not have received what was answered.
    fn info(&self) -> StoreInfo {
        let fsync = self.redis.server().and_then(|server| server.fsync);
        StoreInfo {
            backend: "redis",
            survives_process: true,
            survives_power_cut: fsync == Some(Fsync::Always) && !self.redis.may_fail_over(),
            shared_between_processes: true,
            shared_between_hosts: true,
            uses_given_clock: false,
            limits: self.limits,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.is_closed.store(true, Ordering::Release);
        if self.owns_handle {
            self.redis.close();
        }
        Ok(())
    }
}

impl fmt::Debug for RedisStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStateStore").field("redis", &self.redis).finish_non_exhaustive()
    }
}

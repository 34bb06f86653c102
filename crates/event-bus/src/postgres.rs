//! Events in one PostgreSQL schema, shared by hosts.
//!
//! Each step is one call of a function in PL/pgSQL (`postgres/*.sql`) in auto-commit: one round trip, and no transaction that could stay open
//! between two of them. Which locks there are, and in which order they are taken: `postgres/tables.sql`.
//!
//! * **Places** come from the head row, which is locked first, so they are given in the order of the commits: whoever sees a place sees all
//!   smaller ones, and `seq > last` passes nothing by. A sequence would give places to transactions that commit later or never, and
//!   readers would have to stay behind the oldest open transaction of the whole server (`pg_snapshot_xmin`), which one forgotten session
//!   holds back for hours. The price is that appends happen one by one, each as long as its commit; so those of a process share one
//!   (`postgres/line.rs`).
//! * **Lending** never waits for appends nor for other consumers: an append only lays rows out, and the next claim tells the lanes of them; the
//!   lanes of a group are dealt to stripes by the hash of their keys, and a claim passes over stripes that are locked (`SKIP LOCKED`).
//!   All changes of a lane happen under the lock of its stripe, so a key's order cannot break.
//! * **Who wants an event** is found by `LIKE`, which is the crate's grammar in other letters.

mod lend;
mod line;
mod wire;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use infra_backends::{BackendError, PgSchema, Postgres, PostgresSignal};
use infra_types::{Clock, ErrorKind, EventId, Health, HealthStatus, Timestamp};
use sqlx::postgres::PgRow;

use self::line::{BATCH_EVENTS_MAX, GROUP_BYTES_MAX, Line};
use crate::{
    Bus, BusConfig, BusError, BusInfo, DeadLetter, DelayPlace, DelayedEvent, GroupStatus, Limits, StartFrom,
    TimeSource,
    broker::{
        Append, Appended, Broker, Claim, Claims, GroupNames, GroupSpec, Listener, PAGE_MAX, Page, Progress, Record,
        Seq, Settle, Settled, Shards, Signal,
    },
    lost_claims::LostClaims,
};

static SCHEMA: PgSchema = PgSchema {
    component: "bus",
    steps: &[concat!(
        include_str!("postgres/tables.sql"),
        include_str!("postgres/store.sql"),
        include_str!("postgres/group.sql"),
        include_str!("postgres/settle.sql"),
        include_str!("postgres/claim.sql"),
    )],
};

/// Events of a removed group that are taken away in one statement.
const CLEAN_MAX: i32 = 2_000;

/// A bus whose stored events are in a PostgreSQL schema. Closing the bus leaves the handle open: others may share it.
pub type PostgresEventBus = Bus<PostgresBroker>;

impl PostgresEventBus {
    /// A bus with the default [`BusConfig`]. No I/O happens here.
    #[must_use]
    pub fn new(postgres: Postgres, clock: Arc<dyn Clock>) -> Self {
        Self::with_config(postgres, clock, BusConfig::default())
    }

    /// A bus. For a durable one, give [`Bus::with_broker`] a [`PostgresBroker`]. No I/O happens here.
    #[must_use]
    pub fn with_config(postgres: Postgres, clock: Arc<dyn Clock>, config: BusConfig) -> Self {
        Self::with_broker(PostgresBroker::new(postgres, config.limits), clock, config)
    }
}

/// Keeps events in the `bus_` tables of a PostgreSQL schema; those of one schema are one bus. Each method is one statement; appends of one
/// process that come together share one.
///
/// An appended event is as safe as the server keeps its commits: see [`BusInfo`] and [`durable`](Self::durable). Appends of all
/// processes happen one by one; what is independent and busy belongs in schemas of its own. An append that waits for longer than the
/// operation timeout is refused with kind `Transient`, and nothing was stored. A group that begins with `Earliest` is laid out in one
/// statement: where more than some 100,000 events are kept, give the handle an operation timeout of more than the default 2 s.
pub struct PostgresBroker {
    postgres: Postgres,
    limits: Limits,
    time: TimeSource,
    is_durable: bool,
    /// Where commits are told.
    channel: Arc<str>,
    line: Arc<Line>,
    claims: LostClaims,
    /// Whether the server waits for its disk before it answers; told by the first use.
    holds: OnceLock<bool>,
    /// The newest place that an answer named, and whether a later answer named an older one as newest.
    newest_seen: AtomicU64,
    has_lost: AtomicBool,
    was_used: AtomicBool,
}

impl fmt::Debug for PostgresBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.postgres.config();
        let (target, schema) = (config.target(), &config.schema);
        let mut s = f.debug_struct("PostgresBroker");
        s.field("target", &target).field("schema", schema).field("time", &self.time).finish_non_exhaustive()
    }
}

impl PostgresBroker {
    /// A store on a handle that others may use as well. No I/O happens here.
    #[must_use]
    pub fn new(postgres: Postgres, limits: Limits) -> Self {
        // A schema's name has 31 bytes at most, a channel's 63.
        let channel: Arc<str> = format!("infra_bus:{}", postgres.config().schema).into();
        Self {
            line: Arc::new(Line::new(postgres.clone(), channel.clone(), limits)),
            postgres,
            limits,
            time: TimeSource::default(),
            is_durable: false,
            channel,
            claims: LostClaims::default(),
            holds: OnceLock::new(),
            newest_seen: AtomicU64::new(0),
            has_lost: AtomicBool::new(false),
            was_used: AtomicBool::new(false),
        }
    }

    /// Sets whose clock counts.
    #[must_use]
    pub fn with_time_source(mut self, time: TimeSource) -> Self {
        self.time = time;
        self
    }

    /// Refuses to lose an answered publish: a server that does not wait for its disk (`fsync`, `full_page_writes` or `synchronous_commit`
    /// is `off`) is refused. What a failover loses is decided by the server's `synchronous_standby_names`, which is not looked at.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }

    async fn ready(&self) -> Result<(), BusError> {
        self.was_used.store(true, Ordering::Relaxed);
        self.postgres.ready(&SCHEMA).await?;
        let holds = match self.holds.get() {
            Some(holds) => *holds,
            None => {
                let sql = "SELECT current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'
                           AND current_setting('synchronous_commit') <> 'off' AS holds";
                let rows = self.postgres.read(|| sqlx::query(sql)).await?;
                let holds = wire::get(wire::only(&rows)?, "holds")?;
                *self.holds.get_or_init(|| holds)
            }
        };
        if self.is_durable && !holds {
            let found = "fsync, full_page_writes or synchronous_commit off".into();
            return Err(BackendError::NotDurable { found, needed: "all three other than off".into() }.into());
        }
        Ok(())
    }

    /// Places only grow. A server that answers `newest` to a question that was asked when `seen` was known has lost what lay between: it
    /// kept too little on its disk, or took over from another and had not received it.
    fn check_newest(&self, seen: Seq, newest: Seq) {
        if newest < seen {
            self.has_lost.store(true, Ordering::SeqCst);
        }
        self.newest_seen.fetch_max(newest, Ordering::SeqCst);
    }

    async fn append_part(&self, part: Vec<Append>) -> Result<Vec<Result<Appended, BusError>>, BusError> {
        self.ready().await?;
        let seen = self.newest_seen.load(Ordering::SeqCst);
        let answers = self.line.append(part).await?;
        let new = answers.iter().flatten().filter(|a| !a.duplicate).filter_map(|a| a.seq);
        if let Some(newest) = new.max() {
            // Equal would be old as well: it is a new place.
            self.check_newest(seen + 1, newest);
        }
        Ok(answers)
    }

    /// Dead letters of a group, at most [`PAGE_MAX`], as rows: those behind a place, or these.
    async fn dead_rows(
        &self,
        group: &str,
        after: Seq,
        limit: usize,
        these: Option<&[Seq]>,
    ) -> Result<Vec<PgRow>, BusError> {
        let sql = "SELECT b.* FROM bus_group g LEFT JOIN LATERAL (
                       SELECT * FROM bus_dead d
                       WHERE d.group_id = g.id AND d.seq > $2 AND ($4::bigint[] IS NULL OR d.seq = ANY ($4))
                       ORDER BY d.seq LIMIT $3) AS b ON true
                   WHERE g.name = $1 ORDER BY b.seq";
        self.ready().await?;
        let these: Option<Vec<i64>> = these.map(|seqs| seqs.iter().copied().map(wire::to_sql).collect());
        let limit = wire::to_sql(limit.min(PAGE_MAX) as u64);
        let query = || sqlx::query(sql).bind(group).bind(wire::to_sql(after)).bind(limit).bind(these.clone());
        let mut rows = self.postgres.read(query).await?;
        let first = rows.first().ok_or_else(|| BusError::NoGroup { group: group.into() })?;
        if wire::get::<Option<i64>>(first, "seq")?.is_none() {
            rows.clear();
        }
        Ok(rows)
    }

    /// Takes away what removed groups had still to do, a part at a time. If it fails, the next call goes on.
    async fn clean(&self) {
        loop {
            let query = sqlx::query("SELECT bus_clean($1) AS has_more").bind(CLEAN_MAX);
            let Ok(rows) = self.postgres.write(query).await else { return };
            let has_more = wire::only(&rows).and_then(|row| wire::get::<bool>(row, "has_more"));
            if !has_more.unwrap_or(false) {
                return;
            }
        }
    }

    async fn probe(&self) -> Result<(), BusError> {
        self.ready().await?;
        let seen = self.newest_seen.load(Ordering::SeqCst);
        // Only a write tells a full disk or a server that lost its rank.
        let sql = "UPDATE bus_probe SET count = count + 1 WHERE one = 1
                   RETURNING (SELECT h.newest FROM bus_head h WHERE h.one = 1) AS newest";
        let rows = self.postgres.write(sqlx::query(sql)).await?;
        self.check_newest(seen, wire::unsigned(wire::only(&rows)?, "newest")?);
        Ok(())
    }
}

/// How many events go into one statement.
fn part(events: &[Append]) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take(BATCH_EVENTS_MAX).take_while(|event| {
        bytes += event.envelope.data.len();
        bytes <= GROUP_BYTES_MAX
    });
    fits.count().max(1).min(events.len())
}

#[async_trait]
impl Broker for PostgresBroker {
    /// `survives_power_cut` is only claimed once the server was asked for its settings, which the first use does.
    fn info(&self) -> BusInfo {
        BusInfo {
            backend: "postgres",
            survives_process: true,
            survives_power_cut: self.holds.get().copied().unwrap_or(false),
            shared_between_processes: true,
            live_between_processes: false,
            limits: self.limits,
        }
    }

    async fn append(&self, mut events: Vec<Append>) -> Vec<Result<Appended, BusError>> {
        let count = events.len();
        let mut answers = Vec::with_capacity(count);
        while !events.is_empty() {
            let rest = events.split_off(part(&events));
            let sent = std::mem::replace(&mut events, rest);
            let sent_count = sent.len();
            match self.append_part(sent).await {
                Ok(stored) => answers.extend(stored),
                Err(e) => {
                    // What comes later must not overtake what may be missing.
                    let not_sent = BusError::Backend {
                        message: "an earlier part of the batch failed, so this one was not sent: try again".into(),
                        kind: ErrorKind::Transient,
                    };
                    answers.extend((0..sent_count).map(|_| Err(e.clone())));
                    answers.resize_with(count, || Err(not_sent.clone()));
                    break;
                }
            }
        }
        answers
    }

    async fn delay(&self, event: Append, until: Timestamp, now: Timestamp) -> Result<Appended, BusError> {
        self.ready().await?;
        let envelope = &event.envelope;
        let query = sqlx::query(
            "SELECT * FROM bus_delay($1, ROW($2::text, $3::text, $4::bytea, $5::bytea, $6::bytea, $7::bigint, $8::bytea, $9::text,
                 $10::bytea, $11::bytea, $12::boolean, $13::bigint)::bus_envelope, $14, $15, $16, $17)",
        );
        let query = query
            .bind(&*self.channel)
            .bind(envelope.id.as_str())
            .bind(envelope.topic.as_str())
            .bind(envelope.key.as_bytes())
            .bind(envelope.source.as_bytes())
            .bind(envelope.kind.as_bytes())
            .bind(envelope.time.as_nanos())
            .bind(envelope.content_type.as_bytes())
            .bind(envelope.correlation.to_string())
            .bind(envelope.traceparent.as_ref().map(String::as_bytes))
            .bind(envelope.data.as_ref())
            .bind(event.is_priority)
            .bind(i64::from(Shards::hash(&envelope.key)))
            .bind(wire::nanos(until))
            .bind(wire::nanos(now))
            .bind(self.is_server())
            .bind(wire::to_sql(self.limits.delayed_max));
        let rows = self.postgres.write(query).await?;
        let row = wire::only(&rows)?;
        match wire::get::<i32>(row, "answer")? {
            0 => Ok(Appended { seq: None, duplicate: false, evicted: 0 }),
            1 => {
                let seq: Option<i64> = wire::get(row, "seq")?;
                let seq = seq.map(u64::try_from).transpose().map_err(wire::unreadable)?;
                Ok(Appended { seq, duplicate: true, evicted: 0 })
            }
            _ => Err(BusError::DelayFull { waiting: wire::unsigned(row, "waiting")? }),
        }
    }

    async fn open_group(&self, spec: GroupSpec) -> Result<(), BusError> {
        self.ready().await?;
        let query = sqlx::query("SELECT bus_open($1, $2, $3, $4) AS pattern")
            .bind(&*spec.name)
            .bind(spec.pattern.as_str())
            .bind(wire::likes(&spec.pattern))
            .bind(spec.from == StartFrom::Earliest);
        let rows = self.postgres.write(query).await?;
        let (stored, asked) = (wire::get::<String>(wire::only(&rows)?, "pattern")?, spec.pattern.to_string());
        self.clean().await;
        if stored == asked {
            return Ok(());
        }
        Err(BusError::GroupDiffers { group: spec.name.as_ref().into(), stored, asked })
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.ready().await?;
        let rows = self.postgres.write(sqlx::query("SELECT bus_remove($1) AS was_there").bind(group)).await?;
        let was_there = wire::get(wire::only(&rows)?, "was_there")?;
        self.clean().await;
        Ok(was_there)
    }

    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
        self.ready().await?;
        let query =
            sqlx::query("SELECT bus_take_over($1, $2, $3) AS taken").bind(group).bind(consumer).bind(incarnation);
        let rows = self.postgres.write(query).await?;
        let taken: Option<i64> = wire::get(wire::only(&rows)?, "taken")?;
        u64::try_from(taken.ok_or_else(|| BusError::NoGroup { group: group.into() })?).map_err(wire::unreadable)
    }

    async fn claim(&self, claim: Claim) -> Result<Claims, BusError> {
        self.lend(&claim).await
    }

    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        ends: Vec<Settle>,
    ) -> Result<Settled, BusError> {
        self.end(group, incarnation, now, &ends).await
    }

    async fn extend(
        &self,
        group: &str,
        incarnation: &str,
        until: Timestamp,
        claims: Vec<(Seq, u32)>,
    ) -> Result<(), BusError> {
        self.ready().await?;
        let attempts = claims.iter().map(|(_, attempt)| i32::try_from(*attempt).unwrap_or(i32::MAX));
        let query = sqlx::query("SELECT bus_extend($1, $2, $3, $4, $5, $6) AS is_there")
            .bind(group)
            .bind(incarnation)
            .bind(wire::nanos(until))
            .bind(self.is_server())
            .bind(claims.iter().map(|(seq, _)| wire::to_sql(*seq)).collect::<Vec<_>>())
            .bind(attempts.collect::<Vec<_>>());
        let rows = self.postgres.write(query).await?;
        if wire::get::<bool>(wire::only(&rows)?, "is_there")? {
            return Ok(());
        }
        Err(BusError::NoGroup { group: group.into() })
    }

    async fn progress(&self, group: &str, through: Option<Seq>) -> Result<Progress, BusError> {
        let sql = "SELECT h.newest, EXISTS (SELECT FROM bus_delivery d WHERE d.group_id = g.id AND d.seq <= coalesce($2, h.newest))
                       AS is_pending
                   FROM bus_group g, bus_head h WHERE g.name = $1 AND h.one = 1";
        self.ready().await?;
        let seen = self.newest_seen.load(Ordering::SeqCst);
        let rows = self.postgres.read(|| sqlx::query(sql).bind(group).bind(through.map(wire::to_sql))).await?;
        let row = rows.first().ok_or_else(|| BusError::NoGroup { group: group.into() })?;
        let newest = wire::unsigned(row, "newest")?;
        self.check_newest(seen, newest);
        Ok(Progress { through: through.unwrap_or(newest), is_pending: wire::get(row, "is_pending")? })
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        let sql =
            "SELECT g.laid - (SELECT sum(s.settled) FROM bus_stripe s WHERE s.group_id = g.id)::bigint AS pending,
                       (SELECT e.time_ns FROM bus_event e WHERE e.seq =
                           (SELECT d.seq FROM bus_delivery d WHERE d.group_id = g.id ORDER BY d.seq LIMIT 1)) AS oldest,
                       (SELECT count(*) FROM bus_dead b WHERE b.group_id = g.id) AS dead_letters
                   FROM bus_group g WHERE g.name = $1";
        self.ready().await?;
        let rows = self.postgres.read(|| sqlx::query(sql).bind(group)).await?;
        let row = rows.first().ok_or_else(|| BusError::NoGroup { group: group.into() })?;
        let oldest: Option<i64> = wire::get(row, "oldest")?;
        Ok(GroupStatus {
            pending: wire::unsigned(row, "pending")?,
            oldest: oldest.map(Timestamp::from_nanos),
            dead_letters: wire::unsigned(row, "dead_letters")?,
        })
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupNames>, BusError> {
        let sql = "SELECT g.name, g.pattern,
                       ARRAY(SELECT c.name FROM bus_consumer c WHERE c.group_id = g.id ORDER BY c.name) AS consumers
                   FROM bus_group g WHERE g.name > $1 ORDER BY g.name LIMIT $2";
        self.ready().await?;
        let limit = wire::to_sql(limit as u64);
        let rows = self.postgres.read(|| sqlx::query(sql).bind(after.to_owned()).bind(limit)).await?;
        let names = |row| {
            let (name, pattern) = (wire::get(row, "name")?, wire::get(row, "pattern")?);
            Ok(GroupNames { name, pattern, consumers: wire::get(row, "consumers")? })
        };
        rows.iter().map(names).collect()
    }

    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        let sql = "SELECT d.until_ns, d.no, (d.event).id AS id, (d.event).topic AS topic, (d.event).key AS key
                   FROM bus_delayed d WHERE (d.until_ns, d.no) > ($1, $2) ORDER BY d.until_ns, d.no LIMIT $3";
        self.ready().await?;
        let (until, number) = after.map_or((-1, 0), |at| (at.until.as_nanos(), wire::to_sql(at.number)));
        let limit = wire::to_sql(limit as u64);
        let rows = self.postgres.read(|| sqlx::query(sql).bind(until).bind(number).bind(limit)).await?;
        let one = |row| {
            let until = Timestamp::from_nanos(wire::get(row, "until_ns")?);
            let place = DelayPlace { until, number: wire::unsigned(row, "no")? };
            let key = String::from_utf8_lossy(&wire::get::<Vec<u8>>(row, "key")?).into_owned();
            Ok(DelayedEvent { place, id: wire::get(row, "id")?, topic: wire::get(row, "topic")?, key })
        };
        rows.iter().map(one).collect()
    }

    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        self.ready().await?;
        let query = sqlx::query("SELECT bus_cancel($1) AS was_delayed").bind(id.as_str());
        wire::get(wire::only(&self.postgres.write(query).await?)?, "was_delayed")
    }

    async fn dead_letters(&self, group: &str, after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        let (mut letters, mut after) = (Vec::new(), after);
        loop {
            let count = (limit - letters.len()).min(PAGE_MAX);
            let rows = self.dead_rows(group, after, count, None).await?;
            for row in &rows {
                letters.push(wire::dead_letter(group, row)?);
            }
            after = letters.last().map_or(after, |letter| letter.seq);
            if rows.len() < PAGE_MAX || letters.len() >= limit {
                return Ok(letters);
            }
        }
    }

    async fn redrive(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        // What cannot be read here could not be handled either.
        let rows = self.dead_rows(group, 0, PAGE_MAX, Some(letters)).await?;
        let readable = rows.iter().filter(|row| wire::envelope(row).is_ok()).map(|row| wire::get::<i64>(row, "seq"));
        let readable = readable.collect::<Result<Vec<_>, _>>()?;
        let asked: Vec<i64> = letters.iter().copied().map(wire::to_sql).filter(|seq| readable.contains(seq)).collect();
        let query = sqlx::query("SELECT * FROM bus_redrive($1, $2, $3, $4)")
            .bind(&*self.channel)
            .bind(group)
            .bind(asked)
            .bind(wire::to_sql(self.limits.backlog_max));
        let rows = self.postgres.write(query).await?;
        let row = wire::only(&rows)?;
        if !wire::get::<bool>(row, "is_there")? {
            return Err(BusError::NoGroup { group: group.into() });
        }
        match wire::get::<Option<i64>>(row, "waiting")? {
            Some(waiting) => {
                let pending = u64::try_from(waiting).map_err(wire::unreadable)?;
                Err(BusError::BacklogFull { group: group.into(), pending })
            }
            None => wire::unsigned(row, "moved"),
        }
    }

    async fn purge(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        let sql = "WITH gone AS (
                       DELETE FROM bus_dead WHERE group_id = (SELECT g.id FROM bus_group g WHERE g.name = $1) AND seq = ANY (ARRAY(
                           SELECT d.seq FROM bus_dead d JOIN bus_group g ON g.id = d.group_id
                           WHERE g.name = $1 AND d.seq = ANY ($2) ORDER BY d.seq FOR UPDATE OF d))
                       RETURNING 1)
                   SELECT (SELECT count(*) FROM gone) AS gone FROM bus_group WHERE name = $1";
        self.ready().await?;
        let seqs: Vec<i64> = letters.iter().copied().map(wire::to_sql).collect();
        let rows = self.postgres.write(sqlx::query(sql).bind(group).bind(seqs)).await?;
        let row = rows.first().ok_or_else(|| BusError::NoGroup { group: group.into() })?;
        wire::unsigned(row, "gone")
    }

    async fn history(&self, after: Seq, limit: usize) -> Result<Page, BusError> {
        let sql = "SELECT h.newest, e.* FROM bus_head h LEFT JOIN LATERAL (
                       SELECT * FROM bus_event k WHERE k.seq > $1 AND NOT k.is_copy ORDER BY k.seq LIMIT $2) AS e ON true
                   WHERE h.one = 1 ORDER BY e.seq";
        self.ready().await?;
        let limit = wire::to_sql(limit.min(PAGE_MAX) as u64);
        let seen = self.newest_seen.load(Ordering::SeqCst);
        let rows = self.postgres.read(|| sqlx::query(sql).bind(wire::to_sql(after)).bind(limit)).await?;
        let newest = wire::unsigned(wire::only(&rows)?, "newest")?;
        self.check_newest(seen, newest);
        let mut page = Page { records: Vec::with_capacity(rows.len()), newest };
        for row in &rows {
            if let Some(seq) = wire::get::<Option<i64>>(row, "seq")? {
                let seq = u64::try_from(seq).map_err(wire::unreadable)?;
                page.records.push(Record { seq, envelope: wire::envelope(row).ok().map(Arc::new) });
            }
        }
        Ok(page)
    }

    /// `NOTIFY` says only that something was committed, and may be lost: after each interruption it is `Stored` as well.
    async fn listen(&self, listener: Listener) {
        let Ok(mut ear) = self.postgres.listen(&self.channel) else { return };
        loop {
            match ear.next().await {
                PostgresSignal::Listening | PostgresSignal::Notified => listener(Signal::Stored).await,
                // Nothing goes over this channel but wake-ups, and the poll goes on behind them.
                PostgresSignal::Gap { .. } => {}
                PostgresSignal::Failed(BackendError::Closed) => return,
                PostgresSignal::Failed(_) => {}
            }
        }
    }

    async fn health(&self) -> Health {
        let target = self.postgres.config().target();
        if !self.was_used.load(Ordering::Relaxed) {
            let detail = format!("{target} was not used yet");
            return Health { status: HealthStatus::NeverConnected, detail, probe: None };
        }
        match self.probe().await {
            Ok(()) if self.has_lost.load(Ordering::SeqCst) => Health::degraded(
                "the server lost events that it had acknowledged: compare with the truth, then restart this process",
            ),
            Ok(()) => Health::up(format!("{target} takes writes")),
            Err(e) => Health::down(e.to_string()),
        }
    }
}

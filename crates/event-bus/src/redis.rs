//! Events in Redis: one server, a primary behind sentinels, or a cluster.
//!
//! Each step of a broker is one script and so one round trip. How keys are laid out: `redis/keys.rs`.

mod append;
mod hand;
mod keys;
mod lend;
mod live;
mod post;
mod records;
mod scripts;
mod waits;
mod wire;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use infra_backends::{Access, BackendError, Fsync, Redis, RedisScript};
use infra_types::{Clock, ErrorKind, EventId, Health, HealthStatus, Timestamp};
use parking_lot::RwLock;
use redis::{Cmd, Value as Reply};

use self::{append::Groups, live::Live, post::Post, records::Records, waits::Waiters};
use crate::{
    Bus, BusConfig, BusError, BusInfo, DeadLetter, DelayPlace, DelayedEvent, GroupStatus, Limits, StartFrom,
    TimeSource,
    broker::{
        Append, Appended, Broker, Claim, Claims, GroupNames, GroupSpec, Listener, PAGE_MAX, Page, Progress, Record,
        Seq, Settle, Settled, Turn, Turned,
    },
    lost_claims::LostClaims,
};

/// The name of a bus that nobody named.
const NAME: &str = "events";
/// So few events wait for those of others while another call is on its way.
const TOGETHER_MAX: usize = 16;
/// Dead letters in one answer: each may hold a payload.
const DEAD_PAGE: usize = 32;

/// A bus whose stored events are in Redis. Closing the bus leaves the handle open: others may share it.
pub type RedisEventBus = Bus<RedisBroker>;

impl RedisEventBus {
    /// A bus with the default [`BusConfig`] and name. No I/O happens here.
    ///
    /// # Errors
    /// `Invalid` for a key prefix that holds `{` or `}`.
    pub fn new(redis: Redis, clock: Arc<dyn Clock>) -> Result<Self, BusError> {
        Self::with_config(redis, clock, BusConfig::default())
    }

    /// A bus with the default name. For another, or for a durable one, give [`Bus::with_broker`] a [`RedisBroker`]. No I/O happens here.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_config(redis: Redis, clock: Arc<dyn Clock>, config: BusConfig) -> Result<Self, BusError> {
        Ok(Self::with_broker(RedisBroker::new(redis, config.limits)?, clock, config))
    }
}

/// Keeps events in Redis, in a stream and what belongs to it. Each method is one script; reading dead letters takes one a page.
///
/// An appended event is as safe as the server keeps its writes: see [`BusInfo`] and [`durable`](Self::durable).
pub struct RedisBroker(Arc<Store>);

/// What a broker shares with the task that stores single events.
struct Store {
    redis: Redis,
    /// What all keys begin with.
    base: String,
    limits: Limits,
    time: TimeSource,
    is_durable: bool,
    groups: Latest,
    claims: LostClaims,
    waiters: Waiters,
    records: Records,
    /// This broker, among all: what is handed over to it is told on a channel of this name.
    program: String,
    /// Whether this user may tell others what is handed over to them.
    may_tell: AtomicBool,
    live: Live,
    post: Post,
    /// The newest place that an answer named, and whether a later answer named an older one as newest.
    newest_seen: AtomicU64,
    has_lost: AtomicBool,
    was_used: AtomicBool,
    /// Whether the server was asked what this user may do.
    is_checked: AtomicBool,
}

/// The groups as they were last seen.
#[derive(Debug, Default)]
struct Latest(RwLock<Arc<Groups>>);

impl Latest {
    fn load(&self) -> Arc<Groups> {
        self.0.read().clone()
    }

    fn store(&self, groups: Arc<Groups>) {
        *self.0.write() = groups;
    }
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("RedisBroker");
        s.field("redis", &self.0.redis).field("base", &self.0.base).field("time", &self.0.time).finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// A store on a handle that others may use as well. No I/O happens here.
    ///
    /// # Errors
    /// `Invalid` for a key prefix that holds `{` or `}`.
    pub fn new(redis: Redis, limits: Limits) -> Result<Self, BusError> {
        let base = keys::base(redis.key_prefix(), NAME)?;
        Ok(Self(Arc::new(Store {
            live: Live::new(redis.clone(), &base),
            base,
            redis,
            limits,
            time: TimeSource::default(),
            is_durable: false,
            groups: Latest::default(),
            claims: LostClaims::default(),
            waiters: Waiters::default(),
            records: Records::default(),
            program: EventId::generate().to_string(),
            may_tell: AtomicBool::new(false),
            post: Post::default(),
            newest_seen: AtomicU64::new(0),
            has_lost: AtomicBool::new(false),
            was_used: AtomicBool::new(false),
            is_checked: AtomicBool::new(false),
        })))
    }

    /// Before anybody else has it.
    fn change(mut self, how: impl FnOnce(&mut Store)) -> Self {
        if let Some(store) = Arc::get_mut(&mut self.0) {
            how(store);
        }
        self
    }

    /// Names the bus: those of one name share their events, and each name is one slot of a Cluster.
    ///
    /// # Errors
    /// `Invalid` unless it is 1 to 64 printable characters without `{` and `}`.
    pub fn with_name(self, name: &str) -> Result<Self, BusError> {
        let base = keys::base(self.0.redis.key_prefix(), name)?;
        Ok(self.change(|store| {
            store.live = Live::new(store.redis.clone(), &base);
            store.base = base;
        }))
    }

    /// Sets whose clock counts.
    #[must_use]
    pub fn with_time_source(self, time: TimeSource) -> Self {
        self.change(|store| store.time = time)
    }

    /// Refuses to lose an answered publish: a server without `appendonly yes` and `appendfsync always` is refused, and so is everything
    /// after another server (or the same after a restart) took over, until [`acknowledge_failover`](Self::acknowledge_failover).
    #[must_use]
    pub fn durable(self) -> Self {
        self.change(|store| {
            store.redis = store.redis.guarded();
            store.is_durable = true;
        })
    }

    /// Lets a [durable](Self::durable) store go on after a failover: call it when it was compared with the truth elsewhere.
    pub fn acknowledge_failover(&self) {
        self.0.redis.accept_failover();
    }
}

impl Store {
    async fn ready(&self) -> Result<(), BusError> {
        self.was_used.store(true, Ordering::Relaxed);
        if !self.is_checked.load(Ordering::Acquire) {
            let mut call = scripts::RIGHTS.call(1);
            call.arg(&self.base);
            let (word, mut rest) = wire::answer(self.script(&scripts::RIGHTS, &call, Access::Read).await?)?;
            if word == "layout" {
                let found = wire::text(rest.next())?;
                let message = format!(
                    "the bus at {}* is laid out as version {found}, and this program reads version {}: let the program that wrote it finish its events, then remove these keys, or give this bus another name",
                    self.base,
                    keys::LAYOUT
                );
                return Err(BusError::Backend { message, kind: ErrorKind::Unsupported });
            }
            if word != "ok" {
                let reason = format!("{} on keys {}*", wire::text(rest.next())?, self.base);
                return Err(BackendError::Denied { reason }.into());
            }
            self.may_tell.store(wire::int(rest.next())? == 1, Ordering::Relaxed);
            self.is_checked.store(true, Ordering::Release);
        }
        let fsync = self.fsync();
        if self.is_durable && fsync != Some(Fsync::Always) {
            let found = fsync.map_or_else(|| "an unknown setting".to_owned(), |fsync| fsync.to_string());
            return Err(BackendError::NotDurable { found, needed: Fsync::Always.to_string() }.into());
        }
        Ok(())
    }

    fn fsync(&self) -> Option<Fsync> {
        self.redis.server().and_then(|server| server.fsync)
    }

    async fn script(&self, script: &RedisScript, call: &Cmd, access: Access) -> Result<Reply, BusError> {
        Ok(self.redis.script(self.base.as_bytes(), script, call, access).await?)
    }

    /// Runs a script on a group, with its name as the first argument.
    async fn on_group(
        &self,
        script: &RedisScript,
        access: Access,
        group: &str,
        args: impl FnOnce(&mut Cmd),
    ) -> Result<(String, std::vec::IntoIter<Reply>), BusError> {
        self.ready().await?;
        let mut call = script.call(1);
        call.arg(&self.base).arg(group);
        args(&mut call);
        wire::answer(self.script(script, &call, access).await?)
    }

    fn expect_ok(&self, word: &str, group: &str) -> Result<(), BusError> {
        match word {
            "ok" => Ok(()),
            "nogroup" => Err(BusError::NoGroup { group: group.into() }),
            _ => Err(wire::unreadable()),
        }
    }

    /// Places only grow. A server that answers `newest` to a question that was asked when `seen` was known has lost what lay between: it
    /// kept too little on its disk, or took over from another and had not received it.
    fn check_newest(&self, seen: Seq, newest: Seq) {
        if newest < seen {
            self.has_lost.store(true, Ordering::SeqCst);
        }
        self.newest_seen.fetch_max(newest, Ordering::SeqCst);
    }

    async fn look(&self, group: &str, through: Option<Seq>) -> Result<Look, BusError> {
        let seen = self.newest_seen.load(Ordering::SeqCst);
        let args = |call: &mut Cmd| {
            match through {
                Some(through) => call.arg(through),
                None => call.arg(""),
            };
        };
        let (word, mut rest) = self.on_group(&scripts::LOOK, Access::Read, group, args).await?;
        self.expect_ok(&word, group)?;
        let mut next = || wire::unsigned(rest.next());
        let (newest, oldest, pending, dead_letters) = (next()?, next()?, next()?, next()?);
        self.check_newest(seen, newest);
        let time = wire::time_of(&wire::bytes(rest.next())?);
        Ok(Look { newest, oldest, pending, dead_letters, time })
    }

    /// Clears up behind groups that were removed, part by part; also behind those whose remover died meanwhile.
    async fn clean(&self) -> Result<(), BusError> {
        loop {
            let mut call = scripts::CLEAN.call(1);
            call.arg(&self.base);
            let (_, mut rest) = wire::answer(self.script(&scripts::CLEAN, &call, Access::Write).await?)?;
            if wire::int(rest.next())? == 0 {
                return Ok(());
            }
        }
    }

    fn source(&self) -> &'static str {
        match self.time {
            TimeSource::Server => "server",
            TimeSource::Bus => "bus",
        }
    }

    fn letters(call: &mut Cmd, letters: &[Seq]) {
        for letter in letters.iter().take(PAGE_MAX) {
            call.arg(*letter);
        }
    }
}

/// How a group stands.
#[derive(Debug)]
struct Look {
    newest: Seq,
    /// The place of the oldest event that is not done with; 0 if there is none.
    oldest: Seq,
    pending: u64,
    dead_letters: u64,
    /// When that event happened.
    time: Option<Timestamp>,
}

#[async_trait]
impl Broker for RedisBroker {
    /// `survives_power_cut` is only claimed once the server was asked for its settings, and never where another server may take over:
    /// that one may not have received what was answered.
    fn info(&self) -> BusInfo {
        BusInfo {
            backend: "redis",
            survives_process: true,
            survives_power_cut: self.0.fsync() == Some(Fsync::Always) && !self.0.redis.may_fail_over(),
            shared_between_processes: true,
            live_between_processes: true,
            limits: self.0.limits,
        }
    }

    async fn append(&self, events: Vec<Append>) -> Vec<Result<Appended, BusError>> {
        if events.len() > TOGETHER_MAX {
            self.0.append_all(&events).await
        } else {
            self.0.append_together(events).await
        }
    }

    async fn delay(&self, event: Append, until: Timestamp, now: Timestamp) -> Result<Appended, BusError> {
        self.0.keep_back(&event, until, now).await
    }

    async fn open_group(&self, spec: GroupSpec) -> Result<(), BusError> {
        let from = match spec.from {
            StartFrom::New => "new",
            StartFrom::Earliest => "earliest",
        };
        let args = |call: &mut Cmd| _ = call.arg(spec.pattern.as_str()).arg(from);
        self.0.ready().await?;
        self.0.clean().await?;
        let (word, mut rest) = loop {
            let (word, rest) = self.0.on_group(&scripts::OPEN, Access::Write, &spec.name, args).await?;
            if word != "more" {
                break (word, rest);
            }
        };
        if word != "there" {
            return self.0.expect_ok(&word, &spec.name);
        }
        let (stored, asked) = (wire::text(rest.next())?, spec.pattern.to_string());
        if stored == asked {
            return Ok(());
        }
        Err(BusError::GroupDiffers { group: spec.name.as_ref().into(), stored, asked })
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        let (word, _) = self.0.on_group(&scripts::REMOVE, Access::Write, group, |_| {}).await?;
        let was_there = word != "nogroup";
        if was_there {
            self.0.expect_ok(&word, group)?;
        }
        self.0.clean().await?;
        Ok(was_there)
    }

    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
        let args = |call: &mut Cmd| _ = call.arg(consumer).arg(incarnation);
        let (word, mut rest) = self.0.on_group(&scripts::TAKE_OVER, Access::Write, group, args).await?;
        self.0.expect_ok(&word, group)?;
        wire::unsigned(rest.next())
    }

    async fn claim(&self, claim: Claim) -> Result<Claims, BusError> {
        self.0.lend(Turn { ends: Vec::new(), claim, waits: None }).await?.claims
    }

    async fn turn(&self, turn: Turn) -> Result<Turned, BusError> {
        self.0.lend(turn).await
    }

    fn recall(&self, incarnation: &str) {
        self.0.waiters.recall(incarnation);
    }

    async fn withdraw(&self, group: &str, incarnation: &str) -> Result<(), BusError> {
        self.0.end_wait(group, incarnation).await
    }

    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        ends: Vec<Settle>,
    ) -> Result<Settled, BusError> {
        self.0.end(group, incarnation, now, &ends).await
    }

    async fn extend(
        &self,
        group: &str,
        incarnation: &str,
        until: Timestamp,
        claims: Vec<(Seq, u32)>,
    ) -> Result<(), BusError> {
        let args = |call: &mut Cmd| {
            call.arg(incarnation);
            match self.0.time {
                // The server prolongs by the lease that each claim was made with.
                TimeSource::Server => call.arg(""),
                TimeSource::Bus => call.arg(wire::ceil_us(until)),
            };
            for (seq, attempt) in claims {
                call.arg(seq).arg(attempt);
            }
        };
        let (word, _) = self.0.on_group(&scripts::EXTEND, Access::Write, group, args).await?;
        self.0.expect_ok(&word, group)
    }

    async fn progress(&self, group: &str, through: Option<Seq>) -> Result<Progress, BusError> {
        let look = self.0.look(group, through).await?;
        let through = through.unwrap_or(look.newest);
        Ok(Progress { through, is_pending: look.oldest > 0 && look.oldest <= through })
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        let look = self.0.look(group, None).await?;
        Ok(GroupStatus { pending: look.pending, oldest: look.time, dead_letters: look.dead_letters })
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupNames>, BusError> {
        self.0.ready().await?;
        let mut call = scripts::LIST.call(1);
        call.arg(&self.0.base);
        let (_, mut rest) = wire::answer(self.0.script(&scripts::LIST, &call, Access::Read).await?)?;
        let mut groups = Vec::new();
        for group in wire::array(rest.next())? {
            let mut group = wire::array(Some(group))?.into_iter();
            let (name, stored) = (wire::text(group.next())?, wire::text(group.next())?);
            let (_, pattern) = stored.split_once('\n').ok_or_else(wire::unreadable)?;
            let names = wire::array(group.next())?.into_iter().step_by(2).map(|name| wire::text(Some(name)));
            let mut consumers = names.collect::<Result<Vec<_>, _>>()?;
            consumers.sort_unstable();
            groups.push(GroupNames { name, pattern: pattern.to_owned(), consumers });
        }
        groups.retain(|group| group.name.as_str() > after);
        groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        groups.truncate(limit);
        Ok(groups)
    }

    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        self.0.ready().await?;
        let (until, number) = after.map_or((0, 0), |at| (wire::ceil_us(at.until), at.number));
        let mut call = scripts::DELAYED.call(1);
        call.arg(&self.0.base).arg(until).arg(number).arg(limit);
        let (_, mut rest) = wire::answer(self.0.script(&scripts::DELAYED, &call, Access::Read).await?)?;
        let one = |event| {
            let mut event = wire::array(Some(event))?.into_iter();
            let (until, number) = (wire::from_us(wire::int(event.next())?), wire::unsigned(event.next())?);
            let (id, topic, lane) = (wire::text(event.next())?, wire::text(event.next())?, wire::text(event.next())?);
            let key = lane.get(9..).unwrap_or_default().to_owned();
            Ok(DelayedEvent { place: DelayPlace { until, number }, id, topic, key })
        };
        wire::array(rest.next())?.into_iter().map(one).collect()
    }

    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        self.0.ready().await?;
        let mut call = scripts::CANCEL.call(1);
        call.arg(&self.0.base).arg(id.as_str());
        let (_, mut rest) = wire::answer(self.0.script(&scripts::CANCEL, &call, Access::Write).await?)?;
        Ok(wire::int(rest.next())? == 1)
    }

    async fn dead_letters(&self, group: &str, mut after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        let mut letters = Vec::new();
        loop {
            // Asked for none, it still says whether there is such a group.
            let count = (limit - letters.len()).min(DEAD_PAGE);
            let args = |call: &mut Cmd| _ = call.arg(after).arg(count);
            let (word, mut rest) = self.0.on_group(&scripts::DEAD, Access::Read, group, args).await?;
            self.0.expect_ok(&word, group)?;
            let page = wire::array(rest.next())?;
            let is_last = page.len() < count || count == 0;
            for letter in page {
                let letter = wire::dead_letter(letter, group)?;
                after = letter.seq;
                letters.push(letter);
            }
            if is_last {
                return Ok(letters);
            }
        }
    }

    async fn redrive(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        let args = |call: &mut Cmd| {
            call.arg(self.0.limits.backlog_max);
            Store::letters(call, letters);
        };
        let (word, mut rest) = self.0.on_group(&scripts::REDRIVE, Access::Write, group, args).await?;
        if word == "full" {
            return Err(BusError::BacklogFull { group: group.into(), pending: wire::unsigned(rest.next())? });
        }
        self.0.expect_ok(&word, group)?;
        wire::unsigned(rest.next())
    }

    async fn purge(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        let args = |call: &mut Cmd| Store::letters(call, letters);
        let (word, mut rest) = self.0.on_group(&scripts::PURGE, Access::Write, group, args).await?;
        self.0.expect_ok(&word, group)?;
        wire::unsigned(rest.next())
    }

    async fn history(&self, mut after: Seq, limit: usize) -> Result<Page, BusError> {
        self.0.ready().await?;
        let mut page = Page::default();
        loop {
            let mut call = scripts::HISTORY.call(1);
            call.arg(&self.0.base).arg(after).arg(limit - page.records.len());
            let (_, mut rest) = wire::answer(self.0.script(&scripts::HISTORY, &call, Access::Read).await?)?;
            page.newest = page.newest.max(wire::unsigned(rest.next())?);
            for record in wire::array(rest.next())? {
                let mut record = wire::array(Some(record))?.into_iter();
                let seq = wire::unsigned(record.next())?;
                let stored = wire::Stored::new(record.next(), record.next())?;
                page.records.push(Record { seq, envelope: stored.envelope().ok().map(Arc::new) });
                after = seq;
            }
            // Large events come in several answers.
            if wire::int(rest.next())? == 0 || page.records.len() >= limit {
                return Ok(page);
            }
        }
    }

    async fn send_live(&self, event: &Append) -> Result<(), BusError> {
        self.0.live.send(event).await
    }

    async fn flush(&self) {
        self.0.live.flush().await;
    }

    async fn listen(&self, listener: Listener) {
        tokio::join!(self.0.live.listen(listener), self.0.hear_handed());
    }

    async fn health(&self) -> Health {
        if !self.0.was_used.load(Ordering::Relaxed) {
            let detail = "no connection to Redis was asked for yet".to_owned();
            return Health { status: HealthStatus::NeverConnected, detail, probe: None };
        }
        // Only a write tells a full memory or a primary that lost its rank.
        let key = format!("{}probe", self.0.base);
        let mut both = redis::pipe();
        both.cmd("SET").arg(&key).arg(1).arg("PX").arg(60_000);
        both.cmd("HGET").arg(format!("{}meta", self.0.base)).arg("numbers");
        let seen = self.0.newest_seen.load(Ordering::SeqCst);
        let probe = async {
            self.0.ready().await?;
            let mut answers = self.0.redis.pipeline(key.as_bytes(), &both, Access::Write).await?.into_iter();
            answers.next().transpose()?;
            Ok::<_, BusError>(answers.next().transpose()?)
        };
        match probe.await {
            Ok(newest) => {
                let newest = match newest {
                    Some(Reply::BulkString(numbers)) => wire::first_number(&numbers),
                    _ => 0,
                };
                self.0.check_newest(seen, newest);
                if self.0.has_lost.load(Ordering::SeqCst) {
                    return Health::degraded(
                        "the server lost events that it had acknowledged: compare with the truth, then restart this process",
                    );
                }
                Health::up("Redis takes writes")
            }
            Err(e) => Health::down(e.to_string()),
        }
    }
}

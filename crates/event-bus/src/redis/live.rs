//! Live events between processes, by pub/sub: one channel for priority topics and one for all others, so that those are in nobody's way. A message
//! carries as many events as were waiting when it was made.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use infra_backends::{Access, Redis, RedisMessage};
use infra_types::{Clock, ErrorKind, SystemClock};
use parking_lot::Mutex;
use redis::Value as Reply;
use tokio::sync::{Notify, mpsc};

use super::wire;
use crate::{
    BusError,
    broker::{Append, Listener, Signal},
};

/// Events that wait to be sent on one channel.
const QUEUE_MAX: usize = 4_096;
/// Events and bytes of one message, but for a larger event.
const EVENTS_MAX: usize = 64;
const BYTES_MAX: usize = 256 << 10;
/// For so long after a message was sent that nobody else heard, none is sent. Whoever begins to listen takes nothing for as long, so that what
/// he gets has no hole: whatever was not sent because of a question from before he listened is past by then.
const ALONE: Duration = Duration::from_millis(100);
/// Between attempts while the server is out of reach.
const PAUSE: Duration = Duration::from_millis(50);
/// A message begins with its sender, its number, and whether the sender has stored something since the one before.
const HEADER: usize = 17;

/// One of the two ways.
#[derive(Debug)]
struct Way {
    channel: Vec<u8>,
    /// Events that were taken and are not on their way.
    waiting: AtomicU64,
    /// Told when `waiting` falls to 0, and when `is_down` changes.
    progress: Notify,
    /// The last attempt failed: the queue takes what it has room for and no more.
    is_down: AtomicBool,
    /// Events that were lost after they had been taken, and that nobody was told of.
    owed: AtomicU64,
    /// Nobody but this process listens, up to this moment (nanoseconds of the machine's clock).
    alone_until: AtomicU64,
    own: Mutex<Own>,
}

/// Whether the only one who heard a message was this process: it was if it heard it. That it believes to listen is not enough, since it may
/// learn late that it was cut off.
#[derive(Debug, Default)]
struct Own {
    /// The number of the last message that one connection heard, and when it was sent.
    heard_by_one: (u64, u64),
    /// The number of the last own message that came back.
    came_back: u64,
}

/// Live events of this process and of the others.
#[derive(Debug)]
pub(super) struct Live {
    redis: Redis,
    /// This broker, among all.
    me: [u8; 8],
    /// All others, and those with priority.
    ways: [Arc<Way>; 2],
    /// To the task of each way, which ends when these do.
    queues: [OnceLock<mpsc::Sender<Append>>; 2],
    has_stored: Arc<AtomicBool>,
}

fn clock() -> u64 {
    u64::try_from(SystemClock.now().since(infra_types::Monotonic::default()).as_nanos()).unwrap_or(u64::MAX)
}

impl Way {
    fn new(channel: String) -> Arc<Self> {
        Arc::new(Self {
            channel: channel.into_bytes(),
            waiting: AtomicU64::new(0),
            progress: Notify::new(),
            is_down: AtomicBool::new(false),
            owed: AtomicU64::new(0),
            alone_until: AtomicU64::new(0),
            own: Mutex::default(),
        })
    }

    /// So many heard a message.
    fn was_heard(&self, number: u64, sent_at: u64, by: u64) {
        if by == 0 {
            self.set_alone(sent_at);
        } else if by == 1 {
            let mut own = self.own.lock();
            own.heard_by_one = (number, sent_at);
            if own.came_back == number {
                self.set_alone(sent_at);
            }
        }
    }

    /// A message of this process came back to it.
    fn came_back(&self, number: u64) {
        let mut own = self.own.lock();
        own.came_back = number;
        if own.heard_by_one.0 == number {
            self.set_alone(own.heard_by_one.1);
        }
    }

    /// From when it was sent: the answer may be late, and somebody may listen since.
    fn set_alone(&self, sent_at: u64) {
        self.alone_until.store(sent_at.saturating_add(ALONE.as_nanos() as u64), Relaxed);
    }

    fn is_alone(&self) -> bool {
        self.alone_until.load(Relaxed) > clock()
    }

    /// Says that `n` events are sent, or will never be.
    fn finished(&self, n: usize) {
        if self.waiting.fetch_sub(n as u64, SeqCst) == n as u64 {
            self.progress.notify_waiters();
        }
    }

    /// How many hear a message; this process among them if it listens.
    async fn publish(&self, redis: &Redis, message: &[u8]) -> Result<u64, BusError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.channel).arg(message);
        match redis.query(&self.channel, &publish, Access::Write).await? {
            Reply::Int(heard) => Ok(u64::try_from(heard).unwrap_or(0)),
            _ => Err(wire::unreadable()),
        }
    }

    /// Sends what is in the queue for as long as there is somebody to fill it.
    async fn work(
        self: Arc<Self>,
        redis: Redis,
        me: [u8; 8],
        has_stored: Arc<AtomicBool>,
        mut queue: mpsc::Receiver<Append>,
    ) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut number = 0;
        while queue.recv_many(&mut events, EVENTS_MAX).await > 0 {
            let mut rest = events.as_slice();
            while !rest.is_empty() {
                number += 1;
                let mut message = header(me, number, has_stored.swap(false, Relaxed));
                let mut count = 0;
                for event in rest {
                    pack(&mut message, event);
                    count += 1;
                    if message.len() > BYTES_MAX {
                        break;
                    }
                }
                self.send(&redis, &message, number, count, &queue).await;
                self.finished(count);
                rest = &rest[count..];
            }
            events.clear();
        }
    }

    /// Sends one message: again and again while it certainly was not sent and the bus is there.
    async fn send(&self, redis: &Redis, message: &[u8], number: u64, events: usize, queue: &mpsc::Receiver<Append>) {
        loop {
            let sent_at = clock();
            let error = match self.publish(redis, message).await {
                Ok(heard) => {
                    self.was_heard(number, sent_at, heard);
                    self.set_down(false);
                    return;
                }
                Err(error) => error,
            };
            self.set_down(true);
            if !matches!(error.kind(), ErrorKind::Transient | ErrorKind::Unavailable)
                || matches!(error, BusError::Ambiguous { .. })
                || queue.is_closed()
            {
                // Sent or not, refused for good, or too late: at most once.
                self.owed.fetch_add(events as u64, Relaxed);
                return;
            }
            SystemClock.sleep(PAUSE).await;
        }
    }

    fn set_down(&self, is_down: bool) {
        if self.is_down.swap(is_down, SeqCst) != is_down {
            self.progress.notify_waiters();
        }
    }
}

impl Live {
    pub(super) fn new(redis: Redis, base: &str) -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self {
            redis,
            me: random().to_be_bytes(),
            ways: [Way::new(format!("{base}live")), Way::new(format!("{base}urgent"))],
            queues: Default::default(),
            has_stored: Arc::default(),
        }
    }

    /// The next message says that something was stored.
    pub(super) fn stored(&self) {
        self.has_stored.store(true, Relaxed);
    }

    pub(super) async fn send(&self, event: &Append) -> Result<(), BusError> {
        let part = usize::from(event.is_priority);
        let way = &self.ways[part];
        if way.is_alone() {
            return Ok(());
        }
        let queue = self.queues[part].get_or_init(|| {
            let (queue, waiting) = mpsc::channel(QUEUE_MAX);
            let work = way.clone().work(self.redis.clone(), self.me, self.has_stored.clone(), waiting);
            tokio::spawn(work);
            queue
        });
        way.waiting.fetch_add(1, SeqCst);
        // Also if this future is dropped while the queue is full.
        let mut waits = Waits { way, is_queued: false };
        let mut event = Some(event.clone());
        loop {
            let changed = way.progress.notified();
            let Some(next) = event.take() else { break };
            match queue.try_send(next) {
                Ok(()) => waits.is_queued = true,
                Err(mpsc::error::TrySendError::Full(_)) if way.is_down.load(SeqCst) => {
                    let message = "Redis is out of reach, and as many live events wait for it as may".into();
                    return Err(BusError::Backend { message, kind: ErrorKind::Unavailable });
                }
                Err(mpsc::error::TrySendError::Full(back)) => {
                    event = Some(back);
                    tokio::select! {
                        permit = queue.reserve() => match (permit, event.take()) {
                            (Ok(permit), Some(event)) => {
                                permit.send(event);
                                waits.is_queued = true;
                            }
                            _ => break,
                        },
                        () = changed => {}
                    }
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(BusError::Closed),
            }
        }
        drop(waits);
        let owes = way.owed.fetch_update(SeqCst, SeqCst, |owed| owed.checked_sub(1));
        match owes {
            Ok(_) => Err(BusError::Ambiguous { reason: "an earlier live event may not have been sent".into() }),
            Err(_) => Ok(()),
        }
    }

    pub(super) async fn flush(&self) {
        for way in &self.ways {
            loop {
                let changed = way.progress.notified();
                if way.waiting.load(SeqCst) == 0 {
                    break;
                }
                changed.await;
            }
        }
    }

    pub(super) async fn listen(&self, listener: Listener) {
        tokio::join!(self.hear(&self.ways[1], &listener), self.hear(&self.ways[0], &listener));
    }

    async fn hear(&self, way: &Way, listener: &Listener) {
        let mut ear = self.redis.subscribe(&way.channel);
        let mut from = u64::MAX;
        loop {
            match ear.next().await {
                RedisMessage::Subscribed => from = clock().saturating_add(ALONE.as_nanos() as u64),
                RedisMessage::Message(message) => self.heard(way, &message, clock() >= from, listener).await,
                RedisMessage::Gap { reason } => listener(Signal::Gap { reason }).await,
                RedisMessage::Failed(_) => {}
            }
        }
    }

    async fn heard(&self, way: &Way, message: &[u8], is_taken: bool, listener: &Listener) {
        let Some((header, mut rest)) = message.split_first_chunk::<HEADER>() else {
            return listener(Signal::Gap { reason: "a message was none of ours".into() }).await;
        };
        let (sender, number) = (&header[..8], &header[8..16]);
        if sender == self.me {
            return way.came_back(number.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
        }
        let mut unreadable = 0;
        while is_taken && !rest.is_empty() {
            let Some(event) = take(&mut rest).zip(take(&mut rest)) else {
                unreadable += 1;
                break;
            };
            match wire::Stored::from_parts(event.0, event.1).envelope() {
                Ok(envelope) => listener(Signal::Live(Arc::new(envelope))).await,
                Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            let reason = format!("{unreadable} live events of another process cannot be read");
            listener(Signal::Gap { reason }).await;
        }
        if header[16] == 1 {
            listener(Signal::Stored).await;
        }
    }
}

/// An event that is counted as waiting, until the queue has it.
struct Waits<'a> {
    way: &'a Way,
    is_queued: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if !self.is_queued {
            self.way.finished(1);
        }
    }
}

fn header(me: [u8; 8], number: u64, has_stored: bool) -> Vec<u8> {
    let mut message = me.to_vec();
    message.extend_from_slice(&number.to_be_bytes());
    message.push(u8::from(has_stored));
    message
}

fn pack(message: &mut Vec<u8>, event: &Append) {
    let head = format!(",;{}", wire::lane(event));
    let body = wire::body(&event.envelope);
    for part in [head.as_bytes(), &body] {
        message.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        message.extend_from_slice(part);
    }
}

/// Takes the first part off.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (part, behind) = behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = behind;
    Some(part)
}

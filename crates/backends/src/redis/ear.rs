//! One connection that only listens to a channel.
//!
//! Why not the driver's own: it moves messages into an unbounded queue as fast as they come. This one reads a message when it is
//! asked for one, so a slow reader fills the server's buffer for it, which has a limit, and the cut that follows is seen.

use std::{
    future::{pending, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use redis::{PushKind, Value};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

use super::{
    classify,
    dial::{Dialer, Open},
    frame::{self, NoReply},
    server,
    stream::{Counted, Wire},
};
use crate::error::BackendError;

/// How often the server is asked how it is.
const BEAT: Duration = Duration::from_secs(1);
/// How long it may bring nothing at all after it was asked.
const ANSWER: Duration = Duration::from_secs(2);
/// The longest message; a longer one ends the connection.
pub(super) const MESSAGE_MAX: usize = 16 * 1_024 * 1_024;
/// What is read at once.
const CHUNK: usize = 16 * 1_024;

/// A connection that listens to one channel.
pub(super) struct Ear {
    dialer: Arc<Dialer>,
    io: Counted,
    target: String,
    /// Read and not yet taken: at most one message that is not whole, and a chunk.
    inbox: Vec<u8>,
    taken: usize,
    outbox: Vec<u8>,
    flushed: bool,
    /// What the server is asked in each beat.
    questions: Vec<u8>,
    next_beat: Instant,
    /// Since when a question waits for a sign of life.
    asked: Option<Instant>,
    /// Ends with the reason why this is the wrong server by now.
    watch: Pin<Box<dyn Future<Output = String> + Send>>,
    _open: Open,
}

impl Ear {
    /// Connects, logs in and listens; what the server is worth was found out by another connection. The caller bounds the time.
    pub(super) async fn open(
        dialer: &Arc<Dialer>,
        host: &str,
        port: u16,
        channel: &[u8],
        cluster: bool,
    ) -> Result<Self, BackendError> {
        let io = dialer.transport(host, port).await?;
        let wire = Arc::new(Wire::default());
        let open = dialer.counted(&wire);
        let mut questions = redis::cmd("ROLE").get_packed_command();
        if cluster {
            questions.extend(redis::cmd("CLUSTER").arg("INFO").get_packed_command());
        }
        let mut hello = redis::cmd("HELLO");
        // The third protocol lets a connection ask while it listens.
        hello.arg(3);
        if let Some(password) = &dialer.config.password {
            hello.arg("AUTH").arg(dialer.config.username.as_deref().unwrap_or("default")).arg(password.expose());
        }
        let mut outbox = hello.get_packed_command();
        outbox.extend(redis::cmd("CLIENT").arg("SETNAME").arg("infra-listen").get_packed_command());
        outbox.extend_from_slice(&questions);
        outbox.extend(redis::cmd("SUBSCRIBE").arg(channel).get_packed_command());
        let mut ear = Self {
            dialer: Arc::clone(dialer),
            io: Counted { io, wire, gathered: false },
            target: format!("{host}:{port}"),
            inbox: Vec::new(),
            taken: 0,
            outbox,
            flushed: false,
            questions,
            next_beat: Instant::now() + BEAT,
            asked: None,
            watch: Box::pin(pending()),
            _open: open,
        };
        // To HELLO, SETNAME and the questions; what else is answered instead of a push is a refusal to let us listen.
        ear.shake_hands(if cluster { 4 } else { 3 }).await?;
        Ok(ear)
    }

    /// Stops listening when `watch` ends, for the reason that it gives.
    pub(super) fn watched(mut self, watch: impl Future<Output = String> + Send + 'static) -> Self {
        self.watch = Box::pin(watch);
        self
    }

    async fn shake_hands(&mut self, answers: usize) -> Result<(), BackendError> {
        let mut answered = 0;
        loop {
            let answer = self.value().await;
            let value = answer.map_err(|reason| BackendError::Connect { target: self.target.clone(), reason })?;
            if let Value::Push { kind, .. } = value {
                match kind {
                    PushKind::Subscribe => return Ok(()),
                    _ => continue,
                }
            }
            answered += 1;
            if answered == 1 || answered > answers {
                classify::reply(&self.target, value)?;
            } else if let Some(error) = self.unfit(value) {
                return Err(error);
            }
        }
    }

    /// The next message, or why there are no more.
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn message(&mut self) -> Result<Vec<u8>, String> {
        loop {
            match self.value().await? {
                Value::Push { kind: PushKind::Message, data } => {
                    if let Some(Value::BulkString(message)) = data.into_iter().nth(1) {
                        return Ok(message);
                    }
                }
                Value::Push { kind: PushKind::Unsubscribe, .. } => {
                    return Err(format!("{} ended the subscription", self.target));
                }
                Value::Push { .. } => {}
                value => {
                    if let Some(error) = self.unfit(value) {
                        return Err(error.to_string());
                    }
                }
            }
        }
    }

    /// What an answer to one of the questions says against listening here.
    fn unfit(&mut self, answer: Value) -> Option<BackendError> {
        match &answer {
            Value::Array(role) => match role.first() {
                Some(Value::BulkString(role)) if role != b"master" => Some(BackendError::ReadOnly),
                _ => None,
            },
            Value::ServerError(error) if error.code() == "NOAUTH" => Some(classify::refusal(&self.target, error)),
            // Not allowed to ask: then it only has to give a sign of life.
            Value::ServerError(error) if error.code() == "NOPERM" => {
                self.questions = redis::cmd("PING").get_packed_command();
                None
            }
            text => {
                let cut_off = server::text(Some(text)).is_ok_and(|text| text.contains("cluster_state:fail"));
                let reason = format!("{} is cut off from its cluster, or slots of it have no server", self.target);
                cut_off.then_some(BackendError::Transient { reason })
            }
        }
    }

    /// The next reply or push. All progress is in `self`.
    async fn value(&mut self) -> Result<Value, String> {
        loop {
            if let Some(value) = self.take()? {
                return Ok(value);
            }
            self.dialer.is_open().map_err(|error| error.to_string())?;
            let dead = self.asked.map(|asked| asked + ANSWER);
            let wake = dead.map_or(self.next_beat, |dead| dead.min(self.next_beat));
            // The socket is looked at first: what came before the time was up counts, however late we are.
            let exchange = poll_fn(|cx| match self.poll_exchange(cx) {
                Poll::Pending => self.watch.as_mut().poll(cx).map(Err),
                came => came.map(Ok),
            });
            match timeout_at(wake, exchange).await {
                Ok(Err(reason)) => return Err(reason),
                Ok(Ok(Ok(0))) => return Err(format!("{} ended the connection", self.target)),
                Ok(Ok(Ok(_))) => self.asked = None,
                Ok(Ok(Err(error))) => return Err(format!("the connection to {} broke: {error}", self.target)),
                Err(_) if dead.is_some_and(|dead| Instant::now() >= dead) => {
                    return Err(format!("{} gave no sign of life for {ANSWER:?}", self.target));
                }
                Err(_) => self.beat(),
            }
            if Instant::now() >= self.next_beat {
                self.beat();
            }
        }
    }

    fn beat(&mut self) {
        let now = Instant::now();
        self.next_beat = now + BEAT;
        self.asked.get_or_insert(now);
        if self.outbox.is_empty() {
            self.outbox.extend_from_slice(&self.questions);
            self.flushed = false;
        }
    }

    /// The first reply in the inbox, if it is whole.
    fn take(&mut self) -> Result<Option<Value>, String> {
        let bytes = self.inbox.get(self.taken..).unwrap_or_default();
        let length = frame::whole(bytes, MESSAGE_MAX).map_err(|error| match error {
            NoReply::Unreadable => format!("{} sent something unreadable; is it a Redis?", self.target),
            NoReply::TooLong => format!("a message was longer than {MESSAGE_MAX} bytes"),
        })?;
        let Some(length) = length else {
            self.inbox.drain(..self.taken);
            self.taken = 0;
            if self.inbox.is_empty() {
                // One long message does not keep its memory.
                self.inbox.shrink_to(CHUNK * 4);
            }
            return Ok(None);
        };
        let value = redis::parse_redis_value(bytes.get(..length).unwrap_or_default());
        self.taken += length;
        value.map(Some).map_err(|error| format!("{} sent something unreadable: {error}", self.target))
    }

    /// Writes what waits and reads a chunk; how much came, 0 at the end.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.outbox) {
                Poll::Ready(written) => _ = self.outbox.drain(..written?),
                Poll::Pending => break,
            }
        }
        if self.outbox.is_empty() && !self.flushed {
            self.flushed = Pin::new(&mut self.io).poll_flush(cx)?.is_ready();
        }
        let before = self.inbox.len();
        self.inbox.resize(before + CHUNK, 0);
        let mut free = ReadBuf::new(self.inbox.get_mut(before..).unwrap_or_default());
        let read = Pin::new(&mut self.io).poll_read(cx, &mut free);
        let came = free.filled().len();
        self.inbox.truncate(before + came);
        read.map_ok(|()| came)
    }
}

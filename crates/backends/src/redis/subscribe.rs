//! Listening to a channel (pub/sub), with every interruption told.

use std::{
    fmt,
    future::pending,
    hash::{BuildHasher, Hasher, RandomState},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use infra_types::{Backoff, Jitter};
use tokio::time::{Instant, sleep_until};

use super::{Access, Inner, Redis, Router, dial::within, ear::Ear, send::Payload, sentinel};
use crate::error::BackendError;

/// A subscription that lived for so long begins anew with short pauses.
const STEADY: Duration = Duration::from_secs(5);

/// What a subscription tells, always in this order: `Failed`s while it does not work, `Subscribed`, `Message`s, one `Gap`, and from the
/// front.
#[derive(Debug, Clone)]
pub enum RedisMessage {
    /// The server listens for us from here on: what is published after this comes as messages, or a gap does. Told each time,
    /// so also at the end of a gap.
    Subscribed,
    /// What was published, in the order of the server.
    Message(Vec<u8>),
    /// Listening was interrupted: whatever was or is published until the next `Subscribed` is lost. Told exactly once each time,
    /// as soon as it is known, after the last message that came.
    Gap {
        /// What happened.
        reason: String,
    },
    /// An attempt to listen failed; the next one comes by itself. Told once, and again when the reason is another one. After
    /// `Closed` there is no further attempt.
    Failed(BackendError),
}

type Attempt = Pin<Box<dyn Future<Output = Result<Ear, BackendError>> + Send>>;

enum State {
    /// Not before then.
    Waiting(Instant),
    /// Kept here, so that whoever stops waiting for it does not end it.
    Connecting(Attempt),
    Listening(Box<Ear>, Instant),
    /// The handle was closed.
    Over,
}

/// Listens to one channel over a connection of its own; see [`Redis::subscribe`]. Dropping it ends the connection.
pub struct RedisSubscription {
    redis: Arc<Inner>,
    channel: Arc<[u8]>,
    state: State,
    failures: u32,
    /// The last failure that was told.
    told: Option<String>,
}

impl fmt::Debug for RedisSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting(_) => "waiting",
            State::Connecting(_) => "connecting",
            State::Listening(..) => "listening",
            State::Over => "over",
        };
        let channel = String::from_utf8_lossy(&self.channel);
        f.debug_struct("RedisSubscription").field("channel", &channel).field("state", &state).finish_non_exhaustive()
    }
}

impl Redis {
    /// Listens to `channel`; no I/O happens before the first [`next`](RedisSubscription::next). With a cluster it listens to the owner
    /// of the slot of `channel`, which is where [`publish`](Self::publish) sends to.
    ///
    /// It connects again by itself for as long as it is polled: after 25 to 50 ms at first, after 1 to 2 s at most.
    #[must_use]
    pub fn subscribe(&self, channel: &[u8]) -> RedisSubscription {
        RedisSubscription {
            redis: Arc::clone(&self.0),
            channel: channel.into(),
            state: State::Waiting(Instant::now()),
            failures: 0,
            told: None,
        }
    }

    /// Publishes messages to `channel`, in order and in one round trip over the shared connection. Nothing is kept: who does not
    /// listen now never hears of them.
    ///
    /// # Errors
    /// As [`Redis::query`]; also the first refusal of a single message, those before it are published.
    ///
    /// # Cancel safety
    /// See [`Redis`]; a part of them may be published.
    pub async fn publish<M: AsRef<[u8]>>(
        &self,
        channel: &[u8],
        messages: impl IntoIterator<Item = M>,
    ) -> Result<(), BackendError> {
        let mut all = redis::pipe();
        for message in messages {
            all.cmd("PUBLISH").arg(channel).arg(message.as_ref());
        }
        self.pipeline(channel, &all, Access::Write).await?.into_iter().try_for_each(|reply| reply.map(|_| ()))
    }
}

impl RedisSubscription {
    /// The next thing there is to tell; waits for it as long as it takes.
    ///
    /// **Nothing is lost silently**: any interruption is one `Gap` before the next `Message`: a connection that ends or breaks, a
    /// server that restarts, turns replica or is cut off from its cluster, a reader so slow that the server gives up on it
    /// (`client-output-buffer-limit pubsub`), a message over 16 MiB. A server that brings nothing any more without a word is given
    /// up within 3 s of the last byte (asked each second, 2 s for an answer), as long as this is polled. A primary that sentinels
    /// replaced and could not tell is left when the first of them that answers says so (asked every 5 s); what it missed until then is
    /// part of the gap that follows. What a cluster loses between its nodes nobody is told: who has to know numbers the messages.
    ///
    /// Memory is bounded by one message and 16 KiB: while nobody polls, nothing is read.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; an attempt to connect goes on when it is polled next.
    pub async fn next(&mut self) -> RedisMessage {
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    let (redis, channel) = (Arc::clone(&self.redis), Arc::clone(&self.channel));
                    self.state = State::Connecting(Box::pin(async move { redis.listen(&channel).await }));
                }
                State::Connecting(attempt) => match attempt.await {
                    Ok(ear) => {
                        self.state = State::Listening(Box::new(ear), Instant::now());
                        self.told = None;
                        return RedisMessage::Subscribed;
                    }
                    Err(error) => {
                        self.pause();
                        if matches!(error, BackendError::Closed) {
                            self.state = State::Over;
                        }
                        let text = error.to_string();
                        if self.told.as_ref() != Some(&text) {
                            self.told = Some(text);
                            return RedisMessage::Failed(error);
                        }
                    }
                },
                State::Listening(ear, since) => match ear.message().await {
                    Ok(message) => return RedisMessage::Message(message),
                    Err(reason) => {
                        if since.elapsed() >= STEADY {
                            self.failures = 0;
                        }
                        self.pause();
                        self.redis.dialer.counters.gaps.fetch_add(1, Ordering::Relaxed);
                        return RedisMessage::Gap { reason };
                    }
                },
                State::Over => pending().await,
            }
        }
    }

    fn pause(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2), 2, Jitter::Equal);
        // A hasher's keys are random: enough to spread delays, and no generator is needed.
        let pause = backoff.unwrap_or_default().delay(self.failures, RandomState::new().build_hasher().finish());
        self.state = State::Waiting(Instant::now() + pause);
    }
}

impl Inner {
    /// A connection that listens to `channel` where it is published.
    async fn listen(&self, channel: &[u8]) -> Result<Ear, BackendError> {
        self.dialer.is_open()?;
        let node = self.owner(channel).await?;
        // The shared connection finds the server and judges it. Asked first, for it may have died without a word, and with it the
        // server that it leads to.
        self.run_on(Arc::clone(&node), Payload::One(&redis::cmd("PING")), Access::Read, None).await?;
        let live = node.acquire().await?;
        let address = live.line.target.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) =
            address.ok_or_else(|| BackendError::Other { reason: "a server has no address".to_owned() })?;
        let cluster = matches!(self.router, Router::Cluster(_));
        let opened = Ear::open(&self.dialer, host, port, channel, cluster);
        let opened = within(self.dialer.config.connect_timeout, host, port, opened).await;
        match &opened {
            Ok(_) => _ = self.dialer.counters.connects.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                self.dialer.counters.connect_failures.fetch_add(1, Ordering::Relaxed);
                if matches!(error, BackendError::ReadOnly) {
                    // Another server is the primary: found anew by the next attempt.
                    node.bury();
                }
                if let Router::Cluster(cluster) = &self.router {
                    cluster.refresh_soon();
                }
            }
        }
        let (dialer, target) = (Arc::clone(&self.dialer), live.line.target.clone());
        Ok(opened?.watched(async move {
            let reason = sentinel::replaced(&dialer, &dialer.config.topology, &target).await;
            node.bury();
            reason
        }))
    }
}

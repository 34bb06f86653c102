//! One direction of one connection.

use std::{
    future::pending,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    connection::Done,
    plan::{Cut, Direction, Plan, Shared, count},
};

const CHUNK_BYTES: usize = 16 * 1_024;
const CHUNKS_MAX: usize = 16;
/// With a limit, bytes go in so many portions a second.
const PORTIONS_PER_S: usize = 50;

/// Whether this connection's next reply is the one to lose.
#[derive(Debug, Default)]
pub(super) struct Reply(AtomicBool);

pub(super) struct Forward<'a> {
    pub(super) direction: Direction,
    pub(super) plan: watch::Receiver<Plan>,
    pub(super) shared: &'a Shared,
    pub(super) reply: &'a Reply,
}

struct Chunk {
    read: Instant,
    news: News,
}

enum News {
    Bytes(Vec<u8>),
    End,
    Reset,
}

impl Forward<'_> {
    /// Forwards until the stream ends, or is closed by order; an error is how the whole connection is to end.
    pub(super) async fn run(
        mut self,
        from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        mut close: mpsc::Receiver<Done>,
        closed: bool,
    ) -> Result<(), Cut> {
        let (into, mut queue) = mpsc::channel(CHUNKS_MAX);
        let write = async {
            let mut done = None;
            if !closed {
                tokio::select! {
                    written = self.write(&mut queue, &mut to) => written?,
                    order = close.recv() => done = order,
                }
            }
            // The other side may be gone: that it hears of the end is all there is to do.
            let _ = to.shutdown().await;
            drop((done, close));
            while let Some(chunk) = queue.recv().await {
                if let News::Bytes(bytes) = chunk.news {
                    self.swallow(bytes.len());
                }
            }
            Ok(())
        };
        let read = async {
            read(from, into).await;
            Ok(())
        };
        tokio::try_join!(read, write).map(|_| ())
    }

    async fn write(&mut self, queue: &mut mpsc::Receiver<Chunk>, to: &mut WriteHalf<'_>) -> Result<(), Cut> {
        while let Some(chunk) = queue.recv().await {
            self.until_due(chunk.read).await;
            match chunk.news {
                News::Bytes(bytes) => self.portions(&bytes, to).await?,
                News::End => break,
                News::Reset => return Err(Cut::Reset),
            }
        }
        Ok(())
    }

    async fn portions(&mut self, mut bytes: &[u8], to: &mut WriteHalf<'_>) -> Result<(), Cut> {
        while !bytes.is_empty() {
            past_black_hole(&mut self.plan).await;
            let plan = *self.plan.borrow();
            if self.direction == Direction::ToClient && self.reply.0.load(Ordering::SeqCst) {
                self.swallow(bytes.len());
                count(&self.shared.replies_swallowed, 1);
                count(&self.shared.cut, 1);
                return Err(Cut::Reset);
            }
            if plan.swallow[self.direction.index()] {
                self.swallow(bytes.len());
                return Ok(());
            }
            // Before the request goes: its reply may come back at once.
            if self.direction == Direction::ToServer && self.shared.take_swallow() {
                self.reply.0.store(true, Ordering::SeqCst);
            }
            let rate = plan.bytes_per_s[self.direction.index()].map(|rate| rate.get() as usize);
            let wanted = rate.map_or(bytes.len(), |rate| bytes.len().min((rate / PORTIONS_PER_S).max(1)));
            let (allowed, cut) = self.shared.take_allowance(self.direction, wanted);
            let (now, later) = bytes.split_at(allowed);
            // Counted first: who has received them may look at once.
            count(&self.shared.forwarded[self.direction.index()], allowed);
            to.write_all(now).await.map_err(|_| Cut::Reset)?;
            if let Some(how) = cut {
                count(&self.shared.cut, 1);
                return Err(how);
            }
            bytes = later;
            if let Some(rate) = rate {
                sleep(Duration::from_secs_f64(allowed as f64 / rate as f64)).await;
            }
        }
        Ok(())
    }

    /// Waits for what was read then; a delay that is changed meanwhile counts from then too.
    async fn until_due(&mut self, read: Instant) {
        loop {
            past_black_hole(&mut self.plan).await;
            let due = read + self.plan.borrow_and_update().delay[self.direction.index()];
            tokio::select! {
                biased;
                () = sleep_until(due) => return,
                changed = self.plan.changed() => if changed.is_err() { return },
            }
        }
    }

    fn swallow(&self, bytes: usize) {
        count(&self.shared.swallowed[self.direction.index()], bytes);
    }
}

/// Reads until the stream ends; a full queue makes the sender wait.
async fn read(mut from: ReadHalf<'_>, into: mpsc::Sender<Chunk>) {
    loop {
        let mut bytes = vec![0; CHUNK_BYTES];
        let news = match from.read(&mut bytes).await {
            Ok(0) => News::End,
            Ok(read) => {
                bytes.truncate(read);
                News::Bytes(bytes)
            }
            Err(_) => News::Reset,
        };
        let last = !matches!(news, News::Bytes(_));
        if into.send(Chunk { read: Instant::now(), news }).await.is_err() || last {
            return;
        }
    }
}

/// Waits while the proxy is a black hole.
pub(super) async fn past_black_hole(plan: &mut watch::Receiver<Plan>) {
    // The guard that could lift it is gone: so is the connection in a moment.
    if plan.wait_for(|plan| !plan.black_hole).await.is_err() {
        pending::<()>().await;
    }
}

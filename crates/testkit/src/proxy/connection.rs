//! One connection: from accepting it to its end.

use std::{io, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};

use super::{
    forward::{Forward, Reply, past_black_hole},
    plan::{Cut, Direction, Plan, Shared, count},
};

/// After an orderly end the other side may take so long to end too.
const GOODBYE: Duration = Duration::from_secs(1);

/// Dropped when the order has been carried out.
pub(super) type Done = mpsc::Sender<()>;

#[derive(Debug)]
pub(super) struct Order {
    pub(super) what: What,
    pub(super) done: Done,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Cut(Cut),
    HalfClose(Direction),
}

/// How a connection ends, and who waits for it.
struct Ending {
    how: Cut,
    done: Option<Done>,
}

pub(super) struct Connection {
    plan: watch::Receiver<Plan>,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
}

impl Connection {
    pub(super) fn new(plan: watch::Receiver<Plan>, shared: Arc<Shared>, orders: mpsc::Receiver<Order>) -> Self {
        Self { plan, shared, orders }
    }

    pub(super) async fn serve(mut self, client: TcpStream) {
        let mut closed = self.plan.borrow().half_closed;
        let (ending, sides) = match self.connect(&mut closed).await {
            Ok(mut server) => {
                let mut client = client;
                match self.relay(&mut client, &mut server, closed).await {
                    Some(ending) => (ending, vec![client, server]),
                    None => return,
                }
            }
            Err(ending) => (ending, vec![client]),
        };
        // From here on an order finds nobody, and is not waited for.
        drop(self.orders);
        end(ending, sides).await;
    }

    async fn connect(&mut self, closed: &mut [bool; 2]) -> Result<TcpStream, Ending> {
        let mut plan = self.plan.clone();
        let mut connecting = pin!(async move {
            past_black_hole(&mut plan).await;
            let target = plan.borrow().target;
            let server = TcpStream::connect(target).await?;
            server.set_nodelay(true)?;
            Ok::<_, io::Error>(server)
        });
        loop {
            tokio::select! {
                connected = &mut connecting => return connected.map_err(|_| {
                    count(&self.shared.unreachable, 1);
                    Ending { how: Cut::Reset, done: None }
                }),
                Some(order) = self.orders.recv() => match order.what {
                    What::Cut(how) => {
                        count(&self.shared.cut, 1);
                        return Err(Ending { how, done: Some(order.done) });
                    }
                    What::HalfClose(direction) => closed[direction.index()] = true,
                },
            }
        }
    }

    /// Forwards until both streams have ended by themselves (`None`) or the connection is to be ended.
    async fn relay(&mut self, client: &mut TcpStream, server: &mut TcpStream, closed: [bool; 2]) -> Option<Ending> {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        let reply = Reply::default();
        let forward = |direction| Forward { direction, plan: self.plan.clone(), shared: &self.shared, reply: &reply };
        let (close_requests, requests_closed) = mpsc::channel(1);
        let (close_replies, replies_closed) = mpsc::channel(1);
        let up = forward(Direction::ToServer).run(client_in, server_out, requests_closed, closed[0]);
        let down = forward(Direction::ToClient).run(server_in, client_out, replies_closed, closed[1]);
        let mut both = pin!(async { tokio::try_join!(up, down) });
        loop {
            tokio::select! {
                biased;
                Some(order) = self.orders.recv() => match order.what {
                    What::Cut(how) => {
                        count(&self.shared.cut, 1);
                        return Some(Ending { how, done: Some(order.done) });
                    }
                    // Fails if that direction has ended.
                    What::HalfClose(Direction::ToServer) => drop(close_requests.try_send(order.done)),
                    What::HalfClose(Direction::ToClient) => drop(close_replies.try_send(order.done)),
                },
                ended = &mut both => return ended.err().map(|how| Ending { how, done: None }),
            }
        }
    }
}

async fn end(ending: Ending, sides: Vec<TcpStream>) {
    match ending.how {
        Cut::Reset => {
            for side in &sides {
                // Fails only if it has ended already.
                let _ = side.set_zero_linger();
            }
            drop(sides);
        }
        Cut::Fin => {
            let mut leaving = tokio::task::JoinSet::new();
            for mut side in sides {
                // Fails only if it has ended already.
                let _ = side.shutdown().await;
                // Closing with unread bytes would send RST.
                leaving.spawn(tokio::time::timeout(GOODBYE, async move { drain(&mut side).await }));
            }
            drop(ending.done);
            while leaving.join_next().await.is_some() {}
        }
    }
}

async fn drain(side: &mut TcpStream) {
    let mut buffer = [0; 4_096];
    while side.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

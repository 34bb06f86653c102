//! Accepts connections, or refuses them, and hands controls on to those that are open.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    connection::{Connection, Order, What},
    plan::{Cut, Direction, Plan, Shared, count},
};

pub(super) const BACKLOG: u32 = 1_024;
const CONNECTIONS_MAX: usize = 1_024;

/// A control for the thread.
#[derive(Debug)]
pub(super) enum Command {
    Listen,
    Refuse,
    Cut(Cut),
    HalfClose(Direction),
}

/// A control, and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) done: SyncSender<()>,
}

enum Door {
    Open(TcpListener),
    /// Bound without listening: connections are refused, and nobody else gets the port.
    Closed(TcpSocket),
}

struct Keeper {
    door: Door,
    addr: SocketAddr,
    plan: watch::Receiver<Plan>,
    shared: Arc<Shared>,
    open: JoinSet<()>,
    orders: Vec<mpsc::Sender<Order>>,
}

/// Serves until the guard is dropped.
pub(super) async fn keep(
    listener: TcpListener,
    addr: SocketAddr,
    mut requests: mpsc::Receiver<Request>,
    plan: watch::Receiver<Plan>,
    shared: Arc<Shared>,
) {
    let (open, orders) = (JoinSet::new(), Vec::new());
    let mut keeper = Keeper { door: Door::Open(listener), addr, plan, shared, open, orders };
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { return };
                keeper.obey(request.command).await;
                // Whoever no longer waits has given up on the test.
                let _ = request.done.send(());
            }
            accepted = keeper.door.accept() => keeper.take(accepted).await,
            Some(_) = keeper.open.join_next() => {}
        }
    }
}

impl Keeper {
    async fn obey(&mut self, command: Command) {
        match command {
            Command::Listen => self.listen(),
            Command::Refuse => self.refuse().await,
            Command::Cut(how) => self.tell(What::Cut(how)).await,
            Command::HalfClose(direction) => self.tell(What::HalfClose(direction)).await,
        }
    }

    fn listen(&mut self) {
        // Only a closed door changes; a listener may hold connections that nobody has accepted yet.
        if let Door::Closed(_) = self.door
            && let Door::Closed(socket) = std::mem::replace(&mut self.door, Door::Closed(socket()))
        {
            self.door = Door::Open(socket.listen(BACKLOG).expect("the reserved port can be listened on"));
        }
    }

    async fn refuse(&mut self) {
        if let Door::Closed(_) = self.door {
            return;
        }
        // The listener goes first: one port takes a second socket only while nobody listens.
        self.door = Door::Closed(socket());
        for _ in 0..1_000 {
            let reserved = socket();
            if reserved.bind(self.addr).is_ok() {
                self.door = Door::Closed(reserved);
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("somebody else took the proxy's port {}", self.addr);
    }

    /// Gives the order to every connection, and waits until each has carried it out.
    async fn tell(&mut self, what: What) {
        // To its client, a connection that waits to be accepted is open. Yielding lets the runtime see it.
        tokio::task::yield_now().await;
        while let Some(accepted) = self.door.accept_now().await {
            self.take(accepted).await;
        }
        let (done, mut wait) = mpsc::channel(1);
        for orders in &self.orders {
            // Fails for a connection that has ended.
            let _ = orders.try_send(Order { what, done: done.clone() });
        }
        drop(done);
        // Nobody sends: the end of the last sender is the news.
        let _ = wait.recv().await;
    }

    async fn take(&mut self, accepted: io::Result<TcpStream>) {
        let Ok(client) = accepted else {
            // Out of descriptors, or reset before it was accepted.
            tokio::time::sleep(Duration::from_millis(1)).await;
            return;
        };
        count(&self.shared.connections, 1);
        while self.open.try_join_next().is_some() {}
        self.orders.retain(|orders| !orders.is_closed());
        if self.open.len() >= CONNECTIONS_MAX {
            count(&self.shared.over_limit, 1);
            // An orderly end is as good if it fails.
            let _ = client.set_zero_linger();
            return;
        }
        let (orders, received) = mpsc::channel(1);
        self.orders.push(orders);
        let connection = Connection::new(self.plan.clone(), Arc::clone(&self.shared), received);
        self.open.spawn(connection.serve(client));
    }
}

impl Door {
    async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Open(listener) => {
                let (client, _) = listener.accept().await?;
                // Small replies would otherwise wait for each other's acknowledgement.
                client.set_nodelay(true)?;
                Ok(client)
            }
            Self::Closed(_) => pending().await,
        }
    }

    async fn accept_now(&self) -> Option<io::Result<TcpStream>> {
        tokio::select! {
            biased;
            accepted = self.accept() => Some(accepted),
            () = std::future::ready(()) => None,
        }
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Connections of this port may still be ending.
    socket.set_reuseaddr(true).expect("an option that every system has");
    socket
}

//! The wire between clients and server: a tap beside the clients, which hears what really left them and what really reached them,
//! and a proxy behind it, which breaks things.

mod scan;

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use infra_testkit::FaultProxy;
use infra_types::{Clock, SystemClock};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use self::scan::{Replies, Requests};
use super::{batches::Name, chaos::Dice, locked};

/// How long a client whose server is gone may take to hang up.
const GOODBYE: Duration = Duration::from_secs(2);

/// What was heard on the wire.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// Batches whose request left its client.
    pub(crate) sent: HashSet<Name>,
    /// Batches whose whole reply reached its client, on connections that were not reset: a reset may take back what was not read.
    pub(crate) answered: HashSet<Name>,
    /// When connections were reset, in milliseconds since 1970: what a client wrote then was perhaps not heard.
    pub(crate) resets: Vec<i64>,
}

/// The wire.
pub(crate) struct Wire {
    pub(crate) proxy: FaultProxy,
    port: u16,
    is_open: watch::Sender<bool>,
    heard: Arc<Mutex<Sightings>>,
    door: JoinHandle<()>,
}

/// What a connection needs.
#[derive(Clone)]
struct Tap {
    target: SocketAddr,
    heard: Arc<Mutex<Sightings>>,
    clock: Arc<dyn Clock>,
}

impl Wire {
    pub(crate) async fn start(server: SocketAddr, seed: u64) -> Self {
        let proxy = FaultProxy::start(server).await;
        let heard = Arc::<Mutex<Sightings>>::default();
        let tap = Tap { target: proxy.addr(), heard: heard.clone(), clock: SystemClock::shared() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free loopback port");
        let addr = listener.local_addr().expect("a listener has an address");
        let (is_open, seen) = watch::channel(true);
        let door = tokio::spawn(keep_door(listener, addr, seen, tap, Dice::new(seed)));
        Self { proxy, port: addr.port(), is_open, heard, door }
    }

    /// Where clients connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether new connections are taken or refused.
    pub(crate) fn open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }

    /// Ends every connection, and answers what was heard.
    pub(crate) fn end(self) -> Sightings {
        self.door.abort();
        std::mem::take(&mut *locked(&self.heard))
    }
}

async fn keep_door(listener: TcpListener, addr: SocketAddr, mut seen: watch::Receiver<bool>, tap: Tap, mut dice: Dice) {
    let mut connections = JoinSet::new();
    let mut door = Some(listener);
    loop {
        let Some(listener) = &door else {
            if seen.wait_for(|is_open| *is_open).await.is_err() {
                return;
            }
            // Somebody else may have the port for a moment.
            door = TcpListener::bind(addr).await.ok();
            if door.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            continue;
        };
        tokio::select! {
            changed = seen.changed() => match changed {
                Ok(()) if *seen.borrow() => {}
                Ok(()) => door = None,
                Err(_) => return,
            },
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(tap.clone().relay(client, dice.below(2) == 0));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Tap {
    /// Passes everything on. If the server's side ends first, the client sees a reset or an orderly end.
    async fn relay(self, mut client: TcpStream, resets: bool) {
        let Ok(mut server) = TcpStream::connect(self.target).await else { return };
        // A connection that ended already says so at the first read.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        if self.copy(&mut client, &mut server, resets).await {
            locked(&self.heard).resets.push(self.clock.wall().as_millis());
            // Fails only if it has ended already.
            let _ = client.set_zero_linger();
        }
    }

    /// True if the client is to be reset.
    async fn copy(&self, client: &mut TcpStream, server: &mut TcpStream, resets: bool) -> bool {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let requests = async {
            let (mut scan, mut buffer, mut goes_on) = (Requests::default(), vec![0; 16 * 1_024], true);
            while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                locked(&self.heard).sent.extend(scan.feed(&buffer[..read]));
                // What goes nowhere is listened to all the same.
                goes_on = goes_on && to_server.write_all(&buffer[..read]).await.is_ok();
            }
            let _ = to_server.shutdown().await;
        };
        let replies = async {
            let (mut scan, mut buffer) = (Replies::default(), vec![0; 16 * 1_024]);
            while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
                let answered = scan.feed(&buffer[..read]);
                if !resets {
                    locked(&self.heard).answered.extend(answered);
                }
            }
            if !resets {
                let _ = to_client.shutdown().await;
            }
        };
        let (mut requests, mut replies) = (std::pin::pin!(requests), std::pin::pin!(replies));
        let is_client_gone = tokio::select! {
            () = &mut requests => true,
            () = &mut replies => false,
        };
        if is_client_gone {
            replies.await;
        } else if !resets {
            let _ = timeout(GOODBYE, requests).await;
        }
        resets && !is_client_gone
    }
}

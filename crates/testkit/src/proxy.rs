//! A TCP proxy that fails on command, between a client under test and a real server.

mod connection;
mod door;
mod forward;
mod plan;

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, mpsc::sync_channel},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    net::TcpSocket,
    sync::{mpsc, oneshot, watch},
};

use self::{
    door::{Command, Request},
    plan::{Plan, Shared},
};

pub use self::plan::{Cut, Direction, ProxyCounters};

/// A control that took longer than this is a mistake in the proxy, not a fault to test.
const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy on a free loopback port in front of one server; ended with all its connections when dropped.
///
/// ```
/// use std::{io::{Read, Write}, net::{TcpListener, TcpStream}};
/// use infra_testkit::{Cut, FaultProxy};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let proxy = FaultProxy::start(server.local_addr()?).await;
/// let mut client = TcpStream::connect(proxy.addr())?;
/// client.write_all(b"?")?;
/// server.accept()?.0.read_exact(&mut [0])?;
/// proxy.cut_all(Cut::Reset);
/// assert!(client.read(&mut [0]).is_err());
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Every control is in effect when it returns, for the connections that exist and for new ones; it stays so until
/// [`FaultProxy::pass`]. The proxy has a thread of its own, so it works with a paused clock and while the test blocks. It holds at
/// most 256 KiB in each direction of a connection and at most 1,024 connections; one more is reset and counted.
///
/// Controls panic if the proxy's thread is gone, which only a mistake in the proxy can bring about.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    plan: watch::Sender<Plan>,
    /// Locked for the whole of a control, so there is never more than one request on the way.
    requests: Option<Mutex<mpsc::Sender<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts to forward to `target`, which need not be up yet.
    ///
    /// # Panics
    /// If no loopback port is free or no thread starts.
    ///
    /// # Cancel safety
    /// A start that was given up leaves nothing behind.
    pub async fn start(target: SocketAddr) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), target).await
    }

    /// Starts to forward from an address of the caller's choice: a server that tells its clients its own port is reached through the
    /// same port of another loopback address.
    ///
    /// # Panics
    /// If the address is taken, or no thread starts.
    ///
    /// # Cancel safety
    /// A start that was given up leaves nothing behind.
    pub async fn start_at(listen: SocketAddr, target: SocketAddr) -> Self {
        let (plan, seen) = watch::channel(Plan::passing(target));
        let (requests, received) = mpsc::channel(1);
        let (say_addr, addr) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a small runtime");
            runtime.block_on(async {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.set_reuseaddr(true).expect("an option that every system has");
                socket.bind(listen).expect("a free loopback port");
                let listener = socket.listen(door::BACKLOG).expect("a bound socket listens");
                let addr = listener.local_addr().expect("a listener has an address");
                if say_addr.send(addr).is_ok() {
                    door::keep(listener, addr, received, seen, theirs).await;
                }
            });
        };
        let thread = std::thread::Builder::new().name("fault-proxy".to_owned()).spawn(work).expect("a thread");
        let addr = addr.await.expect("the proxy must find a free loopback port");
        Self { addr, shared, plan, requests: Some(Mutex::new(requests)), thread: Some(thread) }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> ProxyCounters {
        self.shared.snapshot()
    }

    /// Forwards everything again: every control is taken back except [`FaultProxy::retarget`]. What a black hole held goes on;
    /// what was cut, half-closed or swallowed stays so.
    pub fn pass(&self) {
        self.shared.disarm();
        self.plan.send_modify(|plan| *plan = Plan::passing(plan.target));
        self.control(Command::Listen);
    }

    /// Closes the listener: a new connection is refused, as if no server were there. Open ones go on.
    pub fn refuse_new(&self) {
        self.control(Command::Refuse);
    }

    /// Ends every connection that is open now. New ones are accepted.
    pub fn cut_all(&self, how: Cut) {
        self.control(Command::Cut(how));
    }

    /// Cuts, and refuses new connections: to its clients the server is down until [`FaultProxy::pass`].
    pub fn down(&self, how: Cut) {
        self.refuse_new();
        self.cut_all(how);
    }

    /// Delays what goes in this direction, the end of the stream included, by `delay` after it was received.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.plan.send_modify(|plan| plan.delay[direction.index()] = delay);
    }

    /// Forwards at most so many bytes a second in this direction, for each connection; `None` is no limit.
    pub fn limit(&self, direction: Direction, bytes_per_s: Option<NonZeroU32>) {
        self.plan.send_modify(|plan| plan.bytes_per_s[direction.index()] = bytes_per_s);
    }

    /// Tells the receiving side of this direction that the stream has ended, and drops (and counts) what still comes; the other
    /// direction goes on. New connections start like that.
    pub fn half_close(&self, direction: Direction) {
        self.plan.send_modify(|plan| plan.half_closed[direction.index()] = true);
        self.control(Command::HalfClose(direction));
    }

    /// Drops (and counts) every byte in this direction from now on. `ToClient`: requests are done and their replies are lost.
    /// `ToServer`: requests are lost.
    pub fn swallow(&self, direction: Direction) {
        self.plan.send_modify(|plan| plan.swallow[direction.index()] = true);
    }

    /// The next connection on which the client sends bytes has them forwarded; the first bytes that come back are dropped and the
    /// connection is reset. Happens once. The server has therefore answered: what the request asked for is done.
    ///
    /// This is exact for a client that waits for each reply. One that pipelines may lose the reply to an earlier request, and one
    /// with several connections loses that of whichever sends first.
    pub fn swallow_next_reply(&self) {
        self.shared.arm_swallow();
    }

    /// Forwards `bytes` more in this direction, over all connections, then cuts the connection that carried the last of them, in
    /// the middle of a request or a reply. With `bytes` 0 it is cut instead of the next byte. Happens once.
    ///
    /// With [`Cut::Fin`] exactly these bytes arrive; with [`Cut::Reset`] the receiver may lose some that it had not read.
    pub fn cut_after(&self, direction: Direction, bytes: u64, how: Cut) {
        self.shared.arm_cut(direction, bytes, how);
    }

    /// Forwards nothing: connections are accepted and neither answered nor ended, as behind a firewall that drops packets.
    pub fn black_hole(&self) {
        self.plan.send_modify(|plan| plan.black_hole = true);
    }

    /// Connects new clients to another server. Open connections stay with theirs: end them with [`FaultProxy::cut_all`].
    pub fn retarget(&self, target: SocketAddr) {
        self.plan.send_modify(|plan| plan.target = target);
    }

    /// Asks the thread to do it, and waits until it has.
    fn control(&self, command: Command) {
        let requests = self.requests.as_ref().expect("only dropping takes it");
        // A test that panicked in a control may still use the others.
        let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, wait) = sync_channel(1);
        requests.try_send(Request { command, done }).expect("the fault proxy's thread must live");
        wait.recv_timeout(PATIENCE).expect("the fault proxy's thread must answer");
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; a second one while the test unwinds would abort.
            let _ = thread.join();
        }
    }
}

//! Every control of the fault proxy, in front of a plain echo server.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    time::Duration,
};

use infra_testkit::{Cut, Direction, FaultProxy, ProxyCounters};
use tokio::time::Instant;

/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough that what has not come does not come.
const SILENCE: Duration = Duration::from_millis(60);

/// Sends back what it gets behind `mark`, and ends each connection when its client does. Lives as long as the process.
fn echo(mark: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            std::thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    if client.write_all(&[&[mark], &buffer[..read]].concat()).is_err() {
                        return;
                    }
                }
                // What is said after the end shows that the other direction still works.
                let _ = client.write_all(b"bye");
            });
        }
    });
    addr
}

struct Client(TcpStream);

impl Client {
    fn new(proxy: &FaultProxy) -> Self {
        let stream = TcpStream::connect_timeout(&proxy.addr(), PATIENCE).expect("the proxy accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        Self(stream)
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("the proxy reads");
    }

    fn receive(&mut self, bytes: usize) -> String {
        let mut buffer = vec![0; bytes];
        self.0.read_exact(&mut buffer).expect("a reply");
        String::from_utf8(buffer).expect("text")
    }

    fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.receive(text.len() + 1)
    }

    /// Everything until the orderly end.
    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).expect("an orderly end");
        text
    }

    fn is_silent(&mut self) -> bool {
        self.0.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let silent =
            matches!(self.0.read(&mut [0]), Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        silent
    }

    fn assert_reset(&mut self) {
        let end = self.0.read(&mut [0]).expect_err("neither bytes nor an orderly end");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
}

async fn start() -> FaultProxy {
    FaultProxy::start(echo(b'<')).await
}

#[tokio::test]
async fn passing_forwards_both_ways_and_counts() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("hello"), "<hello");
    let expected = ProxyCounters { connections: 1, bytes_to_server: 5, bytes_to_client: 6, ..ProxyCounters::default() };
    assert_eq!(proxy.counters(), expected);
    client.0.shutdown(std::net::Shutdown::Write).expect("an open stream");
    assert_eq!(client.rest(), "bye");
}

#[tokio::test]
async fn much_more_than_the_buffers_arrives_whole_and_in_order() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let (mut out, all) = (client.0.try_clone().expect("a second handle"), sent.clone());
    let writing = std::thread::spawn(move || {
        out.write_all(&all).expect("the proxy reads");
        out.shutdown(std::net::Shutdown::Write).expect("an open stream");
    });
    let mut received = Vec::new();
    client.0.read_to_end(&mut received).expect("an orderly end");
    writing.join().expect("all was sent");
    assert!(received.ends_with(b"bye"));
    received.truncate(received.len() - 3);
    received.retain(|&byte| byte != b'<');
    assert!(received == sent);
}

#[tokio::test]
async fn refusing_closes_the_door_and_leaves_open_connections_alone() {
    let proxy = start().await;
    let mut before = Client::new(&proxy);
    assert_eq!(before.ask("a"), "<a");
    for _ in 0..3 {
        proxy.refuse_new();
        let refused = TcpStream::connect_timeout(&proxy.addr(), PATIENCE).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(before.ask("b"), "<b");
        proxy.pass();
        assert_eq!(Client::new(&proxy).ask("c"), "<c");
    }
}

#[tokio::test]
async fn a_reset_is_an_error_and_a_fin_is_an_end() {
    let proxy = start().await;
    let (mut one, mut two) = (Client::new(&proxy), Client::new(&proxy));
    assert_eq!((one.ask("a"), two.ask("b")), ("<a".into(), "<b".into()));
    proxy.cut_all(Cut::Reset);
    one.assert_reset();
    two.assert_reset();
    let mut three = Client::new(&proxy);
    assert_eq!(three.ask("c"), "<c");
    proxy.cut_all(Cut::Fin);
    assert_eq!(three.rest(), "");
    assert_eq!(proxy.counters().cut, 3);
}

#[tokio::test]
async fn a_connection_that_has_sent_nothing_is_cut_too() {
    let proxy = start().await;
    let mut idle: Vec<Client> = (0..20).map(|_| Client::new(&proxy)).collect();
    proxy.cut_all(Cut::Reset);
    idle.iter_mut().for_each(Client::assert_reset);
}

#[tokio::test]
async fn down_is_a_server_that_is_gone() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("a"), "<a");
    proxy.down(Cut::Reset);
    client.assert_reset();
    assert!(TcpStream::connect(proxy.addr()).is_err());
    proxy.pass();
    assert_eq!(Client::new(&proxy).ask("b"), "<b");
}

#[tokio::test]
async fn each_direction_is_delayed_by_itself() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    let delay = Duration::from_millis(40);
    for (to_server, to_client) in [(true, false), (false, true), (true, true)] {
        proxy.pass();
        let mut expected = Duration::ZERO;
        for (wanted, direction) in [(to_server, Direction::ToServer), (to_client, Direction::ToClient)] {
            if wanted {
                proxy.delay(direction, delay);
                expected += delay;
            }
        }
        let started = Instant::now();
        assert_eq!(client.ask("slow"), "<slow");
        assert!(started.elapsed() >= expected, "{:?}", started.elapsed());
    }
    // A long delay that is taken back holds up nothing.
    proxy.delay(Direction::ToClient, PATIENCE * 60);
    client.send("late");
    assert!(client.is_silent());
    proxy.pass();
    assert_eq!(client.receive(5), "<late");
}

#[tokio::test]
async fn half_closed_to_the_server_still_answers() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("a"), "<a");
    proxy.half_close(Direction::ToServer);
    client.send("lost");
    assert_eq!(client.rest(), "bye");
    assert_eq!(proxy.counters().bytes_to_server, 1);
    // A new connection starts half-closed.
    assert_eq!(Client::new(&proxy).rest(), "bye");
    proxy.pass();
    assert_eq!(Client::new(&proxy).ask("b"), "<b");
}

#[tokio::test]
async fn half_closed_to_the_client_still_asks() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("a"), "<a");
    proxy.half_close(Direction::ToClient);
    proxy.half_close(Direction::ToClient);
    assert_eq!(client.rest(), "");
    client.send("done");
    until(|| proxy.counters().bytes_to_server == 5 && proxy.counters().swallowed_to_client == 5).await;
}

#[tokio::test]
async fn swallowed_replies_belong_to_requests_that_were_done() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    proxy.swallow(Direction::ToClient);
    client.send("abc");
    until(|| proxy.counters().swallowed_to_client == 4).await;
    assert_eq!(proxy.counters().bytes_to_server, 3);
    assert!(client.is_silent());
    proxy.pass();
    assert_eq!(client.ask("next"), "<next");
}

#[tokio::test]
async fn swallowed_requests_reach_nobody() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    proxy.swallow(Direction::ToServer);
    client.send("abc");
    until(|| proxy.counters().swallowed_to_server == 3).await;
    proxy.pass();
    assert_eq!(client.ask("next"), "<next");
    assert_eq!(proxy.counters().bytes_to_server, 4);
}

#[tokio::test]
async fn the_next_reply_is_lost_once_and_its_request_was_done() {
    let proxy = start().await;
    let (mut idle, mut client) = (Client::new(&proxy), Client::new(&proxy));
    assert_eq!(client.ask("a"), "<a");
    proxy.swallow_next_reply();
    client.send("lost");
    client.assert_reset();
    let counters = proxy.counters();
    assert_eq!((counters.replies_swallowed, counters.swallowed_to_client, counters.cut), (1, 5, 1));
    assert_eq!(counters.bytes_to_server, 5);
    assert_eq!(idle.ask("b"), "<b");
    assert_eq!(Client::new(&proxy).ask("c"), "<c");
    assert_eq!(proxy.counters().replies_swallowed, 1);
}

#[tokio::test]
async fn a_black_hole_accepts_and_says_nothing_until_it_is_lifted() {
    let proxy = start().await;
    let mut open = Client::new(&proxy);
    assert_eq!(open.ask("a"), "<a");
    proxy.black_hole();
    let mut new = Client::new(&proxy);
    open.send("old");
    new.send("new");
    assert!(open.is_silent() && new.is_silent());
    assert_eq!(proxy.counters().bytes_to_server, 1);
    proxy.pass();
    assert_eq!((open.receive(4), new.receive(4)), ("<old".into(), "<new".into()));
}

#[tokio::test]
async fn a_black_hole_can_be_cut() {
    let proxy = start().await;
    proxy.black_hole();
    let mut client = Client::new(&proxy);
    proxy.half_close(Direction::ToServer);
    proxy.cut_all(Cut::Fin);
    assert_eq!(client.rest(), "");
}

#[tokio::test]
async fn a_request_is_cut_in_its_middle() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("a"), "<a");
    proxy.cut_after(Direction::ToServer, 3, Cut::Fin);
    client.send("request");
    assert_eq!(client.rest(), "");
    assert_eq!(proxy.counters().bytes_to_server, 4);
    assert_eq!(Client::new(&proxy).ask("whole again"), "<whole again");
}

#[tokio::test]
async fn a_reply_is_cut_in_its_middle_by_either_end() {
    let proxy = start().await;
    proxy.cut_after(Direction::ToClient, 4, Cut::Fin);
    let mut client = Client::new(&proxy);
    client.send("reply");
    assert_eq!(client.rest(), "<rep");
    proxy.cut_after(Direction::ToClient, 0, Cut::Reset);
    let mut client = Client::new(&proxy);
    client.send("reply");
    client.assert_reset();
    assert_eq!(proxy.counters().cut, 2);
}

#[tokio::test]
async fn a_limit_makes_bytes_take_their_time() {
    let proxy = start().await;
    let mut client = Client::new(&proxy);
    proxy.limit(Direction::ToServer, NonZeroU32::new(10_000));
    let started = Instant::now();
    let text = "x".repeat(1_000);
    client.send(&text);
    let mut echoed = 0;
    while echoed < text.len() {
        let mut buffer = [0; 1_000];
        let read = client.0.read(&mut buffer).expect("the echo");
        echoed += buffer[..read].iter().filter(|&&byte| byte == b'x').count();
    }
    // The last of five portions needs no pause behind it.
    assert!(started.elapsed() >= Duration::from_millis(75), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_new_target_is_for_new_connections() {
    let proxy = start().await;
    let mut old = Client::new(&proxy);
    assert_eq!(old.ask("a"), "<a");
    proxy.retarget(echo(b'>'));
    proxy.pass();
    assert_eq!(Client::new(&proxy).ask("b"), ">b");
    assert_eq!(old.ask("c"), "<c");
}

#[tokio::test]
async fn a_target_that_is_not_there_resets() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let proxy = FaultProxy::start(gone).await;
    // Held back, or the reset could come while the client still connects.
    proxy.black_hole();
    let mut client = Client::new(&proxy);
    proxy.pass();
    client.assert_reset();
    assert_eq!(proxy.counters().unreachable, 1);
}

#[tokio::test]
async fn the_guard_ends_everything() {
    let proxy = start().await;
    let addr = proxy.addr();
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("a"), "<a");
    drop(proxy);
    assert!(!client.is_silent());
    assert_eq!(TcpStream::connect(addr).expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_stop_it() {
    let proxy = start().await;
    proxy.delay(Direction::ToServer, Duration::from_millis(20));
    assert_eq!(Client::new(&proxy).ask("a"), "<a");
}

/// Looks again until it holds.
async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

//! Private Redis servers: they start, die, come back and end.

use infra_testkit::{RedisServer, Reply};

#[test]
fn a_server_starts_and_ends() {
    let server = RedisServer::start();
    assert_eq!(server.cli(&["SET", "key", "value"]), Reply::Status("OK".to_owned()));
    assert_eq!(server.cli(&["GET", "key"]).text(), "value");
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
    let (pid, dir, addr) = (server.pid(), server.dir().to_owned(), server.addr());
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!dir.exists());
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn an_acknowledged_write_survives_a_kill() {
    let mut server = RedisServer::start();
    let _ = server.cli(&["SET", "key", "value"]);
    let (pid, port) = (server.pid(), server.port());
    server.kill();
    assert!(server.try_cli(&["PING"]).is_err());
    server.restart();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.port(), port);
    assert_eq!(server.cli(&["GET", "key"]).text(), "value");
}

//! Private PostgreSQL servers: they start, die, come back and end.

use infra_testkit::PostgresServer;

#[test]
fn a_server_starts_and_ends() {
    let server = PostgresServer::start();
    assert_eq!(server.psql("select 1 union select 2 order by 1"), "1\n2");
    assert!(server.try_psql("select nothing").unwrap_err().contains("does not exist"));
    let (pid, dir, addr) = (server.pid(), server.dir().to_owned(), server.addr());
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!dir.exists());
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn an_acknowledged_commit_survives_a_kill() {
    let mut server = PostgresServer::start();
    server.psql("create table kept (n int); insert into kept values (7)");
    let (pid, port) = (server.pid(), server.port());
    server.kill();
    assert!(server.try_psql("select 1").is_err());
    server.restart();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.port(), port);
    assert_eq!(server.psql("select n from kept"), "7");
}

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

#[test]
fn a_frozen_server_answers_when_it_goes_on() {
    use std::io::{Read, Write};
    let mut server = RedisServer::start();
    let mut client = std::net::TcpStream::connect(server.addr()).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    server.stop_process();
    client.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    assert!(client.read(&mut answer).is_err(), "a frozen server must not answer");
    server.continue_process();
    client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    // A frozen one can be killed, too.
    server.stop_process();
    server.kill();
}

#[test]
fn settings_reach_the_server() {
    let server = RedisServer::builder()
        .config("maxmemory", "20mb")
        .config("maxmemory-policy", "allkeys-lru")
        .config("appendfsync", "everysec")
        .start();
    let set = |name: &str| server.cli(&["CONFIG", "GET", name]).text();
    assert_eq!(set("maxmemory-policy"), "maxmemory-policy\nallkeys-lru");
    assert_eq!(set("maxmemory"), "maxmemory\n20971520");
    assert_eq!(set("appendfsync"), "appendfsync\neverysec");
    assert_eq!(set("appendonly"), "appendonly\nyes");
    assert_eq!(set("save"), "save\n");
}

#[test]
fn passwords_are_asked_for() {
    let password = "p@ss \"word/\\";
    for server in
        [RedisServer::builder().password(password).start(), RedisServer::builder().acl_user("trader", password).start()]
    {
        assert_eq!(server.cli(&["PING"]), Reply::Status("PONG".to_owned()));
        assert!(server.url().contains(":p%40ss%20%22word%2F%5C@127.0.0.1:"), "{}", server.url());
        let out = redis_cli(&server, &["PING"]);
        assert!(out.contains("NOAUTH"), "{out}");
    }
}

#[test]
fn a_replica_follows_and_refuses_writes() {
    let master = RedisServer::builder().password("secret").start();
    let _ = master.cli(&["SET", "key", "value"]);
    let replica = RedisServer::builder().replica_of(&master).start();
    let follows = (0..2_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        replica.cli(&["GET", "key"]).text() == "value"
    });
    assert!(follows);
    assert!(matches!(replica.cli(&["SET", "key", "other"]), Reply::Error(refusal) if refusal.starts_with("READONLY")));
}

#[test]
fn tls_is_real() {
    let mut server = RedisServer::builder().tls().password("secret").start();
    assert!(server.url().starts_with("rediss://:secret@127.0.0.1:"));
    let (ca, other) = (server.certificates().ca_file(), server.certificates().other_ca_file());
    let trusting = |server: &RedisServer, ca: &std::path::Path, more: &[&str]| {
        let always = ["--tls", "--cacert", ca.to_str().unwrap(), "-a", "secret", "--no-auth-warning"];
        redis_cli(server, &[&always[..], more, &["PING"]].concat())
    };
    assert_eq!(trusting(&server, &ca, &[]), "PONG");
    assert!(trusting(&server, &other, &[]).contains("certificate verify failed"));
    assert!(!redis_cli(&server, &["PING"]).contains("PONG"), "the port must not speak without TLS");
    server.kill();
    server.restart();
    assert_eq!(trusting(&server, &ca, &[]), "PONG");
    assert!(server.certificates().ca_pem().starts_with("-----BEGIN CERTIFICATE-----"));

    let server = RedisServer::builder().tls_with_client_certificate().password("secret").start();
    let files = server.certificates();
    assert!(!trusting(&server, &files.ca_file(), &[]).contains("PONG"), "a client without certificate must be refused");
    let (cert, key) = (files.client_file(), files.client_key_file());
    let shown = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    assert_eq!(trusting(&server, &files.ca_file(), &shown), "PONG");
}

#[test]
fn a_certificate_can_be_for_another_host() {
    let server = RedisServer::builder().tls_for("elsewhere.example").start();
    let ca = server.certificates().ca_file();
    let seen = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &server.addr().to_string(), "-verify_return_error", "-verify_ip", "127.0.0.1"])
        .arg("-CAfile")
        .arg(ca)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&seen.stderr).into_owned() + &String::from_utf8_lossy(&seen.stdout);
    assert!(said.contains("IP address mismatch"), "{said}");
}

#[test]
fn a_server_that_does_not_start_says_why_and_keeps_its_files() {
    let start = || drop(RedisServer::builder().config("no-such-setting", "1").start());
    let panic = std::panic::catch_unwind(start).unwrap_err();
    let said = panic.downcast_ref::<String>().unwrap();
    assert!(said.contains("Bad directive or wrong number of arguments"), "{said}");
    let log = said.split_whitespace().find(|word| word.ends_with("/server.log")).unwrap();
    std::fs::remove_dir_all(std::path::Path::new(log).parent().unwrap()).unwrap();
}

/// What Redis' own client says, who speaks TLS; it comes with the server.
fn redis_cli(server: &RedisServer, args: &[&str]) -> String {
    let port = server.port().to_string();
    let out = std::process::Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &port])
        .args(args)
        .output()
        .expect("the client comes with the server");
    (String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr)).trim().to_owned()
}

#[test]
fn a_full_disk_is_real_and_there_may_be_room_again() {
    let mut server = RedisServer::builder().config("appendfsync", "everysec").file_bytes_max(256 << 10).start();
    let set = |server: &RedisServer, n: u32| server.cli(&["SET", &n.to_string(), &"x".repeat(64 << 10)]);
    let refused = (0..100).map(|n| set(&server, n)).find(|reply| matches!(reply, Reply::Error(_)));
    assert!(refused.as_ref().is_some_and(|reply| reply.text().starts_with("MISCONF")), "{refused:?}");
    server.set_file_bytes_max(None);
    while set(&server, 100) != Reply::Status("OK".to_owned()) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

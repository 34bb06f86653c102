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

#[test]
fn passwords_are_checked() {
    let server = PostgresServer::start();
    assert_eq!(psql(&server.url(), "select current_user || '@' || current_database()").unwrap(), "infra@infra");
    assert_eq!(psql(&server.url(), "create schema s; create table s.t (n int); select 1").unwrap(), "1");
    let refusal = psql(&server.url_with_password("wrong"), "select 1").unwrap_err();
    assert!(refusal.contains("password authentication failed for user \"infra\""), "{refusal}");
    let refusal = psql(&server.url(), "create role more").unwrap_err();
    assert!(refusal.contains("permission denied"), "the tests' user must be no superuser: {refusal}");
}

#[test]
fn settings_reach_the_server() {
    let server = PostgresServer::start();
    assert_eq!(server.psql("show fsync"), "off");
    assert_eq!(server.psql("show synchronous_commit"), "on");
    let server = PostgresServer::builder().durable().config("cluster_name", "it's").start();
    assert_eq!(server.psql("show fsync"), "on");
    assert_eq!(server.psql("show full_page_writes"), "on");
    assert_eq!(server.psql("show cluster_name"), "it's");
    let server = PostgresServer::builder().read_only().start();
    let refusal = psql(&server.url(), "create table t (n int)").unwrap_err();
    assert!(refusal.contains("read-only transaction"), "{refusal}");
}

#[test]
fn a_standby_follows_and_refuses_writes() {
    let primary = PostgresServer::start();
    primary.psql("create table kept (n int)");
    let standby = PostgresServer::builder().standby_of(&primary).start();
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    primary.psql("insert into kept values (7)");
    let follows = (0..2_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        standby.psql("select n from kept") == "7"
    });
    assert!(follows);
    let refusal = psql(&standby.url(), "create table t (n int)").unwrap_err();
    assert!(refusal.contains("read-only transaction"), "{refusal}");
}

#[test]
fn a_frozen_server_answers_when_it_goes_on() {
    let mut server = PostgresServer::start();
    server.stop_process();
    std::thread::scope(|scope| {
        let url = server.url();
        let asked = scope.spawn(move || psql(&url, "select 1"));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!asked.is_finished(), "a frozen server must not answer");
        server.continue_process();
        assert_eq!(asked.join().unwrap().unwrap(), "1");
    });
    // A frozen one can be killed and comes back.
    server.stop_process();
    server.restart();
    assert_eq!(psql(&server.url(), "select 1").unwrap(), "1");
}

#[test]
fn a_killed_server_comes_back_again_and_again_with_clients_inside() {
    let mut server = PostgresServer::start();
    server.psql("create table kept (n int)");
    for n in 0..5 {
        server.psql(&format!("insert into kept values ({n})"));
        std::thread::scope(|scope| {
            let url = server.url();
            let inside = scope.spawn(move || psql(&url, "select pg_sleep(60)"));
            while server
                .psql("select count(*) from pg_stat_activity where query like '%pg_sleep%' and usename = 'infra'")
                == "0"
            {}
            server.kill();
            assert!(inside.join().unwrap().is_err());
        });
        server.restart();
        assert_eq!(server.psql("select count(*) from kept"), (n + 1).to_string());
    }
}

#[test]
fn tls_is_real() {
    let server = PostgresServer::builder().tls().start();
    let ssl = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(psql(&server.url(), ssl).unwrap(), "t");
    let other = server.certificates().other_ca_file();
    let distrusting = format!("{}?sslmode=verify-full&sslrootcert={}", server.bare_url(), other.display());
    assert!(psql(&distrusting, ssl).unwrap_err().contains("certificate verify failed"));
    let refusal = psql(&format!("{}?sslmode=disable", server.bare_url()), ssl).unwrap_err();
    assert!(refusal.contains("no encryption"), "{refusal}");

    let server = PostgresServer::builder().tls_for("elsewhere.example").start();
    let refusal = psql(&server.url(), ssl).unwrap_err();
    assert!(refusal.contains("does not match host name"), "{refusal}");

    let server = PostgresServer::builder().tls_with_client_certificate().start();
    assert!(psql(&server.url(), ssl).is_err(), "a client without certificate must be refused");
    let files = server.certificates();
    let (cert, key) = (files.client_file(), files.client_key_file());
    let shown = format!("{}&sslcert={}&sslkey={}", server.url(), cert.display(), key.display());
    assert_eq!(psql(&shown, ssl).unwrap(), "t");
}

#[test]
fn a_server_that_does_not_start_says_why_and_keeps_its_files() {
    let start = || drop(PostgresServer::builder().config("no_such_setting", "1").start());
    let panic = std::panic::catch_unwind(start).unwrap_err();
    let said = panic.downcast_ref::<String>().unwrap();
    assert!(said.contains("unrecognized configuration parameter"), "{said}");
    let log = said.split_whitespace().find(|word| word.ends_with("/server.log")).unwrap();
    std::fs::remove_dir_all(std::path::Path::new(log).parent().unwrap()).unwrap();
}

/// As a client from outside: over TCP, with what the URL says.
fn psql(url: &str, sql: &str) -> Result<String, String> {
    let mut command = std::process::Command::new("psql");
    let out = command
        .args([url, "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql])
        .current_dir("/")
        .output()
        .expect("the client comes with the server");
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

#[test]
fn a_full_disk_is_real_and_there_may_be_room_again() {
    let mut server = PostgresServer::builder().file_bytes_max((5 << 20) + 512).start();
    server.psql("CREATE TABLE t (page text); ALTER TABLE t ALTER page SET STORAGE PLAIN");
    let fill = "INSERT INTO t SELECT repeat('x', 7000) FROM generate_series(1, 1000)";
    let full = server.try_psql(fill).unwrap_err();
    assert!(full.contains("could not extend file") && full.contains("wrote only"), "{full}");
    server.set_file_bytes_max(None);
    server.psql(fill);
    assert_eq!(server.psql("SELECT count(*) FROM t"), "1000");
}

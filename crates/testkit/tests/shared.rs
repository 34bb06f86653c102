//! One server for many test processes, with real processes: who comes first starts it, who leaves last ends it, and what a crash
//! left behind heals.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use infra_testkit::{
    KillableChild, PostgresServer, RedisCluster, RedisServer, TestDir, child_argument, say, unique_name,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// What a child does: use the server that its argument names, say which it got, and stay.
fn be_a_user() -> bool {
    let Some(what) = child_argument() else { return false };
    let name = unique_name();
    match what.to_str().expect("plain text") {
        "redis" => {
            let server = RedisServer::shared();
            assert_eq!(server.cli(&["SET", &name, &name]).text(), "OK");
            assert!(std::ptr::eq(server, RedisServer::shared()));
            say(format!("server {} {}", server.pid(), server.dir().display()));
        }
        "cluster" => {
            let cluster = RedisCluster::shared();
            let master = cluster.master_of(cluster.slot_of(&name)).expect("a whole cluster");
            assert_eq!(cluster.nodes()[master].cli(&["SET", &name, &name]).text(), "OK");
            let dir = cluster.nodes()[0].dir().parent().expect("below the run");
            say(format!("server {} {}", cluster.nodes()[0].pid(), dir.display()));
        }
        "postgres" => {
            let server = PostgresServer::shared();
            server.psql(&format!("create schema {name}"));
            say(format!("server {} {}", server.pid(), server.dir().display()));
        }
        "tls" => {
            let (redis, postgres) = (RedisServer::shared_tls(), PostgresServer::shared_tls());
            assert!(redis.url().starts_with("rediss://") && postgres.url().contains("verify-full"));
            assert_eq!(redis.certificates().ca_pem(), RedisServer::shared_tls().certificates().ca_pem());
            say(format!("server {} {}", redis.pid(), redis.dir().display()));
        }
        other => panic!("no such part: {other}"),
    }
    std::thread::sleep(PATIENCE);
    true
}

/// A temporary directory that a server's user may enter.
fn open_dir() -> TestDir {
    let dir = TestDir::new();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("it is ours");
    dir
}

fn runs(pid: &str) -> bool {
    // A zombie is dead; only its parent can bury it.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn becomes(what: &str, done: impl Fn() -> bool) {
    let became = (0..3_000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        done()
    });
    assert!(became, "not within 30 s: {what}");
}

fn many_meet_one(test: &str, what: &str, count: usize) {
    let dir = open_dir();
    let mut users: Vec<_> = (0..count).map(|_| KillableChild::this_test_in(dir.path(), test, what)).collect();
    let said: Vec<String> = users.iter_mut().map(|user| user.wait_for("server ", PATIENCE)).collect();
    assert!(said.iter().all(|line| line == &said[0]), "{said:#?}");
    let (pid, run) = said[0].strip_prefix("server ").and_then(|rest| rest.split_once(' ')).expect("pid and directory");

    // While one is left the server stays: longer than the grace.
    let mut last = users.pop().expect("more than one");
    users.into_iter().for_each(|user| drop(user.kill()));
    std::thread::sleep(Duration::from_secs(6));
    assert!(runs(pid));
    // A newcomer finds it.
    let mut newcomer = KillableChild::this_test_in(dir.path(), test, what);
    assert_eq!(newcomer.wait_for("server ", PATIENCE), said[0]);
    drop(newcomer.kill());
    assert!(last.next_line(Duration::from_millis(1)).is_err());
    drop(last.kill());
    becomes("the server ends", || !runs(pid));
    becomes("its directory goes", || !Path::new(run).exists());
}

#[test]
fn many_processes_meet_one_redis() {
    if !be_a_user() {
        many_meet_one("many_processes_meet_one_redis", "redis", 8);
    }
}

#[test]
fn many_processes_meet_one_postgres() {
    if !be_a_user() {
        many_meet_one("many_processes_meet_one_postgres", "postgres", 4);
    }
}

#[test]
fn many_processes_meet_one_cluster() {
    if !be_a_user() {
        many_meet_one("many_processes_meet_one_cluster", "cluster", 3);
    }
}

#[test]
fn many_processes_meet_servers_with_tls() {
    if !be_a_user() {
        many_meet_one("many_processes_meet_servers_with_tls", "tls", 2);
    }
}

#[test]
fn what_a_crash_left_heals() {
    if be_a_user() {
        return;
    }
    let test = "what_a_crash_left_heals";
    for what in ["redis", "postgres", "cluster"] {
        let dir = open_dir();
        let mut user = KillableChild::this_test_in(dir.path(), test, what);
        let first = user.wait_for("server ", PATIENCE);
        let (pid, run) = first.strip_prefix("server ").unwrap().split_once(' ').unwrap();
        // The server dies while it is in use: who comes next starts another, and the address file is a stale one until then.
        assert!(Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status().unwrap().success());
        becomes("the server dies", || !runs(pid));
        let mut next = KillableChild::this_test_in(dir.path(), test, what);
        let second = next.wait_for("server ", PATIENCE);
        assert_ne!(second, first);
        assert!(!Path::new(run).exists(), "what the dead one left must go");
        drop((user.kill(), next.kill()));
        let pid = second.split_whitespace().nth(1).unwrap();
        becomes("the second server ends", || !runs(pid));
    }
}

#[test]
fn a_starter_that_is_killed_stops_nobody() {
    if be_a_user() {
        return;
    }
    let test = "a_starter_that_is_killed_stops_nobody";
    let dir = open_dir();
    for delay_ms in [5, 20, 40, 60, 80, 120, 200, 300] {
        let starter = KillableChild::this_test_in(dir.path(), test, "postgres");
        std::thread::sleep(Duration::from_millis(delay_ms));
        drop(starter.kill());
    }
    let mut user = KillableChild::this_test_in(dir.path(), test, "postgres");
    let said = user.wait_for("server ", PATIENCE);
    drop(user.kill());
    let pid = said.split_whitespace().nth(1).unwrap();
    becomes("the server ends", || !runs(pid));
    let alone = || {
        let standing = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
            std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir.path()))
        });
        standing.count() == 0
    };
    becomes("no process stays behind", alone);
}

//! Private servers end although the test process is killed, and leave no files.

use std::{path::Path, time::Duration};

use infra_testkit::{KillableChild, PostgresServer, RedisServer, child_argument, say};

#[test]
fn servers_end_with_a_killed_test() {
    if let Some(part) = child_argument() {
        let (mut redis, mut postgres) = (RedisServer::start(), PostgresServer::start());
        if part == "frozen" {
            redis.stop_process();
            postgres.stop_process();
        }
        say(format!("redis {} {}", redis.pid(), redis.dir().display()));
        say(format!("postgres {} {}", postgres.pid(), postgres.dir().display()));
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    for part in ["running", "frozen"] {
        let mut child = KillableChild::this_test("servers_end_with_a_killed_test", part);
        let lines =
            ["redis ", "postgres "].map(|start| child.wait_for(start, Duration::from_secs(60)).split_off(start.len()));
        assert!(child.kill().is_empty());
        for line in lines {
            let (pid, dir) = line.split_once(' ').unwrap();
            let gone = (0..2_000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let dead = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
                dead && !Path::new(dir).exists()
            });
            assert!(gone, "{part}: {line} must be gone");
        }
    }
}

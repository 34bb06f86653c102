//! Kills a process that appends, again and again, and looks for every event that it was told is stored.
//!
//! The test starts itself as the victim. It owns `main`, and answers what test runners ask.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use infra_audit_log::{AuditEvent, AuditKind, AuditLog, AuditQuery, CheckpointFile, SqliteAuditLog, Verdict};
use infra_backends::{Sqlite, SqliteConfig, Synchronous};
use infra_types::{EventId, ManualClock, Timestamp};

const NAME: &str = "killed_at_any_point_it_keeps_what_it_acknowledged";
const VICTIM: &str = "--append-until-killed";
const ROUNDS: u64 = 6;

fn open(dir: &Path) -> SqliteAuditLog {
    // The process dies, not the machine.
    let config = SqliteConfig::new(dir.join("audit.db")).with_synchronous(Synchronous::Normal);
    SqliteAuditLog::new(Sqlite::new(config), Arc::new(ManualClock::default()))
}

fn witness(dir: &Path) -> CheckpointFile {
    CheckpointFile::new(dir.join("audit.note"), dir.join("audit.key"), "test.example/kill")
}

/// Appends batches of one to four, and prints `index id` once each event is acknowledged, `signed size` once a head is signed.
async fn append_until_killed(dir: &Path, round: u64) {
    let (log, witness, mut out) = (open(dir), witness(dir), std::io::stdout());
    for n in 0.. {
        let ids: Vec<_> = (0..=n % 4).map(|k| format!("{round}-{n}-{k}")).collect();
        let event = |id: &String| {
            AuditEvent::new(EventId::new(id).unwrap(), AuditKind::SystemEvent, Timestamp::EPOCH, "bot", "tick")
        };
        let receipts = log.append_batch(ids.iter().map(event).collect()).await.unwrap();
        for (receipt, id) in receipts.iter().zip(&ids) {
            writeln!(out, "{} {id}", receipt.index).unwrap();
        }
        if n % 16 == 0 {
            writeln!(out, "signed {}", witness.advance(&log).await.unwrap().head().size).unwrap();
        }
        out.flush().unwrap();
    }
}

/// Runs a victim and kills it after some lines; answers every whole line that it had printed by then.
fn kill_one(dir: &Path, round: u64) -> Vec<String> {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([VICTIM, &round.to_string()])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(victim.stdout.take().unwrap());
    let (mut lines, mut line) = (Vec::new(), String::new());
    while lines.len() < 40 + 57 * usize::try_from(round).unwrap() && out.read_line(&mut line).unwrap() > 0 {
        lines.push(std::mem::take(&mut line));
    }
    // SIGKILL: no destructor runs, no buffer is written.
    victim.kill().unwrap();
    victim.wait().unwrap();
    while out.read_line(&mut line).unwrap() > 0 {
        lines.push(std::mem::take(&mut line));
    }
    lines.retain(|line| line.ends_with('\n'));
    lines
}

async fn check() {
    let dir = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut signed) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        for line in kill_one(dir.path(), round) {
            let (first, second) = line.trim_end().split_once(' ').unwrap();
            match first {
                "signed" => signed = second.parse().unwrap(),
                index => acknowledged.push((index.parse::<u64>().unwrap(), second.to_owned())),
            }
        }
        let log = open(dir.path());
        let mut stored = Vec::new();
        let mut query = AuditQuery { limit: 1_000, ..AuditQuery::default() };
        loop {
            let page = log.query(query.clone()).await.unwrap();
            stored.extend(page.events.iter().map(|event| (event.index, event.event.id.to_string())));
            match page.next {
                Some(next) => query.after_index = Some(next),
                None => break,
            }
        }
        assert!(stored.iter().map(|(index, _)| *index).eq(0..stored.len() as u64), "the indices have gaps");
        let lost: Vec<_> =
            acknowledged.iter().filter(|(index, id)| stored.get(*index as usize).is_none_or(|s| s.1 != *id)).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");

        let checkpoint = witness(dir.path()).load().await.unwrap().expect("the victim signed at its start");
        assert!(checkpoint.head().size >= signed, "an acknowledged checkpoint is gone");
        let verdict = log.verify(Some(&checkpoint)).await.unwrap();
        assert!(matches!(verdict, Verdict::Ok { head, .. } if head.size == stored.len() as u64), "{verdict:?}");
        println!(
            "round {round}: {} acknowledged, {} stored, 0 lost, signed at {signed}",
            acknowledged.len(),
            stored.len()
        );
    }
    assert!(acknowledged.len() > 500, "too few events to say anything: {}", acknowledged.len());
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match args.get(1).map(String::as_str) {
        Some(VICTIM) => runtime.block_on(append_until_killed(Path::new(&args[3]), args[2].parse().unwrap())),
        _ if args.iter().any(|arg| arg == "--list") => {
            if !args.iter().any(|arg| arg == "--ignored") {
                println!("{NAME}: test");
            }
        }
        _ => {
            runtime.block_on(check());
            println!("test {NAME} ... ok");
        }
    }
}

//! `trading_bot` as a user meets it: killed, stopped, misused, and gone on with.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use infra_types::{Clock, SystemClock};
use serde_json::Value;

/// Kills at moments all over the run that must each end like an uninterrupted run.
const KILLS: u64 = 20;
/// Events of the shipped data that these tests replay: enough for orders of every fate, few enough for a debug build.
const EVENTS: usize = 12_000;

fn program() -> PathBuf {
    // cargo builds a package's examples beside its tests.
    let test = std::env::current_exe().expect("this test");
    let dir = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let program = dir.join("examples").join(format!("trading_bot{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "build it first: cargo build -p infra-examples --example trading_bot");
    program
}

/// The first events of the shipped data, as a plain file.
fn input() -> &'static Path {
    static INPUT: std::sync::OnceLock<(tempfile::TempDir, PathBuf)> = std::sync::OnceLock::new();
    let (_, path) = INPUT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("short.json");
        let data =
            BufReader::new(flate2::read::GzDecoder::new(std::fs::File::open(SHIPPED).expect("the shipped data")));
        let lines: Vec<String> = data.lines().take(EVENTS).map(|l| l.expect("a line")).collect();
        std::fs::write(&path, lines.join("\n")).expect("written");
        (dir, path)
    });
    path
}

const SHIPPED: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/data/binance_spot_trades_l1_btcusdt_ethusdt_solusdt.json.gz");

fn bot(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["--preset", "standalone", "--json", "--data-dir"]).arg(dir).args(more);
    if !more.contains(&"--input") {
        command.arg("--input").arg(input());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(dir: &Path, more: &[&str]) -> Value {
    let output = bot(dir, more).output().expect("the bot starts");
    report(&output)
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_str(text.lines().last().expect("a report")).expect("one JSON object")
}

/// What must not depend on whether a run was interrupted.
fn essence(report: &Value) -> Vec<(&'static str, Value)> {
    let fields = [
        "events",
        "signals",
        "orders",
        "orders_by_status",
        "orders_open",
        "orders_digest",
        "refusals",
        "fills",
        "fees",
        "realised",
        "unrealised",
        "pnl",
        "max_drawdown",
        "positions",
        "reserved",
        "halt",
        "halt_transitions",
        "duplicates_at_exchange",
    ];
    fields.into_iter().map(|f| (f, report[f].clone())).collect()
}

fn assert_sound(report: &Value) {
    assert!(report["audit_verify"].as_str().is_some_and(|v| v.starts_with("OK")), "{report}");
    assert_eq!(report["duplicates_at_exchange"], 0, "{report}");
    for (what, count) in report["drops"].as_object().expect("drops") {
        assert_eq!(count, 0, "{what}");
    }
}

/// Kills the bot (not the exchange) so long after its start; whether it was still running.
fn kill_after(mut child: Child, wait: Duration) -> bool {
    std::thread::sleep(wait);
    let was_running = child.try_wait().expect("a status").is_none();
    child.kill().expect("kill -9");
    child.wait().expect("it ends");
    was_running
}

#[test]
fn a_killed_run_goes_on_and_ends_like_an_uninterrupted_one() {
    let (more, kills): (&[&str], u64) = (&[], KILLS);
    let reference_dir = tempfile::tempdir().expect("a directory");
    let began = SystemClock.now();
    let reference = finish(reference_dir.path(), more);
    let whole = SystemClock.now().since(began);
    assert_sound(&reference);
    assert!(reference["fills"].as_u64().is_some_and(|n| n > 20), "{reference}");
    assert_eq!(reference["orders_open"], 0);
    let (mut whole, mut round) = (whole, 0);
    while round < kills {
        let dir = tempfile::tempdir().expect("a directory");
        // Spread over the whole run by the golden ratio; a second kill falls into the run that goes on.
        let moments = [round, round + kills].map(|n| (n as f64 * 0.618_034).fract());
        let start =
            || bot(dir.path(), more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the bot starts");
        if !kill_after(start(), whole.mul_f64(moments[0])) {
            // The machine is faster than it was for the reference: an unharmed run proves nothing.
            whole = whole.mul_f64(0.8);
            continue;
        }
        kill_after(start(), whole.mul_f64(moments[1]));
        let report = finish(dir.path(), more);
        assert_eq!(essence(&report), essence(&reference), "round {round}, killed at {moments:?} of the run");
        assert_sound(&report);
        round += 1;
    }
}

#[test]
fn a_halt_is_still_a_halt_after_a_kill() {
    // An event with a signal: the checkpoint behind it is written before the halt is.
    let more = &["--halt-after", "4146"];
    let dir = tempfile::tempdir().expect("a directory");
    let reference = finish(dir.path(), more);
    assert_eq!((&reference["halt"], &reference["halt_transitions"]), (&"HALT".into(), &1.into()));
    assert!(reference["refusals"]["not_reducing_in_halt"].as_u64().is_some_and(|n| n > 0), "{reference}");
    for moment in [0.3, 0.45, 0.5, 0.8] {
        let dir = tempfile::tempdir().expect("a directory");
        let child = bot(dir.path(), more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the bot starts");
        kill_after(child, Duration::from_secs_f64(reference["wall_ms"].as_f64().unwrap_or(0.0) / 1_000.0 * moment));
        let report = finish(dir.path(), more);
        assert_eq!(essence(&report), essence(&reference), "killed at {moment} of the run");
        assert_sound(&report);
    }
}

#[test]
fn memory_and_sqlite_give_the_same_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let sqlite = finish(dir.path(), &[]);
    let memory = Command::new(program()).arg("--json").arg("--input").arg(input()).output().expect("the bot starts");
    assert_eq!(essence(&report(&memory)), essence(&sqlite));
    // A second run on the same directory has nothing left to do and says the same.
    assert_eq!(essence(&finish(dir.path(), &[])), essence(&sqlite));
}

/// A market that makes the strategy buy, falls by 1 % and comes back, without another order.
fn dip() -> String {
    let at = |ms: usize| format!("2025-03-25T23:{:02}:{:02}.{:03}Z", ms / 60_000, ms / 1_000 % 60, ms % 1_000);
    let row = |ms: usize, kind: String| {
        format!(r#"{{"Item":{{"time_received":"{}","instrument":0,"kind":{kind}}}}}"#, at(ms))
    };
    let quote = |bid: u32| {
        format!(r#"{{"OrderBookL1":{{"best_bid":{{"price":"{bid}.00"}},"best_ask":{{"price":"{bid}.01"}}}}}}"#)
    };
    // Mostly buys: all buys would make the strategy so sure that its order is too large.
    let trade = |n: usize| {
        let side = if n.is_multiple_of(7) { "Sell" } else { "Buy" };
        format!(r#"{{"Trade":{{"price":80000,"amount":0.1,"side":"{side}"}}}}"#)
    };
    let mut rows = vec![row(0, quote(80_000))];
    rows.extend((1..40).map(|n| row(n * 20, trade(n))));
    let prices = [(40, 80_000), (2_000, 79_000), (2_000, 80_000)];
    let bids = prices.into_iter().flat_map(|(count, bid)| std::iter::repeat_n(bid, count));
    rows.extend(bids.enumerate().map(|(n, bid)| row(1_000 + n * 20, quote(bid))));
    rows.join("\n")
}

#[test]
fn a_drawdown_between_two_orders_is_not_forgotten_by_a_kill() {
    let files = tempfile::tempdir().expect("a directory");
    let path = files.path().join("dip.json");
    std::fs::write(&path, dip()).expect("written");
    let more = ["--input", path.to_str().expect("UTF-8")];
    let dir = tempfile::tempdir().expect("a directory");
    let reference = finish(dir.path(), &more);
    let drawdown: f64 = reference["max_drawdown"].as_str().and_then(|t| t.parse().ok()).expect("a number");
    assert!(drawdown > 50.0, "{reference}");
    for wait_ms in [1_500, 3_000] {
        let dir = tempfile::tempdir().expect("a directory");
        let slow = [&more[..], &["--speed", "20"]].concat();
        let child = bot(dir.path(), &slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the bot starts");
        assert!(kill_after(child, Duration::from_millis(wait_ms)));
        assert_eq!(essence(&finish(dir.path(), &more)), essence(&reference), "killed after {wait_ms} ms");
    }
}

fn refused(command: &mut Command) -> String {
    let output = command.output().expect("the bot starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{errors}");
    let lines: Vec<&str> = errors.lines().filter(|l| !l.starts_with("20")).collect();
    assert_eq!(lines.len(), 1, "one line, please: {errors}");
    lines[0].to_owned()
}

#[test]
fn bad_input_is_refused_before_anything_is_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let whole = std::fs::read(SHIPPED).expect("the shipped data");
    let mut broken = whole.clone();
    broken[400_000] ^= 0xff;
    let cases = [
        (file("empty.json", b""), "holds no events"),
        (file("cut.json.gz", &whole[..whole.len() / 2]), "cut off"),
        (file("broken.json.gz", &broken), "damaged"),
        (file("text.json", b"hello\n"), "line 1"),
        (file("half.json", br#"{"Item":{"time_received":"2025-03-25T23:07:00Z","#), "line 1"),
        (
            file("price.json", br#"{"Item":{"time_received":"2025-03-25T23:07:00Z","instrument":0,"kind":{"Trade":{"id":"1","price":-1,"amount":1,"side":"Buy"}}}}"#),
            "must be above zero",
        ),
        (
            file("instrument.json", br#"{"Item":{"time_received":"2025-03-25T23:07:00Z","instrument":9,"kind":{"Trade":{"id":"1","price":1,"amount":1,"side":"Buy"}}}}"#),
            "instrument 9 is unknown",
        ),
        (dir.path().join("missing.json"), "cannot read"),
        (dir.path().to_owned(), "cannot read"),
    ];
    for (path, want) in cases {
        let data = dir.path().join("data");
        let line = refused(&mut bot(&data, &["--input", path.to_str().expect("UTF-8")]));
        assert!(line.contains(want), "{}: {line}", path.display());
        assert!(!data.exists(), "{} left something behind", path.display());
    }
}

#[test]
fn wrong_places_and_names_are_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let line = refused(Command::new(program()).args(["--preset", "standalon"]));
    assert!(line.contains("standalone"), "{line}");
    let line = refused(Command::new(program()).args(["--preset", "production"]));
    assert!(line.contains("production") || line.contains("redis") || line.contains("postgres"), "{line}");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("written");
    let line = refused(&mut bot(&file.join("data"), &[]));
    assert!(line.contains("data directory"), "{line}");
    let line = refused(&mut bot(dir.path(), &["--bot-id", "a b"]));
    assert!(line.contains("bot"), "{line}");

    finish(dir.path(), &[]);
    let line = refused(&mut bot(dir.path(), &["--seed", "8"]));
    assert!(line.contains("seed"), "{line}");
}

#[test]
fn data_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    finish(dir.path(), &[]);
    let database = std::fs::read_dir(dir.path())
        .expect("the data dir")
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "db" || e == "sqlite"))
        .expect("a database");
    let sql = rusqlite::Connection::open(&database).expect("it opens");
    sql.execute("UPDATE infra_schema SET version = version + 99", []).expect("raised");
    let count = |sql: &rusqlite::Connection| -> i64 {
        sql.query_row("SELECT count(*) FROM audit_event", [], |r| r.get(0)).expect("counted")
    };
    let before = count(&sql);
    let line = refused(&mut bot(dir.path(), &[]));
    assert!(line.contains("newer"), "{line}");
    assert_eq!(count(&sql), before);
}

#[cfg(target_os = "linux")]
mod with_signals {
    use super::*;

    fn signal(pid: u32, signal: &str) {
        // The shell has a `kill` of its own; the program is in a package that a small machine may lack.
        let done = Command::new("sh").args(["-c", &format!("kill {signal} {pid}")]).status().expect("a shell");
        assert!(done.success());
    }

    /// Starts a slow run and waits until it trades.
    fn running(dir: &Path, more: &[&str]) -> (Child, Vec<String>) {
        let mut child = bot(dir, &["--speed", "8"]).args(more).spawn().expect("the bot starts");
        let mut errors = BufReader::new(child.stderr.take().expect("its errors"));
        let mut line = String::new();
        errors.read_line(&mut line).expect("a highlight");
        assert!(line.starts_with("20"), "{line}");
        // The rest must be read, or the pipe fills and the bot waits for us.
        std::thread::spawn(move || errors.lines().for_each(drop));
        (child, vec![line])
    }

    #[test]
    fn a_second_bot_of_the_same_id_is_refused_and_another_id_trades_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut first, _) = running(dir.path(), &[]);
        let line = refused(&mut bot(dir.path(), &[]));
        assert!(line.contains("already runs"), "{line}");
        let other = finish(dir.path(), &["--bot-id", "bot_002"]);
        assert_eq!(other["events"], EVENTS);
        assert_eq!(other["duplicates_at_exchange"], 0);
        first.kill().expect("killed");
        first.wait().expect("ended");
    }

    #[test]
    fn ctrl_c_ends_cleanly_with_the_report_so_far_and_the_run_goes_on_later() {
        let reference_dir = tempfile::tempdir().expect("a directory");
        let reference = finish(reference_dir.path(), &[]);
        let dir = tempfile::tempdir().expect("a directory");
        let (child, _) = running(dir.path(), &[]);
        signal(child.id(), "-INT");
        let stopped = report(&child.wait_with_output().expect("it ends"));
        assert!(stopped["events"].as_u64() < reference["events"].as_u64(), "{stopped}");
        assert!(stopped["audit_verify"].as_str().is_some_and(|v| v.starts_with("OK")));
        assert_eq!(essence(&finish(dir.path(), &[])), essence(&reference));
    }

    #[test]
    fn an_exchange_that_does_not_answer_stops_the_run_with_a_word_and_loses_nothing() {
        let reference_dir = tempfile::tempdir().expect("a directory");
        let reference = finish(reference_dir.path(), &[]);
        let dir = tempfile::tempdir().expect("a directory");
        let (child, _) = running(dir.path(), &[]);
        let exchange = exchange_of(dir.path());
        signal(exchange, "-STOP");
        let output = child.wait_with_output().expect("it ends");
        assert!(!output.status.success());
        signal(exchange, "-CONT");
        assert_eq!(essence(&finish(dir.path(), &[])), essence(&reference));
    }

    /// The process whose command line names this directory's exchange.
    fn exchange_of(dir: &Path) -> u32 {
        let journal = dir.join("exchange-bot_001").join("exchange.journal");
        let journal = journal.to_str().expect("UTF-8");
        let processes = std::fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path()));
        let is_ours = |path: &PathBuf| {
            std::fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(journal))
        };
        let ours = processes.into_iter().find(is_ours).expect("one exchange");
        ours.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a process id")
    }
}

//! Files: rotation, restarts, two writers, and disks that refuse.

use std::{fs, path::Path, sync::Arc, time::Duration};

use infra_logging::{FileConfig, LogBuilder, LogConfig, LogError, LogFormat, LogGuard};
use infra_types::{ErrorKind, HealthStatus, ManualClock};
use tracing::{Dispatch, dispatcher::with_default, error, info};

use crate::support::{Screen, flush, json_lines};

fn file_only(dir: &Path, bytes_max: u64, files_max: u32) -> LogConfig {
    let file = FileConfig { bytes_max, files_max, ..FileConfig::new(dir, "bot") };
    LogConfig::default().with_console(false).with_file(file)
}

fn open(config: LogConfig) -> (Dispatch, LogGuard, ManualClock) {
    let clock = ManualClock::default();
    let (dispatch, guard) = LogBuilder::new(config).with_clock(Arc::new(clock.clone())).build().unwrap();
    (dispatch, guard, clock)
}

/// The numbers of all lines in all files, oldest file first.
fn numbers(dir: &Path) -> Vec<u64> {
    let mut files: Vec<(u32, String)> = fs::read_dir(dir)
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let number = name.strip_prefix("bot")?.strip_suffix(".log")?;
            let number = number.strip_prefix('.').map_or(0, |n| n.parse().unwrap());
            Some((number, fs::read_to_string(entry.path()).unwrap()))
        })
        .collect();
    files.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    files.iter().flat_map(|(_, text)| json_lines(text)).filter_map(|l| l["fields"]["n"].as_u64()).collect()
}

#[test]
fn rotation_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (dispatch, guard, _) = open(file_only(dir.path(), 20_000, 1_000));
    std::thread::scope(|s| {
        for thread in 0..4u64 {
            let dispatch = &dispatch;
            s.spawn(move || with_default(dispatch, || (0..5_000).for_each(|i| info!(n = thread * 5_000 + i, "line"))));
        }
    });
    let log = guard.handle();
    drop(guard);
    assert!(log.stats().rotations >= 100, "{:?}", log.stats());
    for entry in fs::read_dir(dir.path()).unwrap() {
        assert!(entry.unwrap().metadata().unwrap().len() <= 20_000);
    }
    let mut found = numbers(dir.path());
    for thread in 0..4 {
        let own: Vec<_> = found.iter().copied().filter(|n| n / 5_000 == thread).collect();
        assert!(own.is_sorted(), "a thread's lines keep their order");
    }
    found.sort_unstable();
    assert_eq!(found, (0..20_000).collect::<Vec<_>>());
}

#[test]
fn only_the_newest_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (dispatch, guard, _) = open(file_only(dir.path(), 1_000, 3));
    with_default(&dispatch, || (0..200).for_each(|n| info!(n, "line")));
    drop(guard);
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["bot.1.log", "bot.2.log", "bot.lock", "bot.log"]);
    let found = numbers(dir.path());
    assert_eq!(found, (200 - found.len() as u64..200).collect::<Vec<_>>(), "the newest, without a gap");
}

#[test]
fn a_line_longer_than_a_file_gets_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (dispatch, guard, _) = open(file_only(dir.path(), 300, 10));
    with_default(&dispatch, || {
        info!(n = 0, "short");
        info!(n = 1, text = "x".repeat(1_000), "long");
        info!(n = 2, "short");
    });
    drop(guard);
    assert_eq!(numbers(dir.path()), [0, 1, 2]);
    assert!(fs::read_to_string(dir.path().join("bot.1.log")).unwrap().contains("xxx"));
}

#[test]
fn a_restart_goes_on_and_closes_a_half_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bot.log");
    fs::write(&path, "{\"half").unwrap();
    for n in 0..2 {
        let (dispatch, guard, _) = open(file_only(dir.path(), 1_000_000, 10));
        with_default(&dispatch, || info!(n, "line"));
        drop(guard);
    }
    let text = fs::read_to_string(&path).unwrap();
    let (half, rest) = text.split_once('\n').unwrap();
    assert_eq!((half, json_lines(rest).len()), ("{\"half", 2));
}

#[test]
fn two_writers_of_one_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = file_only(dir.path(), 1_000_000, 10);
    let (_dispatch, guard, _) = open(config.clone());
    let error = LogBuilder::new(config.clone()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(matches!(error, LogError::FileInUse { .. }));
    drop(guard);
    drop(LogBuilder::new(config).build().unwrap());
}

#[test]
fn a_folder_that_cannot_be_written_degrades_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("logs");
    fs::write(&blocked, "a file where the folder should be").unwrap();
    let screen = Screen::default();
    let clock = ManualClock::default();
    let mut config = file_only(&blocked, 1_000_000, 10).with_console(true).with_format(LogFormat::Json);
    config.level = "info".into();
    let builder = LogBuilder::new(config).with_clock(Arc::new(clock.clone())).with_console(screen.clone());
    let (dispatch, guard) = builder.build().unwrap();
    let log = guard.handle();
    assert_eq!(log.health().status, HealthStatus::Degraded, "the console still works");
    let say = |n: u64| {
        with_default(&dispatch, || info!(n, "line"));
        flush(&guard);
    };
    say(0);
    fs::remove_file(&blocked).unwrap();
    say(1);
    assert_eq!(log.stats().lost, 2, "it is not tried again at once");
    clock.advance(Duration::from_secs(2));
    say(2);
    assert_eq!(numbers(&blocked), [2]);
    assert!(fs::read_to_string(blocked.join("bot.log")).unwrap().contains(r#""lost":2"#));
    assert_eq!(screen.lines().len(), 3);
    clock.advance(Duration::from_secs(60));
    assert_eq!(log.health().status, HealthStatus::Up);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_stops_nobody_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bot.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let (dispatch, guard, clock) = open(file_only(dir.path(), 1_000_000, 10));
    let log = guard.handle();
    with_default(&dispatch, || {
        info!(n = 0, "line");
        error!(n = 1, "this line goes to standard error");
    });
    flush(&guard);
    assert_eq!((log.stats().lost, log.health().status), (2, HealthStatus::Down));
    assert!(log.health().detail.contains("No space left"), "{:?}", log.health());
    fs::remove_file(&path).unwrap();
    clock.advance(Duration::from_secs(2));
    with_default(&dispatch, || info!(n = 2, "line"));
    drop(guard);
    assert_eq!(numbers(dir.path()), [2]);
}

#[test]
fn a_deleted_file_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (dispatch, guard, _) = open(file_only(dir.path(), 1_000_000, 10));
    with_default(&dispatch, || info!(n = 0, "line"));
    flush(&guard);
    fs::rename(dir.path().join("bot.log"), dir.path().join("taken")).unwrap();
    with_default(&dispatch, || info!(n = 1, "line"));
    drop(guard);
    assert_eq!(numbers(dir.path()), [1]);
}

#[test]
fn the_colours_of_the_console_stay_there() {
    let dir = tempfile::tempdir().unwrap();
    let screen = Screen::default();
    let config = file_only(dir.path(), 1_000_000, 10).with_console(true);
    let (dispatch, guard) = LogBuilder::new(config).with_console(screen.clone()).with_ansi(true).build().unwrap();
    with_default(&dispatch, || {
        let span = tracing::info_span!("gate", n = 1);
        let _in = span.enter();
        span.record("n", 2);
        info!(n = 3, "line");
    });
    drop(guard);
    assert!(screen.text().contains("\x1b[32m"));
    let text = fs::read_to_string(dir.path().join("bot.log")).unwrap();
    assert!(!text.contains('\x1b') && !text.contains("[32m"), "{text}");
    assert_eq!(json_lines(&text)[0]["spans"][0]["fields"]["n"], 2);
}

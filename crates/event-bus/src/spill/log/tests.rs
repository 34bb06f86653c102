//! What is on disk after every kind of accident.

use infra_testkit::TestDir;
use infra_types::{Envelope, EventId, Timestamp, Topic};

use super::*;

fn event(n: usize, data_bytes: usize) -> Envelope {
    let event = Envelope::new(Topic::new("fills:A").unwrap(), "fill.v1", Timestamp::EPOCH, vec![b'x'; data_bytes]);
    event.with_id(EventId::new(format!("fill-{n:06}")).unwrap())
}

fn open(path: &Path) -> Log {
    Log::open(path, SpillSync::Os).unwrap()
}

fn append(log: &mut Log, events: impl IntoIterator<Item = Envelope>) {
    let mut frames: Vec<_> = events.into_iter().map(|e| Frame::new(&e, None, false)).collect();
    log.append(&mut frames).unwrap();
}

/// Everything that waits, drained on the way.
fn drain(log: &mut Log) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let records = log.read().unwrap();
        if records.is_empty() {
            return ids;
        }
        log.drained(records.len() as u64, records.iter().map(|r| r.size).sum()).unwrap();
        ids.extend(records.into_iter().map(|r| r.event.id.to_string()));
    }
}

fn drain_some(log: &mut Log, count: usize) {
    let records = log.read().unwrap();
    log.drained(count as u64, records[..count].iter().map(|r| r.size).sum()).unwrap();
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("fill-{n:06}")).collect()
}

/// A log of five events, written one, three and one at a time: where each frame begins and the end, and the bytes.
fn five(dir: &TestDir) -> (Vec<u64>, Vec<u8>) {
    let path = dir.file("five");
    let mut log = open(&path);
    append(&mut log, [event(0, 5)]);
    append(&mut log, (1..4).map(|n| event(n, 40 * n)));
    append(&mut log, [event(4, 0)]);
    let mut starts = vec![FRONT];
    log.read().unwrap().iter().for_each(|r| starts.push(starts[starts.len() - 1] + r.size));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(starts[5], bytes.len() as u64);
    (starts, bytes)
}

#[test]
fn a_write_that_was_cut_short_anywhere_leaves_the_whole_events_before_it() {
    let dir = TestDir::new();
    let (starts, bytes) = five(&dir);
    let path = dir.file("cut");
    for length in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let mut log = open(&path);
        let whole = starts[1..].iter().filter(|end| **end <= length as u64).count();
        assert_eq!(log.events(), whole as u64, "cut at {length}");
        // It goes on as if nothing had happened.
        append(&mut log, [event(9, 1)]);
        drop(log);
        let mut want = ids(0..whole);
        want.extend(ids(9..10));
        assert_eq!(drain(&mut open(&path)), want, "cut at {length}");
    }
}

#[test]
fn room_that_nothing_came_into_is_no_damage() {
    let dir = TestDir::new();
    let (_, mut bytes) = five(&dir);
    let path = dir.file("zeros");
    bytes.resize(bytes.len() + 100_000, 0);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(drain(&mut open(&path)), ids(0..5));
}

#[test]
fn damage_anywhere_is_named_and_nothing_is_touched() {
    let dir = TestDir::new();
    let (starts, bytes) = five(&dir);
    let path = dir.file("damaged");
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let opened = Log::open(&path, SpillSync::Os);
        if (NAME.len()..FRONT as usize).contains(&at) {
            // How far it is drained is advice.
            assert_eq!(drain(&mut opened.unwrap()), ids(0..5), "byte {at}");
            continue;
        }
        let frame = starts.iter().rposition(|start| *start <= at as u64);
        let begins = frame.map_or(0, |n| starts[n]);
        match opened.unwrap_err() {
            BusError::SpillDamaged { offset, intact, .. } => {
                assert_eq!((offset, intact), (begins, frame.unwrap_or(0) as u64), "byte {at}");
            }
            e => panic!("byte {at}: {e}"),
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "byte {at}: the file was touched");
        let Some(frame) = frame else { continue };
        // What the message advises.
        File::options().write(true).open(&path).unwrap().set_len(begins).unwrap();
        assert_eq!(drain(&mut open(&path)), ids(0..frame), "byte {at}");
    }
}

#[test]
fn an_event_that_is_missing_or_in_another_place_is_damage() {
    let dir = TestDir::new();
    let (starts, bytes) = five(&dir);
    let frame = |n: usize| &bytes[starts[n] as usize..starts[n + 1] as usize];
    let path = dir.file("moved");
    for (frames, offset) in [
        (vec![0, 2, 3, 4], starts[1]),
        (vec![0, 1, 1, 2], starts[2]),
        (vec![0, 2, 1, 3, 4], starts[1]),
        (vec![1, 0], starts[0] + frame(1).len() as u64),
    ] {
        let mut moved = bytes[..FRONT as usize].to_vec();
        frames.iter().for_each(|n| moved.extend_from_slice(frame(*n)));
        std::fs::write(&path, &moved).unwrap();
        match Log::open(&path, SpillSync::Os).unwrap_err() {
            BusError::SpillDamaged { offset: found, .. } => assert_eq!(found, offset, "{frames:?}"),
            e => panic!("{frames:?}: {e}"),
        }
    }
    for text in
        ["#!/bin/sh\n", "{\"some\":\"other file that is longer than the front of a log and was named by mistake\"}"]
    {
        std::fs::write(&path, text).unwrap();
        let error = Log::open(&path, SpillSync::Os).unwrap_err();
        assert!(matches!(error, BusError::SpillDamaged { offset: 0, .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn what_is_drained_stays_drained() {
    let dir = TestDir::new();
    let path = dir.file("log");
    let mut log = open(&path);
    append(&mut log, (0..6).map(|n| event(n, 10)));
    for drained in 1..6 {
        drain_some(&mut log, 1);
        drop(log);
        log = open(&path);
        assert_eq!(log.events(), 6 - drained);
        assert!(log.bytes() > 0);
    }
    assert_eq!(drain(&mut log), ids(5..6));
    assert_eq!((log.events(), log.bytes(), std::fs::metadata(&path).unwrap().len()), (0, 0, FRONT));
    drop(log);
    let mut log = open(&path);
    append(&mut log, [event(6, 10)]);
    assert_eq!(drain(&mut log), ids(6..7));
}

#[test]
fn a_note_that_is_out_of_date_hides_nothing() {
    let dir = TestDir::new();
    let path = dir.file("log");
    let front = |path: &Path| std::fs::read(path).unwrap()[..FRONT as usize].to_vec();
    let mut log = open(&path);
    append(&mut log, (0..6).map(|n| event(n, 10)));
    drain_some(&mut log, 3);
    let old = front(&path);
    drain(&mut log);
    append(&mut log, (6..12).map(|n| event(n, 10)));
    drop(log);
    // As if the newer notes had never reached the disk; events of equal size stand in the same places as before.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..FRONT as usize].copy_from_slice(&old);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(open(&path).events(), 6);

    // The death of the process between emptying the file and noting it.
    std::fs::write(&path, &old).unwrap();
    let mut log = open(&path);
    append(&mut log, (12..18).map(|n| event(n, 10)));
    drop(log);
    assert_eq!(drain(&mut open(&path)), ids(12..18));
}

#[test]
fn drained_room_is_given_back_while_the_log_is_never_empty() {
    let dir = TestDir::new();
    let path = dir.file("log");
    let mut log = open(&path);
    const EVENT: usize = 64 << 10;
    append(&mut log, (0..16).map(|n| event(n, EVENT)));
    let (mut newest, mut longest) = (16, 0);
    // 50 MiB through a log that holds 1 MiB.
    while newest < 800 {
        append(&mut log, (newest..newest + 8).map(|n| event(n, EVENT)));
        newest += 8;
        drain_some(&mut log, 8);
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
        assert_eq!(log.events(), 16);
        let other = Log::open(&path, SpillSync::Os).unwrap_err();
        assert!(matches!(other, BusError::SpillInUse { .. }), "{other}");
    }
    assert!(longest < DRAINED_BYTES_MAX + (3 << 20), "{longest} bytes");
    assert!(!beside(&path, ".new").exists());
    drop(log);
    // A copy that a kill left is no part of the log.
    std::fs::write(beside(&path, ".new"), b"half a co").unwrap();
    let mut log = open(&path);
    assert!(!beside(&path, ".new").exists());
    assert_eq!(drain(&mut log), ids(newest - 16..newest));
}

#[test]
fn what_changes_on_disk_while_it_is_open_is_damage_too() {
    let dir = TestDir::new();
    let path = dir.file("log");
    let mut log = open(&path);
    append(&mut log, (0..3).map(|n| event(n, 10)));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = log.read().unwrap_err();
    assert!(matches!(error, BusError::SpillDamaged { intact: 2, .. }), "{error}");
}

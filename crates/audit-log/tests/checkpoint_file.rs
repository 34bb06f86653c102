//! The file that holds the last checkpoint.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{fs, sync::Arc};

use infra_audit_log::{
    AuditError, AuditEvent, AuditKind, AuditLog, Checkpoint, CheckpointFile, Fields, MemoryAuditLog, MemoryConfig,
    NoteVerifier, Tampering, Verdict,
};
use infra_types::{EventId, ManualClock, Timestamp};

struct Scene {
    dir: tempfile::TempDir,
    file: CheckpointFile,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file =
            CheckpointFile::new(dir.path().join("audit.note"), dir.path().join("audit.key"), "example.com/bots/7");
        Self { dir, file }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

async fn log_of(events: u64, text: &str) -> MemoryAuditLog {
    let log = MemoryAuditLog::new(MemoryConfig::default(), Arc::new(ManualClock::default()));
    grow(&log, 0..events, text).await;
    log
}

async fn grow(log: &MemoryAuditLog, range: std::ops::Range<u64>, text: &str) {
    for n in range {
        let id = EventId::new(n.to_string()).unwrap();
        let event = AuditEvent::new(id, AuditKind::SystemEvent, Timestamp::EPOCH, "bot", "start");
        log.append(event.with_details(Fields::new().with("text", text))).await.unwrap();
    }
}

#[tokio::test]
async fn it_moves_on_with_the_log_and_outlives_the_process() {
    let scene = Scene::new();
    assert_eq!(scene.file.load().await.unwrap(), None);
    assert_eq!(scene.file.verifier().await.unwrap(), None);
    let log = log_of(3, "a").await;
    let first = scene.file.advance(&log).await.unwrap();
    assert_eq!(first.head(), log.head().await.unwrap());
    assert_eq!(scene.file.advance(&log).await.unwrap(), first, "nothing new, nothing to sign");
    grow(&log, 3..10, "a").await;
    let second = scene.file.advance(&log).await.unwrap();
    assert_eq!(second.head().size, 10);

    let again = CheckpointFile::new(scene.path("audit.note"), scene.path("audit.key"), "example.com/bots/7");
    assert_eq!(again.load().await.unwrap(), Some(second.clone()));
    // Whoever has the note and the public key needs nothing else.
    let verifier = NoteVerifier::parse(&again.verifier().await.unwrap().unwrap().to_string()).unwrap();
    let note = fs::read_to_string(scene.path("audit.note")).unwrap();
    assert_eq!(Checkpoint::open(&note, &verifier).unwrap(), second);
    assert!(note.starts_with("example.com/bots/7\n10\n"), "{note}");
    assert!(
        matches!(log.verify(Some(&second)).await.unwrap(), Verdict::Ok { anchored_to, .. } if anchored_to.size == 10)
    );
}

#[tokio::test]
async fn a_changed_log_is_never_signed() {
    let scene = Scene::new();
    scene.file.advance(&log_of(5, "a").await).await.unwrap();
    let before = fs::read(scene.path("audit.note")).unwrap();
    for (forged, want) in [
        (log_of(4, "a").await, Tampering::Truncated),
        (log_of(0, "a").await, Tampering::Truncated),
        (log_of(5, "b").await, Tampering::History),
        (log_of(9, "b").await, Tampering::History),
    ] {
        match scene.file.advance(&forged).await {
            Err(AuditError::Tampered { kind, .. }) => assert_eq!(kind, want),
            other => panic!("signed: {other:?}"),
        }
    }
    assert_eq!(fs::read(scene.path("audit.note")).unwrap(), before);
}

#[tokio::test]
async fn a_missing_half_is_an_alarm_and_not_a_new_beginning() {
    let scene = Scene::new();
    let log = log_of(5, "a").await;
    scene.file.advance(&log).await.unwrap();
    fs::rename(scene.path("audit.note"), scene.path("away")).unwrap();
    assert!(matches!(scene.file.advance(&log).await, Err(AuditError::NoteMissing { .. })));
    fs::rename(scene.path("away"), scene.path("audit.note")).unwrap();
    fs::remove_file(scene.path("audit.key")).unwrap();
    assert!(matches!(scene.file.advance(&log).await, Err(AuditError::KeyMissing { .. })));
}

/// The first checkpoint is two files: a process may die after each step of making them.
#[tokio::test]
async fn a_beginning_that_was_cut_short_is_gone_on_with() {
    let log = log_of(3, "a").await;
    // After the key was written, before the note was.
    let scene = Scene::new();
    scene.file.advance(&log).await.unwrap();
    fs::rename(scene.path("audit.key"), scene.path("audit.key.new")).unwrap();
    fs::remove_file(scene.path("audit.note")).unwrap();
    assert_eq!(scene.file.load().await.unwrap(), None, "nothing was signed yet");
    let first = scene.file.advance(&log).await.unwrap();
    assert_eq!(scene.file.load().await.unwrap(), Some(first));
    assert!(!scene.path("audit.key.new").exists());

    // After the note was, before the key had its name.
    let scene = Scene::new();
    let first = scene.file.advance(&log).await.unwrap();
    fs::rename(scene.path("audit.key"), scene.path("audit.key.new")).unwrap();
    assert_eq!(scene.file.load().await.unwrap(), Some(first.clone()));
    assert!(scene.path("audit.key").exists() && !scene.path("audit.key.new").exists());
    assert_eq!(scene.file.advance(&log).await.unwrap(), first);

    // A key that did not sign the note is no beginning of it.
    let (one, other) = (Scene::new(), Scene::new());
    one.file.advance(&log).await.unwrap();
    other.file.advance(&log).await.unwrap();
    fs::remove_file(one.path("audit.key")).unwrap();
    fs::copy(other.path("audit.key"), one.path("audit.key.new")).unwrap();
    assert!(matches!(one.file.load().await, Err(AuditError::KeyMissing { .. })));
}

#[tokio::test]
async fn damaged_files_and_other_origins_are_refused() {
    let scene = Scene::new();
    let log = log_of(5, "a").await;
    scene.file.advance(&log).await.unwrap();
    let other = CheckpointFile::new(scene.path("audit.note"), scene.path("audit.key"), "example.com/bots/8");
    assert!(matches!(other.load().await, Err(AuditError::BadKey { .. })));
    let note = fs::read_to_string(scene.path("audit.note")).unwrap();
    fs::write(scene.path("audit.note"), note.replacen("\n5\n", "\n6\n", 1)).unwrap();
    assert!(matches!(scene.file.advance(&log).await, Err(AuditError::BadNote { .. })));
    fs::write(scene.path("audit.note"), &note).unwrap();
    let key = fs::read_to_string(scene.path("audit.key")).unwrap();
    fs::write(scene.path("audit.key"), &key[..key.len() / 2]).unwrap();
    let e = scene.file.load().await.unwrap_err();
    assert!(matches!(e, AuditError::BadKey { .. }));
    assert!(!e.to_string().contains(&key[key.len() / 3..key.len() / 2]), "an error must not print the key");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    let log = log_of(1, "a").await;
    scene.file.advance(&log).await.unwrap();
    let mode = |name: &str| fs::metadata(scene.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("audit.key"), 0o600);
    fs::set_permissions(scene.path("audit.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(scene.file.load().await, Err(AuditError::BadKey { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_signers_never_move_it_back() {
    let scene = Scene::new();
    let log = Arc::new(log_of(1, "a").await);
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (file, log) = (scene.file.clone(), log.clone());
            tokio::spawn(async move {
                let mut last = 0;
                for _ in 0..5 {
                    // Losing each race is an answer too; going back is not.
                    if let Ok(checkpoint) = file.advance(&*log).await {
                        assert!(checkpoint.head().size >= last);
                        last = checkpoint.head().size;
                    }
                }
            })
        })
        .collect();
    grow(&log, 1..200, "a").await;
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(scene.file.advance(&*log).await.unwrap().head().size, 200);
}

#[tokio::test]
async fn a_directory_that_does_not_exist_says_so() {
    let file = CheckpointFile::new("/nowhere/at/all/note", "/nowhere/at/all/key", "o");
    let e = file.load().await.unwrap_err();
    assert!(e.to_string().contains("/nowhere/at/all"), "{e}");
}

//! The guards themselves: what was said is heard, what is killed is dead, what is dropped is gone.

use std::{process::Command, time::Duration};

use infra_testkit::{ChildGone, KillableChild, TestDir, child_argument, say};

const PATIENCE: Duration = Duration::from_secs(30);

fn is_running(id: u32) -> bool {
    // A process that ended and was waited for has no entry any more.
    std::path::Path::new("/proc").join(id.to_string()).exists()
}

fn sleeper() -> KillableChild {
    let mut command = Command::new("sh");
    command.args(["-c", "echo noise; echo 'child> one'; echo 'child> two'; exec sleep 600"]);
    KillableChild::spawn(command)
}

#[test]
fn a_killed_child_is_dead_and_its_words_are_kept() {
    let mut child = sleeper();
    assert_eq!(child.next_line(PATIENCE), Ok("one".into()));
    let id = child.id();
    assert!(is_running(id));
    child.wait_for("two", PATIENCE);
    assert_eq!(child.next_line(Duration::from_millis(10)), Err(ChildGone::TimedOut));
    assert!(child.kill().is_empty());
    assert!(!is_running(id));
}

#[test]
fn a_dropped_child_is_dead() {
    let mut child = sleeper();
    child.wait_for("two", PATIENCE);
    let id = child.id();
    drop(child);
    assert!(!is_running(id));
}

#[test]
fn a_test_can_be_its_own_child() {
    if let Some(argument) = child_argument() {
        say(argument.display());
        return;
    }
    let mut child = KillableChild::this_test("a_test_can_be_its_own_child", "hello");
    assert_eq!(child.wait_for("hello", PATIENCE), "hello");
    assert_eq!(child.next_line(PATIENCE), Err(ChildGone::Ended));
    assert!(child.wait());
}

#[test]
fn a_directory_ends_with_its_guard_and_outlives_a_panic() {
    let dir = TestDir::new();
    let path = dir.path().to_owned();
    std::fs::write(dir.file("a"), "a").unwrap();
    drop(dir);
    assert!(!path.exists());

    let panicked = std::thread::spawn(|| {
        let dir = TestDir::new();
        let path = dir.path().to_owned();
        std::panic::resume_unwind(Box::new(path));
    });
    let path = *panicked.join().unwrap_err().downcast::<std::path::PathBuf>().unwrap();
    assert!(path.exists());
    std::fs::remove_dir_all(path).unwrap();
}

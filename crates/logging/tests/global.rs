//! The one test of its process: only one subscriber can be global.

use infra_logging::{FileConfig, LogConfig, LogError, init};
use infra_types::ErrorKind;

#[test]
fn init_installs_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = |prefix| LogConfig::default().with_console(false).with_file(FileConfig::new(dir.path(), prefix));
    let guard = init(config("first")).unwrap();
    std::thread::spawn(|| tracing::info!("from another thread")).join().unwrap();
    let again = init(config("second")).unwrap_err();
    assert!(matches!(again, LogError::AlreadyInstalled));
    assert_eq!(again.kind(), ErrorKind::Conflict);
    drop(guard);
    let text = std::fs::read_to_string(dir.path().join("first.log")).unwrap();
    assert!(text.contains("from another thread"), "{text}");
}

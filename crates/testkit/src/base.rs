//! What all test processes of one user share.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The user that this process acts for.
pub(crate) fn uid() -> u32 {
    // A file of our own tells, without asking libc.
    let mine = tempfile::tempfile().and_then(|file| file.metadata());
    mine.expect("the temporary directory must be writable").uid()
}

/// `infra-testkit-UID` in the temporary directory: templates and the addresses of shared servers.
///
/// # Panics
/// If it cannot be made, or belongs to another user (who could put a server of his own there).
pub(crate) fn base_dir() -> PathBuf {
    let uid = uid();
    let path = std::env::temp_dir().join(format!("infra-testkit-{uid}"));
    // Others may pass through (PostgreSQL does not run as root) but not list or write.
    match std::fs::DirBuilder::new().mode(0o711).create(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => panic!("{} cannot be made: {error}", path.display()),
    }
    let found = path.symlink_metadata().expect("the directory is there");
    assert!(
        found.is_dir() && found.uid() == uid,
        "{} belongs to somebody else: remove it or set TMPDIR",
        path.display()
    );
    open_for_passing(&path);
    path
}

/// Lets other users pass through `dir`, not list it.
pub(crate) fn open_for_passing(dir: &Path) {
    std::fs::set_permissions(dir, Permissions::from_mode(0o711)).expect("the directory is ours");
}

/// A file that serves as a lock; it stays, because a lock file that is removed stops nobody.
pub(crate) fn lock_file(path: &Path) -> File {
    File::options().create(true).truncate(false).read(true).write(true).open(path).expect("lock files can be written")
}

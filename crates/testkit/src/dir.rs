//! A directory that ends with its test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// An empty directory, removed when dropped; kept (and named on stderr) if the test panicked, so that its files can be read.
#[derive(Debug)]
pub struct TestDir(Option<TempDir>);

impl TestDir {
    /// A new directory.
    ///
    /// # Panics
    /// If the system's temporary directory takes none.
    #[must_use]
    pub fn new() -> Self {
        Self(Some(TempDir::with_prefix("infra-test-").expect("the temporary directory must be writable")))
    }

    /// Where it is.
    ///
    /// # Panics
    /// Never: the directory lives as long as its guard.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("only dropping takes it").path()
    }

    /// The path of a file in it; the file need not exist.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Default for TestDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            eprintln!("the test's files are kept in {}", dir.keep().display());
        }
    }
}

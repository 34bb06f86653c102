//! Where a server keeps its files.

use std::path::{Path, PathBuf};

use crate::TestDir;

/// A directory of the test's own, or one that a supervisor removes.
#[derive(Debug)]
pub(crate) enum Home {
    Private(TestDir),
    Shared(PathBuf),
}

impl Home {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Private(dir) => dir.path(),
            Self::Shared(path) => path,
        }
    }
}

//! Certificates and keys.

use std::path::PathBuf;

use infra_types::Secret;

/// A certificate or key in PEM form.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pem {
    /// The text itself, one or more blocks.
    Text(Secret<String>),
    /// A file, read at each new connection, so that a renewed certificate is picked up.
    File(PathBuf),
}

impl Pem {
    /// PEM text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Secret::new(text.into()))
    }

    /// A PEM file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Pem::Text(***)"),
            Self::File(path) => f.debug_tuple("Pem::File").field(path).finish(),
        }
    }
}

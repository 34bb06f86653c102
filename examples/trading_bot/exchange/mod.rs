//! A venue of its own: a separate process with its own file, which misbehaves on purpose and the same way every time.

mod journal;
pub(crate) mod protocol;
pub(crate) mod server;
mod venue;

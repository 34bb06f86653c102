//! Whose clock counts on a server.

/// Whose clock says when a lease ends and a retry begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeSource {
    /// The server's, which is one for all: hosts whose clocks differ do not take each other's claims. Of the times that the bus
    /// passes in, only the distance from its own now counts.
    #[default]
    Server,
    /// The bus's, as with the other backends: for clocks that are moved by hand. Hosts that share the bus must agree about the time.
    Bus,
}

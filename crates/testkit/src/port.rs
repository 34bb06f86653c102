//! Free ports on the loopback address.

use std::{
    hash::{BuildHasher, RandomState},
    net::TcpListener,
};

/// Where ports are taken from: below what Linux hands out to outgoing connections. In that range a client that reconnects while
/// its server is down can be given the server's port (and even talk to itself).
const FIRST: u64 = 10_240;
const LAST: u64 = 32_000;

/// A port that was free a moment ago. Another process may take it before the server does: whoever starts a server tries again.
///
/// # Panics
/// If none of many ports is free.
#[must_use]
pub fn free_port() -> u16 {
    (0..1_000_u32)
        .find_map(|round| {
            let port = u16::try_from(FIRST + random(round) % (LAST - FIRST)).ok()?;
            TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
        })
        .expect("one of 1,000 loopback ports must be free")
}

/// A name that no other test, process or run uses: for key prefixes, namespaces, schemas on a shared server. Lower-case letters,
/// digits and `_`, starting with a letter, 18 bytes.
#[must_use]
pub fn unique_name() -> String {
    format!("t_{:016x}", random(0))
}

/// Chance from the keys that the system gives every new hasher, mixed with who asks.
pub(crate) fn random(round: u32) -> u64 {
    RandomState::new().hash_one((std::process::id(), round))
}

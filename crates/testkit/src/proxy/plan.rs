//! What the proxy is told to do, and what it counts.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToServer,
    /// Replies.
    ToClient,
}

impl Direction {
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// RST: both sides see an error, as after a crash or through a firewall.
    Reset,
    /// FIN: both sides see an orderly end of the stream, as after a shutdown.
    Fin,
}

/// What a proxy has seen and done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProxyCounters {
    /// Accepted.
    pub connections: u64,
    /// Accepted and reset at once, because 1,024 were open.
    pub over_limit: u64,
    /// Reset because the target refused them.
    pub unreachable: u64,
    /// Ended by a control.
    pub cut: u64,
    /// Bytes forwarded from clients to the server.
    pub bytes_to_server: u64,
    /// Bytes forwarded from the server to clients.
    pub bytes_to_client: u64,
    /// Bytes dropped on their way to the server.
    pub swallowed_to_server: u64,
    /// Bytes dropped on their way to clients.
    pub swallowed_to_client: u64,
    /// Replies that [`FaultProxy::swallow_next_reply`](super::FaultProxy::swallow_next_reply) took.
    pub replies_swallowed: u64,
}

/// What holds until it is changed; arrays are by [`Direction::index`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    pub(super) black_hole: bool,
    pub(super) delay: [Duration; 2],
    pub(super) bytes_per_s: [Option<NonZeroU32>; 2],
    pub(super) swallow: [bool; 2],
    /// For new connections; the open ones are told.
    pub(super) half_closed: [bool; 2],
}

impl Plan {
    pub(super) const fn passing(target: SocketAddr) -> Self {
        Self {
            target,
            black_hole: false,
            delay: [Duration::ZERO; 2],
            bytes_per_s: [None; 2],
            swallow: [false; 2],
            half_closed: [false; 2],
        }
    }
}

/// What all connections share: the counters, and what happens only once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) connections: AtomicU64,
    pub(super) over_limit: AtomicU64,
    pub(super) unreachable: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) forwarded: [AtomicU64; 2],
    pub(super) swallowed: [AtomicU64; 2],
    pub(super) replies_swallowed: AtomicU64,
    swallow_next: AtomicBool,
    cut_after: [Mutex<Option<(u64, Cut)>>; 2],
}

impl Shared {
    pub(super) fn arm_swallow(&self) {
        self.swallow_next.store(true, Ordering::SeqCst);
    }

    /// True for the one who takes it.
    pub(super) fn take_swallow(&self) -> bool {
        self.swallow_next.swap(false, Ordering::SeqCst)
    }

    pub(super) fn arm_cut(&self, direction: Direction, bytes: u64, how: Cut) {
        *self.cut_after(direction) = Some((bytes, how));
    }

    /// How many of the `wanted` bytes may go, and how the connection is cut after them, if it is.
    pub(super) fn take_allowance(&self, direction: Direction, wanted: usize) -> (usize, Option<Cut>) {
        let mut armed = self.cut_after(direction);
        let Some((left, how)) = *armed else { return (wanted, None) };
        let allowed = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        let left = left - allowed as u64;
        *armed = if left == 0 { None } else { Some((left, how)) };
        (allowed, (left == 0).then_some(how))
    }

    pub(super) fn disarm(&self) {
        self.swallow_next.store(false, Ordering::SeqCst);
        for direction in [Direction::ToServer, Direction::ToClient] {
            *self.cut_after(direction) = None;
        }
    }

    pub(super) fn snapshot(&self) -> ProxyCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        ProxyCounters {
            connections: read(&self.connections),
            over_limit: read(&self.over_limit),
            unreachable: read(&self.unreachable),
            cut: read(&self.cut),
            bytes_to_server: read(&self.forwarded[Direction::ToServer.index()]),
            bytes_to_client: read(&self.forwarded[Direction::ToClient.index()]),
            swallowed_to_server: read(&self.swallowed[Direction::ToServer.index()]),
            swallowed_to_client: read(&self.swallowed[Direction::ToClient.index()]),
            replies_swallowed: read(&self.replies_swallowed),
        }
    }

    fn cut_after(&self, direction: Direction) -> std::sync::MutexGuard<'_, Option<(u64, Cut)>> {
        self.cut_after[direction.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_ends_in_the_middle_and_only_once() {
        let shared = Shared::default();
        assert_eq!(shared.take_allowance(Direction::ToServer, 9), (9, None));
        shared.arm_cut(Direction::ToServer, 5, Cut::Fin);
        assert_eq!(shared.take_allowance(Direction::ToClient, 9), (9, None));
        assert_eq!(shared.take_allowance(Direction::ToServer, 3), (3, None));
        assert_eq!(shared.take_allowance(Direction::ToServer, 9), (2, Some(Cut::Fin)));
        assert_eq!(shared.take_allowance(Direction::ToServer, 9), (9, None));
        shared.arm_cut(Direction::ToClient, 0, Cut::Reset);
        assert_eq!(shared.take_allowance(Direction::ToClient, 1), (0, Some(Cut::Reset)));
    }
}

//! What goes wrong, and when.

use std::{fmt, time::Duration};

use infra_testkit::{Cut, Direction};

use super::{
    Settings,
    clients::Clients,
    servers::{OPERATION_TIMEOUT, Server},
    tap::Wire,
};

/// Numbers that a seed decides (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// At least 0, less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    KillServer,
    KillClient,
    /// A fault on the wire; kinds take turns.
    Cut(u32),
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) server_kills: u32,
    pub(crate) client_kills: u32,
    pub(crate) cuts: u32,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} server kills, {} client kills, {} cuts", self.server_kills, self.client_kills, self.cuts)
    }
}

/// Events by how many batches are settled when they happen.
pub(crate) struct Chaos {
    /// The next one is the last.
    plan: Vec<(u32, Event)>,
    dice: Dice,
    done: Done,
}

impl Chaos {
    pub(crate) fn plan(settings: &Settings) -> Self {
        let mut dice = Dice::new(settings.seed);
        let mut events = vec![Event::KillClient; settings.client_kills as usize];
        if settings.backend.has_server() {
            events.extend(vec![Event::KillServer; settings.server_kills as usize]);
            events.extend((0..settings.cuts).map(Event::Cut));
        }
        let batches = u64::from(settings.batches);
        let mut at = || u32::try_from(batches / 50 + dice.below(batches * 9 / 10)).unwrap_or(u32::MAX);
        let mut plan: Vec<_> = events.into_iter().map(|event| (at(), event)).collect();
        plan.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Self { plan, dice, done: Done::default() }
    }

    /// The next event, if it is time for it.
    pub(crate) fn due(&mut self, settled: u32) -> Option<Event> {
        self.plan.pop_if(|(at, _)| *at <= settled).map(|(_, event)| event)
    }

    pub(crate) fn done(&self) -> Done {
        self.done
    }

    /// Does it; true if something was killed, and the server is there again.
    pub(crate) fn bring_about(
        &mut self,
        event: Event,
        server: &mut Server,
        wire: Option<&Wire>,
        clients: &Clients,
    ) -> bool {
        // Not always right after a batch was settled.
        self.wait(5_000);
        match event {
            Event::KillClient => {
                let index = usize::try_from(self.dice.below(1_000)).unwrap_or(0);
                self.done.client_kills += u32::from(clients.kill(index));
                true
            }
            Event::KillServer => {
                server.kill();
                self.done.server_kills += 1;
                // New connections are refused, or accepted by something that reaches no server.
                let is_refused = self.dice.below(2) == 0;
                if let Some(wire) = wire {
                    wire.open(!is_refused);
                }
                self.wait(300_000);
                server.restart();
                if let Some(wire) = wire {
                    wire.open(true);
                }
                true
            }
            Event::Cut(number) => {
                if let Some(wire) = wire {
                    self.cut(number, wire);
                    self.done.cuts += 1;
                }
                false
            }
        }
    }

    fn cut(&mut self, number: u32, wire: &Wire) {
        let proxy = &wire.proxy;
        let bytes = self.dice.below(3_000);
        let how = [Cut::Reset, Cut::Fin][usize::from(self.dice.below(2) == 0)];
        match number % 7 {
            0 | 4 => proxy.swallow_next_reply(),
            1 => proxy.cut_after(Direction::ToClient, bytes, how),
            2 => proxy.cut_after(Direction::ToServer, bytes, how),
            3 => proxy.cut_all(how),
            5 => {
                // What was on its way then comes late, when its client has given up.
                if number % 3 == 2 {
                    proxy.black_hole();
                    std::thread::sleep(OPERATION_TIMEOUT + Duration::from_millis(300));
                } else {
                    proxy.delay(Direction::ToClient, Duration::from_millis(bytes / 30));
                    self.wait(100_000);
                }
                proxy.pass();
            }
            _ => {
                wire.open(false);
                proxy.cut_all(how);
                self.wait(50_000);
                wire.open(true);
            }
        }
    }

    fn wait(&mut self, micros_max: u64) {
        std::thread::sleep(Duration::from_micros(self.dice.below(micros_max)));
    }
}

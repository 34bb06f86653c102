//! Which call meets which fault.

use std::{collections::VecDeque, time::Duration};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: it happens as it should.
    #[default]
    None,
    /// It is refused before anything happened: `Backend` of kind `Unavailable`.
    Unavailable,
    /// It never arrived, and nobody can tell: `Ambiguous`, not applied. A read is `Unavailable`.
    LostRequest,
    /// It was applied, and nobody can tell: `Ambiguous`. A read is `Unavailable`.
    LostReply,
    /// It happens, so much later.
    Delay(Duration),
    /// It never answers; nothing happens.
    Hang,
    /// The process ends before it: `Ambiguous`, not applied, and every call after it is `Unavailable` until the store is healed.
    DieBefore,
    /// The process ends after it, before the reply: `Ambiguous`, applied, and every call after it is `Unavailable` until the
    /// store is healed.
    DieAfter,
}

/// Faults by chance, in thousandths of the calls; what is left happens as it should. `Default` is no fault at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChaosPlan {
    /// Where the dice start: the same seed gives the same faults to the same calls.
    pub seed: u64,
    /// Calls that are refused before anything happened, ‰.
    pub unavailable_permille: u16,
    /// Writes that never arrive, ‰.
    pub lost_request_permille: u16,
    /// Writes that are applied without a reply, ‰.
    pub lost_reply_permille: u16,
    /// Calls that come late, ‰; on top of the others.
    pub delay_permille: u16,
    /// How late at most.
    pub delay_max: Duration,
}

impl ChaosPlan {
    /// A plan of every fault of a bad network, `permille` each, without delays.
    #[must_use]
    pub fn network(seed: u64, permille: u16) -> Self {
        Self {
            seed,
            unavailable_permille: permille,
            lost_request_permille: permille,
            lost_reply_permille: permille,
            ..Self::default()
        }
    }
}

/// How often which fault was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChaosCounts {
    /// Calls that came, reads and writes.
    pub calls: u64,
    /// Calls that were refused before anything happened.
    pub unavailable: u64,
    /// Calls that never arrived.
    pub lost_requests: u64,
    /// Calls whose reply was lost.
    pub lost_replies: u64,
    /// Calls that came late.
    pub delays: u64,
    /// Calls that never answer.
    pub hangs: u64,
    /// Ends of the process.
    pub deaths: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    Read,
    Write,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) plan: ChaosPlan,
    pub(super) script: VecDeque<Fault>,
    pub(super) scripts_reads: bool,
    pub(super) standing_reads: Option<Fault>,
    pub(super) standing_writes: Option<Fault>,
    pub(super) gives_way: bool,
    pub(super) counts: ChaosCounts,
    dice: u64,
}

impl State {
    pub(super) fn new(plan: ChaosPlan) -> Self {
        let (script, counts) = (VecDeque::new(), ChaosCounts::default());
        Self {
            plan,
            script,
            scripts_reads: false,
            standing_reads: None,
            standing_writes: None,
            gives_way: false,
            counts,
            dice: plan.seed,
        }
    }

    /// The fault of the next call, and how late it comes.
    pub(super) fn draw(&mut self, call: Calls) -> (Fault, Option<Duration>) {
        let scripted = if call == Calls::Write || self.scripts_reads { self.script.pop_front() } else { None };
        let told = scripted.or(self.standing(call));
        let fault = told.unwrap_or_else(|| self.by_chance(call));
        let delay = match fault {
            Fault::Delay(time) => Some(time),
            _ if told.is_none() => self.late(),
            _ => None,
        };
        if matches!(fault, Fault::DieBefore | Fault::DieAfter) {
            (self.standing_reads, self.standing_writes) = (Some(Fault::Unavailable), Some(Fault::Unavailable));
            self.script.clear();
        }
        let counts = &mut self.counts;
        counts.calls += 1;
        counts.delays += u64::from(delay.is_some());
        match fault {
            Fault::None | Fault::Delay(_) => {}
            Fault::Unavailable => counts.unavailable += 1,
            Fault::LostRequest => counts.lost_requests += 1,
            Fault::LostReply => counts.lost_replies += 1,
            Fault::Hang => counts.hangs += 1,
            Fault::DieBefore | Fault::DieAfter => counts.deaths += 1,
        }
        (fault, delay)
    }

    fn standing(&self, call: Calls) -> Option<Fault> {
        match call {
            Calls::Read => self.standing_reads,
            Calls::Write => self.standing_writes,
        }
    }

    fn by_chance(&mut self, call: Calls) -> Fault {
        let ChaosPlan { unavailable_permille, lost_request_permille, lost_reply_permille, .. } = self.plan;
        let chances = [
            (unavailable_permille, Fault::Unavailable),
            (if call == Calls::Write { lost_request_permille } else { 0 }, Fault::LostRequest),
            (if call == Calls::Write { lost_reply_permille } else { 0 }, Fault::LostReply),
        ];
        let mut roll = self.roll(1_000);
        for (permille, fault) in chances {
            match roll.checked_sub(u64::from(permille)) {
                Some(left) => roll = left,
                None => return fault,
            }
        }
        Fault::None
    }

    fn late(&mut self) -> Option<Duration> {
        let is_late = self.roll(1_000) < u64::from(self.plan.delay_permille);
        let most = u64::try_from(self.plan.delay_max.as_nanos()).unwrap_or(u64::MAX);
        is_late.then(|| Duration::from_nanos(self.roll(most.max(1)) + 1))
    }

    /// 0 to `sides` − 1, by SplitMix64 (Steele, Lea, Flood 2014).
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

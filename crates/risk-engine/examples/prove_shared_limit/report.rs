//! The figures as a table.

use std::{fmt::Write as _, time::Duration};

use infra_types::Decimal;

use super::{watch::Seen, world::Backend};

/// Of one backend.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) backend: Backend,
    /// Of ten orders of 4,000 on 10,000 so many passed.
    pub(crate) burst: u32,
    /// Whether a stopped process approved nothing more.
    pub(crate) sleeper: bool,
    pub(crate) seconds: Duration,
    pub(crate) attempts: u32,
    pub(crate) admitted: u32,
    pub(crate) refused: u32,
    /// Batches that the attempts sent.
    pub(crate) batches: u32,
    /// How often somebody else was always faster.
    pub(crate) contended: u32,
    /// How often a living bot lost its name, since the machine gave it no time.
    pub(crate) lost: u32,
    /// The counter's highest value after an approval.
    pub(crate) highest: Decimal,
    pub(crate) seen: Seen,
    pub(crate) kills: u32,
    /// From each kill until nothing was held by the dead.
    pub(crate) noticed: Vec<Duration>,
    /// What they had held.
    pub(crate) orphaned: usize,
    pub(crate) limit: i64,
    pub(crate) in_use: Decimal,
    pub(crate) fits: i64,
    pub(crate) settled: usize,
    pub(crate) ended: usize,
    pub(crate) kept: usize,
    pub(crate) differences: usize,
    /// What broke, in words.
    pub(crate) problems: Vec<String>,
}

impl Report {
    pub(crate) fn new(backend: Backend, limit: i64) -> Self {
        Self {
            backend,
            burst: 0,
            sleeper: false,
            seconds: Duration::ZERO,
            attempts: 0,
            admitted: 0,
            refused: 0,
            batches: 0,
            contended: 0,
            lost: 0,
            highest: Decimal::ZERO,
            seen: Seen::default(),
            kills: 0,
            noticed: Vec::new(),
            orphaned: 0,
            limit,
            in_use: Decimal::ZERO,
            fits: 0,
            settled: 0,
            ended: 0,
            kept: 0,
            differences: 0,
            problems: Vec::new(),
        }
    }

    /// Whether every promise held.
    pub(crate) fn holds(&self) -> bool {
        self.problems.is_empty()
            && self.burst == 2
            && self.sleeper
            && !self.was_over()
            && self.in_use == self.fits.into()
    }

    /// Whether anybody ever saw the counter above the limit.
    pub(crate) fn was_over(&self) -> bool {
        self.seen.over > 0 || self.highest > self.limit.into()
    }

    /// The longest and the middle time until the dead were noticed.
    pub(crate) fn noticed(&self) -> (Duration, Duration) {
        let mut times = self.noticed.clone();
        times.sort();
        (times.get(times.len() / 2).copied().unwrap_or_default(), times.last().copied().unwrap_or_default())
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let seconds = self.seconds.as_secs_f64();
        let (middle, longest) = self.noticed();
        let rate = f64::from(self.attempts) / seconds.max(0.001);
        vec![
            ("burst: 10 of 4,000 on 10,000, passed", self.burst.to_string()),
            ("stopped past its lease: approves nothing", if self.sleeper { "yes" } else { "NO" }.to_owned()),
            ("seconds", format!("{seconds:.1}")),
            ("attempts", self.attempts.to_string()),
            ("attempts a second", format!("{rate:.0}")),
            ("  admitted", self.admitted.to_string()),
            ("  refused", self.refused.to_string()),
            ("batches an attempt", format!("{:.3}", f64::from(self.batches) / f64::from(self.attempts.max(1)))),
            ("contended, tried again", self.contended.to_string()),
            ("living bots that lost their name", self.lost.to_string()),
            ("limit", self.limit.to_string()),
            ("highest after an approval", self.highest.normalize().to_string()),
            ("looks at the counter", self.seen.looks.to_string()),
            ("  highest", self.seen.highest.to_string()),
            ("  over the limit", self.seen.over.to_string()),
            ("killed with -9", self.kills.to_string()),
            ("  orders orphaned", self.orphaned.to_string()),
            ("  noticed after, middle", format!("{} ms", middle.as_millis())),
            ("  noticed after, longest", format!("{} ms", longest.as_millis())),
            ("in use in the end", self.in_use.normalize().to_string()),
            ("  what fits", self.fits.to_string()),
            ("reconciled: fills settled", self.settled.to_string()),
            ("  orders ended", self.ended.to_string()),
            ("  orders kept, open at the venue", self.kept.to_string()),
            ("  differences", self.differences.to_string()),
            ("promises broken", self.problems.len().to_string()),
        ]
    }
}

/// A column for each report; below it, in words, what broke.
pub(crate) fn table(reports: &[Report]) -> String {
    let columns: Vec<_> = reports.iter().map(Report::rows).collect();
    let mut text = String::new();
    let mut line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        let _ = write!(text, "{name:<42}");
        for cell in cells {
            let _ = write!(text, " {cell:>12}");
        }
        text.push('\n');
    };
    line("", &mut reports.iter().map(|report| report.backend.name()));
    for at in 0..columns.first().map_or(0, Vec::len) {
        line(columns[0][at].0, &mut columns.iter().map(|rows| &*rows[at].1));
    }
    for report in reports {
        for problem in &report.problems {
            let _ = writeln!(text, "{}: {problem}", report.backend.name());
        }
    }
    text
}

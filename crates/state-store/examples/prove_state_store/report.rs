//! The figures as a table.

use std::{fmt::Write as _, time::Duration};

use super::{chaos::Done, verify::Verdict};

/// Of one backend.
pub(crate) struct Report {
    /// What it is.
    pub(crate) backend: &'static str,
    /// What was found.
    pub(crate) verdict: Verdict,
    /// What was done to it.
    pub(crate) done: Done,
    /// How long it took.
    pub(crate) duration: Duration,
}

impl Report {
    /// Whether every promise held.
    pub(crate) fn holds(&self) -> bool {
        self.verdict.holds()
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let Verdict { acknowledged, ambiguous_whole, ambiguous_absent, unheard_whole, unheard_absent, .. } =
            self.verdict;
        let (ambiguous, unheard) = (ambiguous_whole + ambiguous_absent, unheard_whole + unheard_absent);
        let v = &self.verdict;
        vec![
            ("batches", (acknowledged + ambiguous + unheard).to_string()),
            ("acknowledged", acknowledged.to_string()),
            ("ambiguous", ambiguous.to_string()),
            ("  of these whole / absent", format!("{ambiguous_whole} / {ambiguous_absent}")),
            ("  of these heard on the wire", v.ambiguous_heard.to_string()),
            ("client killed before the answer", unheard.to_string()),
            ("  of these whole / absent", format!("{unheard_whole} / {unheard_absent}")),
            ("came after a look-up in vain", v.late.to_string()),
            ("not written, and said so", v.refused.to_string()),
            ("server kills", self.done.server_kills.to_string()),
            ("client kills", self.done.client_kills.to_string()),
            ("faults on the wire", self.done.cuts.to_string()),
            ("lost", v.lost.to_string()),
            ("torn", v.torn.to_string()),
            ("doubled", v.doubled.to_string()),
            ("disordered", v.disordered.to_string()),
            ("misreported", v.misreported.to_string()),
            ("unexpected answers", v.unexpected.to_string()),
            ("seconds", format!("{:.1}", self.duration.as_secs_f64())),
        ]
    }
}

/// A column for each report; below it, in words, what broke.
pub(crate) fn table(reports: &[Report]) -> String {
    let columns: Vec<_> = reports.iter().map(Report::rows).collect();
    let mut text = String::new();
    let mut line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        let _ = write!(text, "{name:<32}");
        for cell in cells {
            let _ = write!(text, " {cell:>16}");
        }
        text.push('\n');
    };
    line("", &mut reports.iter().map(|report| report.backend.split(':').next().unwrap_or_default()));
    for at in 0..columns.first().map_or(0, Vec::len) {
        line(columns[0][at].0, &mut columns.iter().map(|rows| &*rows[at].1));
    }
    for report in reports {
        let _ = writeln!(text, "{}", report.backend);
        for words in &report.verdict.words {
            let _ = writeln!(text, "  {words}");
        }
    }
    text
}

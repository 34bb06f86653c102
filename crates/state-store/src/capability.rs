//! What a store may be unable to do, by its nature.

/// Something that not every store can do. The list is closed: everything else every store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Keep an acknowledged write when this process dies.
    SurviveProcess,
    /// Keep an acknowledged write when the power fails.
    SurvivePowerCut,
    /// Show its data to other processes of this host.
    ShareBetweenProcesses,
    /// Show its data to other hosts.
    ShareBetweenHosts,
    /// Judge expiry by the clock that it was given, which tests and replays can move.
    UseGivenClock,
}

impl Capability {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::SurviveProcess,
        Self::SurvivePowerCut,
        Self::ShareBetweenProcesses,
        Self::ShareBetweenHosts,
        Self::UseGivenClock,
    ];

    /// In words that follow "cannot".
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SurviveProcess => "keep a write when the process dies",
            Self::SurvivePowerCut => "keep a write when the power fails",
            Self::ShareBetweenProcesses => "share its data with other processes",
            Self::ShareBetweenHosts => "share its data with other hosts",
            Self::UseGivenClock => "judge expiry by a clock of its user",
        }
    }
}

//! Lines per crate and the sizes of files. A file that a person cannot hold in their head hides its mistakes.

use crate::files::{self, SourceFile};
use crate::report::say;
use crate::workspace::Workspace;

/// No file may have more lines.
pub const LINES_MAX: usize = 800;
/// 95 of 100 files have at most so many lines.
pub const LINES_P95_MAX: usize = 500;
/// Half of the files have at most so many lines.
pub const LINES_MEDIAN_MAX: usize = 150;

/// Counts the Rust files of every member and holds them against the limits.
///
/// # Errors
/// The files and figures that are over a limit.
pub fn check(workspace: &Workspace) -> Result<String, Vec<String>> {
    let mut all = Vec::new();
    say(format_args!("{:<24}{:>8}{:>8}{:>8}{:>8}{:>8}", "crate", "lines", "files", "median", "p95", "max"));
    for member in &workspace.members {
        let files = files::find(&workspace.root, &member.dir, ".rs").map_err(|error| vec![error])?;
        say(format_args!("{}", row(&member.name, &files)));
        all.extend(files);
    }
    say(format_args!("{}", row("all", &all)));
    let problems = over_limit(&all);
    let counts = counts(&all);
    if problems.is_empty() {
        Ok(format!("{} lines in {} files", counts.iter().sum::<usize>(), counts.len()))
    } else {
        Err(problems)
    }
}

/// What is over a limit, one sentence each.
pub fn over_limit(files: &[SourceFile]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{} has {lines} lines, the limit is {LINES_MAX}: split it", file.path.display()));
        }
    }
    let counts = counts(files);
    for (percent, limit) in [(50, LINES_MEDIAN_MAX), (95, LINES_P95_MAX)] {
        let lines = percentile(&counts, percent);
        if lines > limit {
            problems.push(format!("{percent} % of the files reach up to {lines} lines, the limit is {limit}"));
        }
    }
    problems
}

/// Nearest rank: the smallest value that at least `percent` of all values do not exceed; 0 if there are none.
pub fn percentile(sorted: &[usize], percent: usize) -> usize {
    let rank = (sorted.len() * percent).div_ceil(100);
    rank.checked_sub(1).map_or(0, |index| sorted[index])
}

fn counts(files: &[SourceFile]) -> Vec<usize> {
    let mut counts: Vec<usize> = files.iter().map(|file| file.text.lines().count()).collect();
    counts.sort_unstable();
    counts
}

fn row(name: &str, files: &[SourceFile]) -> String {
    let counts = counts(files);
    let (total, files, max) = (counts.iter().sum::<usize>(), counts.len(), percentile(&counts, 100));
    let (median, p95) = (percentile(&counts, 50), percentile(&counts, 95));
    format!("{name:<24}{total:>8}{files:>8}{median:>8}{p95:>8}{max:>8}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(lines: &[usize]) -> Vec<SourceFile> {
        let file = |(index, count): (usize, &usize)| SourceFile {
            path: format!("{index}.rs").into(),
            text: "line\n".repeat(*count),
        };
        lines.iter().enumerate().map(file).collect()
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let sorted: Vec<usize> = (1..=20).collect();
        assert_eq!(percentile(&sorted, 50), 10);
        assert_eq!(percentile(&sorted, 95), 19);
        assert_eq!(percentile(&sorted, 100), 20);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[], 95), 0);
    }

    #[test]
    fn at_the_limits_is_within() {
        let mut at = vec![LINES_MEDIAN_MAX; 94];
        at.extend([LINES_P95_MAX, LINES_MAX, LINES_MAX, LINES_MAX, LINES_MAX, LINES_MAX]);
        assert_eq!(over_limit(&files(&at)), Vec::<String>::new());
    }

    #[test]
    fn each_limit_is_held() {
        let mut one_long = vec![10; 99];
        one_long.push(LINES_MAX + 1);
        let problems = over_limit(&files(&one_long));
        assert!(problems.len() == 1 && problems[0].starts_with("99.rs has 801 lines"), "{problems:?}");
        assert!(over_limit(&files(&[LINES_MEDIAN_MAX + 1]))[0].starts_with("50 %"));
        assert!(over_limit(&files(&[1, 1, 1, LINES_P95_MAX + 1]))[0].starts_with("95 %"));
    }
}

//! Runs the benches and writes down what they say: the medians, and how ours stand to the others of the same run.

pub mod page;
pub mod results;

use std::fs;

use crate::process::CommandLine;
use crate::workspace::Workspace;

/// What is written, relative to the root.
pub const PAGE: &str = "docs/benchmarks.md";
/// Where criterion leaves its figures, relative to the root. Emptied before each run: a figure of an earlier one beside those
/// of today would make a ratio that nobody measured.
const FIGURES: &str = "target/infra-bench";

/// Runs every bench and writes [`PAGE`].
///
/// # Errors
/// The command that failed, the file that cannot be read or written, or the group that has no figure of ours.
pub fn run(workspace: &Workspace) -> Result<String, String> {
    let figures = workspace.root.join(FIGURES);
    if figures.exists() {
        fs::remove_dir_all(&figures).map_err(|error| format!("{FIGURES}: {error}"))?;
    }
    command().env("CRITERION_HOME", &figures.to_string_lossy()).run(&workspace.root)?;
    let groups = results::read(&workspace.root, FIGURES.as_ref())?;
    let page = page::render(&groups, &page::Circumstances::look(&workspace.root)?);
    fs::write(workspace.root.join(PAGE), page).map_err(|error| format!("{PAGE}: {error}"))?;
    Ok(format!("{} groups, written to {PAGE}", groups.len()))
}

/// The command that measures, without the page.
pub fn command() -> CommandLine {
    CommandLine::cargo(["bench", "--package", "infra-benches", "--benches"])
}

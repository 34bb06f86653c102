//! Holds `docs/dependencies.md` against the manifests: each package from outside has one line that says why, and no line
//! outlives its package.

use std::collections::BTreeSet;
use std::fs;

use crate::workspace::Workspace;

/// The page, relative to the root.
pub const PAGE: &str = "docs/dependencies.md";

/// What the page lacks or has too much, one sentence each.
pub fn check(workspace: &Workspace) -> Vec<String> {
    match fs::read_to_string(workspace.root.join(PAGE)) {
        Ok(page) => compare(&page, &workspace.external_dependencies()),
        Err(error) => vec![format!("{PAGE}: {error}")],
    }
}

/// Compares the rows of the page with the packages that the manifests name.
pub fn compare(page: &str, used: &BTreeSet<&str>) -> Vec<String> {
    let rows: Vec<&str> = page.lines().filter_map(row_name).collect();
    let named: BTreeSet<&str> = rows.iter().copied().collect();
    let mut problems = Vec::new();
    for name in used.difference(&named) {
        problems.push(format!("{PAGE} does not name `{name}`: add a row with its licence and what it is for"));
    }
    for name in named.difference(used) {
        problems.push(format!("{PAGE} names `{name}`, which no member uses: remove the row"));
    }
    if rows.len() > named.len() {
        problems.push(format!("{PAGE} names a package twice"));
    }
    for line in page.lines().filter(|line| row_name(line).is_some() && has_empty_cell(line)) {
        problems.push(format!("{PAGE}: a cell is empty in {line}"));
    }
    problems
}

/// A row starts with its package in backticks.
fn row_name(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?.split('`').next()
}

fn has_empty_cell(row: &str) -> bool {
    row.trim_matches('|').split('|').any(|cell| cell.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_OF_TWO: &str = "| package | licence |\n|---|---|\n| `serde` | MIT |\n| `tokio` | MIT |\n";

    #[test]
    fn a_page_that_names_what_is_used_passes() {
        assert_eq!(compare(PAGE_OF_TWO, &BTreeSet::from(["serde", "tokio"])), Vec::<String>::new());
    }

    #[test]
    fn missing_and_stale_rows_are_found() {
        let problems = compare(PAGE_OF_TWO, &BTreeSet::from(["serde", "uuid"]));
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains("does not name `uuid`"), "{problems:?}");
        assert!(problems[1].contains("`tokio`, which no member uses"), "{problems:?}");
    }

    #[test]
    fn double_rows_and_empty_cells_are_found() {
        let page = "| `serde` | MIT |\n| `serde` |  |\n";
        let problems = compare(page, &BTreeSet::from(["serde"]));
        assert!(problems[0].contains("twice") && problems[1].contains("empty"), "{problems:?}");
    }
}

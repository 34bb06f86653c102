//! The page of controls: each line of the regulation leads to the code and the test that answer for it, or says that it does not yet.

use std::{collections::BTreeSet, path::Path};

use crate::workspace::Workspace;

/// The page, from the root.
const PAGE: &str = "docs/controls.md";
/// R1 to R38.
const LINES: u32 = 38;
/// What stands in a line that nothing answers for.
const OPEN: &str = "**not yet**";

/// How many lines lead somewhere.
///
/// # Errors
/// One sentence for each line that is missing, or that leads nowhere.
pub fn check(workspace: &Workspace) -> Result<String, Vec<String>> {
    let path = workspace.root.join(PAGE);
    let text = std::fs::read_to_string(&path).map_err(|e| vec![format!("{PAGE}: {e}")])?;
    let read = |target: &str| std::fs::read_to_string(path.parent().unwrap_or(Path::new(".")).join(target)).ok();
    check_page(&text, &read)
}

fn check_page(text: &str, read: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<String>> {
    let mut problems = Vec::new();
    let mut missing: BTreeSet<u32> = (1..=LINES).collect();
    let mut open = 0;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(number) = cells.first().and_then(|c| c.strip_prefix('R')).and_then(|n| n.parse().ok()) else {
            continue;
        };
        if !missing.remove(&number) {
            problems.push(format!("{PAGE}: R{number} stands twice, or is no line of the regulation"));
        }
        let [_, _, code, test] = cells[..] else {
            problems.push(format!("{PAGE}: R{number} needs four cells: line, control, code, test"));
            continue;
        };
        if code.contains(OPEN) || test.contains(OPEN) {
            open += 1;
        }
        for (what, cell) in [("code", code), ("test", test)] {
            let found = links(cell);
            if found.is_empty() && !cell.contains(OPEN) {
                problems.push(format!("{PAGE}: R{number} leads to no {what}"));
            }
            for (name, target) in found {
                problems.extend(dead(&name, &target, read).map(|why| format!("{PAGE}: R{number}: {why}")));
            }
        }
    }
    problems.extend(missing.iter().map(|number| format!("{PAGE}: R{number} is missing")));
    if problems.is_empty() { Ok(format!("{} of {LINES} controls", LINES - open)) } else { Err(problems) }
}

/// The text and target of each link of a cell.
fn links(cell: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in cell.split('[').skip(1) {
        if let Some((name, rest)) = part.split_once("](")
            && let Some((target, _)) = rest.split_once(')')
        {
            found.push((name.to_owned(), target.to_owned()));
        }
    }
    found
}

/// Why a link leads nowhere: the file is not there, or does not hold the name that stands in backticks.
fn dead(name: &str, target: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(text) = read(file) else { return Some(format!("there is no {file}")) };
    if !anchor.is_empty() {
        let has = text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
        return (!has).then(|| format!("{file} has no heading {anchor}"));
    }
    let word = name.strip_prefix('`')?.strip_suffix('`')?;
    let word = word.rsplit("::").next().unwrap_or(word);
    (!holds(&text, word)).then(|| format!("{file} does not hold {word}"))
}

/// Whether a text holds a name as a whole word.
fn holds(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part_of_name) && !text[at + word.len()..].starts_with(part_of_name))
}

/// The anchor of a heading.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(last: &str) -> String {
        let row = |n| format!("| R{n} | c | [`limit`](../a.rs) | [`it_holds`](../a.rs) |\n");
        (1..LINES).map(row).collect::<String>() + last
    }

    fn read(target: &str) -> Option<String> {
        match target {
            "../a.rs" => Some("fn limit() {}\nfn it_holds() {}".into()),
            "p.md" => Some("## Two Persons, please\n".into()),
            _ => None,
        }
    }

    #[test]
    fn a_page_that_leads_everywhere_passes_and_open_lines_are_counted() {
        let whole = page("| R38 | c | [the procedure](p.md#two-persons-please) | [`it_holds`](../a.rs) |");
        assert_eq!(check_page(&whole, &read), Ok("38 of 38 controls".into()));
        let open = page("| R38 | c | **not yet** | **not yet** |");
        assert_eq!(check_page(&open, &read), Ok("37 of 38 controls".into()));
    }

    #[test]
    fn each_way_to_lead_nowhere_is_found() {
        for (last, why) in [
            ("", "R38 is missing"),
            ("| R1 | c | [`limit`](../a.rs) | [`it_holds`](../a.rs) |", "R1 stands twice"),
            ("| R38 | c | [`limit`](../a.rs) |", "four cells"),
            ("| R38 | c | none | [`it_holds`](../a.rs) |", "leads to no code"),
            ("| R38 | c | [`limit`](../b.rs) | [`it_holds`](../a.rs) |", "there is no ../b.rs"),
            ("| R38 | c | [`limits`](../a.rs) | [`it_holds`](../a.rs) |", "does not hold limits"),
            ("| R38 | c | [`limit`](../a.rs) | [`it_hold`](../a.rs) |", "does not hold it_hold"),
            ("| R38 | c | [the procedure](p.md#alone) | [`it_holds`](../a.rs) |", "no heading alone"),
        ] {
            let problems = check_page(&page(last), &read).unwrap_err().join("\n");
            assert!(problems.contains(why), "{last}: {problems}");
        }
    }
}

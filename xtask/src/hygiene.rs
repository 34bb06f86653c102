//! Rules about the text of the repository that no compiler holds.

use crate::files::{self, SourceFile};
use crate::workspace::Workspace;
use crate::{controls, dependencies};

/// What may not be written, and what to write instead. The words are put together here so that this file may be checked too.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("#[", "ignore"), "a test that is skipped passes for the wrong reason: run it or delete it"),
    (concat!("#[", "allow("), "use #[expect(.., reason = \"..\")], which ends when its cause does"),
    (concat!("#![", "allow("), "use #![expect(.., reason = \"..\")], which ends when its cause does"),
    (concat!("todo", "!"), "a thing that is not there yet is left out, it does not panic"),
    (concat!("unimplemented", "!"), "a thing that is not there yet is left out, it does not panic"),
];

/// Reads all sources and the page about dependencies.
///
/// # Errors
/// One sentence for each place, with file and line.
pub fn check(workspace: &Workspace) -> Result<String, Vec<String>> {
    let mut problems = Vec::new();
    let mut count = 0;
    for member in &workspace.members {
        for ending in [".rs", ".md"] {
            let files = files::find(&workspace.root, &member.dir, ending).map_err(|error| vec![error])?;
            count += files.len();
            problems.extend(files.iter().flat_map(check_file));
        }
    }
    problems.extend(dependencies::check(workspace));
    let controls = controls::check(workspace).unwrap_or_else(|found| {
        problems.extend(found);
        String::new()
    });
    if problems.is_empty() { Ok(format!("{count} files, {controls}")) } else { Err(problems) }
}

/// What is wrong with one file.
pub fn check_file(file: &SourceFile) -> Vec<String> {
    let is_rust = file.path.extension().is_some_and(|extension| extension == "rs");
    let mut problems = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let place = format!("{}:{}", file.path.display(), index + 1);
        if is_unchecked_example(line) {
            problems
                .push(format!("{place}: the example is not compiled: write `no_run` or `text`, or make it compile"));
        }
        if !is_rust {
            continue;
        }
        for (words, instead) in FORBIDDEN.iter().filter(|(words, _)| line.contains(words)) {
            problems.push(format!("{place}: {words} is not used here: {instead}"));
        }
        if is_hidden_attribute(line) {
            problems.push(format!("{place}: {} may hide neither a test nor a lint", concat!("cfg", "_attr")));
        }
    }
    problems
}

/// A fence of a documentation example that the documentation tests leave out.
fn is_unchecked_example(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches("//!").trim_start_matches("///").trim_start();
    line.strip_prefix("```").is_some_and(|words| words.split(',').any(|word| word.trim().starts_with("ignore")))
}

fn is_hidden_attribute(line: &str) -> bool {
    let Some((_, condition)) = line.split_once(concat!("cfg", "_attr(")) else { return false };
    condition.contains(concat!(", ", "ignore")) || condition.contains(concat!(", ", "allow("))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        check_file(&SourceFile { path: path.into(), text: text.into() })
    }

    #[test]
    fn each_forbidden_word_is_found_with_its_line() {
        for (words, _) in FORBIDDEN {
            let found = problems("src/a.rs", &format!("//! A.\n    {words}\n"));
            assert!(found.len() == 1 && found[0].starts_with("src/a.rs:2: "), "{words}: {found:?}");
        }
    }

    #[test]
    fn a_condition_hides_nothing() {
        for hidden in [", ignore", ", allow(dead_code)"] {
            let line = format!("#[{}windows{hidden})]", concat!("cfg", "_attr("));
            assert_eq!(problems("a.rs", &line).len(), 1, "{line}");
        }
        assert_eq!(problems("a.rs", "#[cfg_attr(windows, expect(dead_code, reason = \"x\"))]"), Vec::<String>::new());
    }

    #[test]
    fn examples_must_compile() {
        let fence = concat!("``", "`");
        for words in ["ignore", "rust,ignore", "ignore-wasm"] {
            assert_eq!(problems("README.md", &format!("{fence}{words}")).len(), 1, "{words}");
            assert_eq!(problems("a.rs", &format!("    /// {fence}{words}")).len(), 1, "{words}");
        }
        for words in ["", "rust", "no_run", "text", "compile_fail"] {
            assert_eq!(problems("README.md", &format!("{fence}{words}")), Vec::<String>::new(), "{words}");
        }
    }

    #[test]
    fn ordinary_code_and_prose_pass() {
        assert_eq!(problems("a.rs", "#[expect(dead_code, reason = \"x\")]\nfn ignore() {}"), Vec::<String>::new());
        assert_eq!(problems("a.md", &format!("never {}", FORBIDDEN[1].0)), Vec::<String>::new());
    }
}

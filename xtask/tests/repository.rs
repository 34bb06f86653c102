//! The rules of this repository, held against the repository itself, so that a plain `cargo test` holds them too.

use std::path::Path;
use std::{fs, process::Command};

use xtask::feature_sets::{self, FeatureSet};
use xtask::workspace::Workspace;
use xtask::{hygiene, layers, prove, sizes, steps};

fn workspace() -> Workspace {
    Workspace::load().expect("the manifests can be read")
}

#[test]
fn the_layers_hold() {
    assert_eq!(layers::check(&workspace().members), Vec::<String>::new());
}

#[test]
fn what_cargo_says_of_the_set_sqlite_is_refused_as_none() {
    let workspace = workspace();
    let tree = FeatureSet::Sqlite.tree(&workspace).output(&workspace.root).expect("cargo tree");
    let problems = feature_sets::verify(FeatureSet::None, &tree, &workspace);
    assert!(problems.iter().any(|problem| problem.contains("infra-state-store/sqlite")), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("driver rusqlite")), "{problems:?}");
}

#[test]
fn the_text_is_clean() {
    assert_eq!(hygiene::check(&workspace()).err(), None);
}

#[test]
fn the_files_are_small() {
    assert_eq!(sizes::check(&workspace()).err(), None);
}

#[test]
fn every_long_count_says_what_it_proves_and_how_long_it_takes() {
    assert_eq!(prove::find(&workspace()).err(), None);
}

#[test]
fn every_step_is_listed_in_order() {
    let listed: Vec<&str> = steps::all(&workspace()).iter().map(|step| step.name).collect();
    assert_eq!(listed, steps::NAMES);
}

#[test]
fn a_mistake_on_the_command_line_ends_with_two() {
    for arguments in [&["tset"][..], &["test", "--only", "speed"], &[]] {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("xtask starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("error: ") && said.contains("usage:"), "{said}");
    }
}

#[test]
fn a_step_runs_from_any_folder_of_the_workspace_and_prints_its_table() {
    let dir = workspace().root.join("xtask/src");
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["test", "--only", "layers"])
        .current_dir(dir)
        .output()
        .expect("xtask starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("== [1/1] layers") && said.contains("seconds") && !said.contains('\x1b'), "{said}");
}

#[test]
fn a_breach_ends_with_one_and_names_the_command_to_repeat() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("breach");
    fs::create_dir_all(dir.join("src")).expect("a folder for the workspace");
    fs::write(dir.join("src/lib.rs"), "").expect("a crate");
    let manifest = "[workspace]\n[package]\nname = \"infra-common\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    fs::write(dir.join("Cargo.toml"), manifest).expect("a manifest");
    let output =
        Command::new(env!("CARGO_BIN_EXE_xtask")).arg("layers").current_dir(&dir).output().expect("xtask starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["infra-common has no layer", "layers again: cargo xtask test --only layers", "FAIL"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

//! The page of figures.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use crate::bench::results::{Group, Median};
use crate::process::CommandLine;

/// Where and with what was measured.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// Processor, cores, operating system.
    pub machine: String,
    /// The day, as `2026-01-31`.
    pub date: String,
    /// The compiler, then every package from outside that the benches name.
    pub versions: Vec<String>,
}

impl Circumstances {
    /// Asks the machine and cargo.
    ///
    /// # Errors
    /// The command that did not answer.
    pub fn look(root: &Path) -> Result<Self, String> {
        let say = |words: &[&str]| {
            let words = words.iter().map(|&word| word.to_owned()).collect();
            CommandLine { env: Vec::new(), words }.output(root).map(|said| said.trim().to_owned())
        };
        let cores = available_parallelism().map_or_else(|_| "?".to_owned(), |cores| cores.to_string());
        let system = say(&["uname", "-sm"])?;
        let tree = ["tree", "--package=infra-benches", "--depth=1", "--edges=normal,dev", "--prefix=none"];
        let tree = CommandLine::cargo(tree.into_iter().chain(["--format={p}"])).output(root)?;
        let mut versions = vec![say(&["rustc", "--version"])?];
        versions.extend(packages(&tree));
        Ok(Self {
            machine: format!("{}, {cores} cores, {system}", processor()),
            date: say(&["date", "-u", "+%F"])?,
            versions,
        })
    }
}

fn processor() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

/// Name and version of what is not ours.
fn packages(tree: &str) -> Vec<String> {
    let outside = tree.lines().filter(|line| !line.starts_with("infra-"));
    let mut packages: Vec<String> = outside
        .filter_map(|line| {
            let (name, version) = line.split_once(" v")?;
            Some(format!("{name} {}", version.split(' ').next()?))
        })
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

/// The page, as Markdown.
pub fn render(groups: &[Group], circumstances: &Circumstances) -> String {
    let Circumstances { machine, date, versions } = circumstances;
    let mut page = format!(
        "\
# Benchmarks

Written by `cargo xtask bench` on {date}; do not edit. What each row compares, and what the other side does not do, is in
[benches/README.md](../benches/README.md).

**Only the ratios count**, and only those of one run: ours and the others were measured one after the other on the same machine,
which may have had other work to do meanwhile. The times say what the ratios are made of; they are no promise. An interval that
is wide beside its median is a sign of such other work: measure again on a quiet machine before drawing a conclusion. A ratio
below 1 means that ours is faster. `floor_…` is a part of our own work, or work that nobody can leave out.

* Machine: {machine}
* Versions: {}

| operation | ours: median (95 % interval) | beside | its median (95 % interval) | ours ÷ it |
|---|---|---|---|---|
",
        versions.join(", ")
    );
    for group in groups {
        let (name, ours) = (&group.name, group.ours);
        for (other, median) in &group.others {
            let ratio = ours.at / median.at;
            let row = format_args!("| `{name}` | {} | `{other}` | {} | {ratio:.2} |", shown(ours), shown(*median));
            let _ = writeln!(page, "{row}");
        }
        if group.others.is_empty() {
            let _ = writeln!(page, "| `{name}` | {} | – | – | – |", shown(ours));
        }
    }
    page
}

fn shown(median: Median) -> String {
    let (unit, name) = match median.at {
        at if at < 1e3 => (1.0, "ns"),
        at if at < 1e6 => (1e3, "µs"),
        _ => (1e6, "ms"),
    };
    let Median { at, low, high } = median;
    format!("{:.2} {name} ({:.2}–{:.2})", at / unit, low / unit, high / unit)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn median(at: f64) -> Median {
        Median { at, low: at * 0.9, high: at * 1.1 }
    }

    #[test]
    fn every_other_gets_a_row_with_its_ratio() {
        let others = BTreeMap::from([("moka".to_owned(), median(200.0)), ("dashmap".to_owned(), median(40.0))]);
        let groups = [
            Group { name: "store/get".into(), ours: median(50.0), others },
            Group { name: "gate/approve".into(), ours: median(25_000.0), others: BTreeMap::new() },
        ];
        let versions = vec!["rustc 1.94".to_owned(), "moka 0.12".to_owned()];
        let here = Circumstances { machine: "a machine".into(), date: "2026-01-31".into(), versions };
        let page = render(&groups, &here);
        for line in [
            "| `store/get` | 50.00 ns (45.00–55.00) | `dashmap` | 40.00 ns (36.00–44.00) | 1.25 |",
            "| `store/get` | 50.00 ns (45.00–55.00) | `moka` | 200.00 ns (180.00–220.00) | 0.25 |",
            "| `gate/approve` | 25.00 µs (22.50–27.50) | – | – | – |",
            "* Machine: a machine",
            "* Versions: rustc 1.94, moka 0.12",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(page.contains("on 2026-01-31") && page.contains("Only the ratios count"), "{page}");
    }

    #[test]
    fn versions_are_of_packages_from_outside_and_show_no_folder() {
        let tree = "infra-benches v0.1.0 (/w/benches)\nmoka v0.12.16\ninfra-types v0.1.0 (/w/types)\nasync-trait v0.1.89 (proc-macro)\nmoka v0.12.16 (*)\n";
        assert_eq!(packages(tree), ["async-trait 0.1.89", "moka 0.12.16"]);
    }
}

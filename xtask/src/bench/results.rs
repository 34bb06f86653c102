//! What criterion measured, read from the files that it leaves.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use crate::files;

/// The implementation that the others of its group are held against.
pub const OURS: &str = "infra";

/// Nanoseconds of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Median {
    /// The middle of the samples.
    pub at: f64,
    /// Where its 95 % interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// All implementations of one `crate/operation`.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// `crate/operation`.
    pub name: String,
    /// Ours.
    pub ours: Median,
    /// The others by name.
    pub others: BTreeMap<String, Median>,
}

/// Reads all figures beneath `root/dir`, by the name of their group.
///
/// # Errors
/// The file that is not as criterion writes it, or the group that has no figure of ours.
pub fn read(root: &Path, dir: &Path) -> Result<Vec<Group>, String> {
    let estimates: BTreeMap<_, _> =
        files::find(root, dir, "estimates.json")?.into_iter().map(|file| (file.path, file.text)).collect();
    let mut measured = Vec::new();
    for file in files::find(root, dir, "benchmark.json")? {
        // Beside `new` lies `base`: what the next run would be compared with.
        if file.path.parent().and_then(Path::file_name) != Some(OsStr::new("new")) {
            continue;
        }
        let beside = file.path.with_file_name("estimates.json");
        let estimates = estimates.get(&beside).ok_or_else(|| format!("{}: missing", beside.display()))?;
        let one = one(&file.text, estimates).map_err(|problem| format!("{}: {problem}", file.path.display()))?;
        measured.push(one);
    }
    group(measured)
}

/// Group, implementation and figure of one measurement.
fn one(benchmark: &str, estimates: &str) -> Result<(String, String, Median), String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
    let (benchmark, estimates) = (parse(benchmark)?, parse(estimates)?);
    let text = |name: &str| benchmark[name].as_str().map(str::to_owned).ok_or_else(|| format!("no {name}"));
    let number = |value: &Value| value.as_f64().ok_or("no median with its interval");
    let (median, interval) = (&estimates["median"], &estimates["median"]["confidence_interval"]);
    let median = Median {
        at: number(&median["point_estimate"])?,
        low: number(&interval["lower_bound"])?,
        high: number(&interval["upper_bound"])?,
    };
    Ok((text("group_id")?, text("function_id")?, median))
}

fn group(measured: Vec<(String, String, Median)>) -> Result<Vec<Group>, String> {
    let mut groups: BTreeMap<String, BTreeMap<String, Median>> = BTreeMap::new();
    for (group, implementation, median) in measured {
        groups.entry(group).or_default().insert(implementation, median);
    }
    if groups.is_empty() {
        return Err("the benches left no figures".to_owned());
    }
    let whole = groups.into_iter().map(|(name, mut others)| match others.remove(OURS) {
        Some(ours) => Ok(Group { name, ours, others }),
        None => Err(format!("{name} has no implementation `{OURS}` to hold the others against")),
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATES: &str = r#"{"mean":{"point_estimate":9.0},"median":{"confidence_interval":{"confidence_level":0.95,
        "lower_bound":3.5,"upper_bound":4.5},"point_estimate":4.0,"standard_error":0.1}}"#;

    fn benchmark(implementation: &str) -> String {
        format!(r#"{{"group_id":"store/get","function_id":"{implementation}","value_str":null}}"#)
    }

    #[test]
    fn the_median_is_read_and_not_the_mean() {
        let median = Median { at: 4.0, low: 3.5, high: 4.5 };
        assert_eq!(one(&benchmark("infra"), ESTIMATES), Ok(("store/get".into(), "infra".into(), median)));
    }

    #[test]
    fn what_is_not_as_criterion_writes_it_is_no_figure() {
        assert!(one(&benchmark("infra"), "{}").expect_err("no median").contains("median"));
        assert!(one("{}", ESTIMATES).expect_err("no name").contains("group_id"));
        assert!(one("{", ESTIMATES).is_err());
    }

    #[test]
    fn a_group_without_ours_or_no_group_at_all_is_refused() {
        let measured = |names: &[&str]| {
            let all = names.iter().map(|name| one(&benchmark(name), ESTIMATES));
            group(all.collect::<Result<_, _>>().expect("well formed"))
        };
        assert_eq!(measured(&["infra", "moka", "dashmap"]).expect("whole")[0].others.len(), 2);
        assert!(measured(&["moka"]).expect_err("ours is missing").contains("store/get"));
        assert!(measured(&[]).is_err());
    }

    #[test]
    fn figures_are_found_where_criterion_leaves_them_and_the_baseline_beside_them_is_not() {
        let root = tempfile::tempdir().expect("a directory");
        for (folder, implementation) in [("new", "infra"), ("base", "moka")] {
            let folder = root.path().join("figures/store_get").join(implementation).join(folder);
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join("benchmark.json"), benchmark(implementation)).expect("written");
            std::fs::write(folder.join("estimates.json"), ESTIMATES).expect("written");
        }
        let groups = read(root.path(), Path::new("figures")).expect("whole");
        assert_eq!(groups.len(), 1);
        assert!(groups[0].others.is_empty(), "{groups:?}");
    }
}

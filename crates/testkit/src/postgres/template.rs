//! An initialised data directory that every server starts as a copy of.

use std::{
    ffi::OsStr,
    fs::Permissions,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use super::programs::{Programs, output};
use crate::{
    base::{base_dir, lock_file},
    port::random,
};

/// Changes whenever this file makes something else.
const REVISION: u32 = 2;
/// The user that tests come as; owns the database of the same name and is no superuser.
pub(super) const USER: &str = "infra";
/// That user's password.
pub(super) const PASSWORD: &str = "infra-test-password";
/// Says that the template is whole, and of how many files.
const COMPLETE: &str = "complete";

/// Copies the template to `data`, which must not exist; makes it first if nobody has. `initdb` takes seconds, a copy a fraction.
pub(super) fn copy_to(programs: &Programs, data: &Path) -> Result<(), String> {
    let base = base_dir();
    let lock = lock_file(&base.join("postgres-template.lock"));
    lock.lock().map_err(|error| format!("the template cannot be locked: {error}"))?;
    let template = base.join(format!("{}-{REVISION}.template", plain(&programs.version)));
    if !is_whole(&template) {
        make(programs, &template)?;
    }
    // Many may copy at once; whoever makes a template waits for them.
    lock.lock_shared().map_err(|error| format!("the template cannot be locked: {error}"))?;
    // As ourselves, because root keeps the owner.
    let mut copy = Command::new("cp");
    copy.args(["-R", "--preserve=mode,ownership"]).arg(template.join("data")).arg(data);
    output(&mut copy, "cp", "").map(drop)
}

/// Whether nothing is missing: systems clear their temporary directories file by file.
fn is_whole(template: &Path) -> bool {
    let noted = std::fs::read_to_string(template.join(COMPLETE)).ok().and_then(|text| text.parse().ok());
    noted == Some(count(&template.join("data")))
}

fn count(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1 + count(&entry.path()),
            _ => 1,
        })
        .sum()
}

/// Makes the template beside its place and moves it there whole: a test that is killed in the middle leaves programs that go on
/// writing, and they must not write into ours.
fn make(programs: &Programs, template: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", template.display());
    let sibling = |what: &str| template.with_extension(format!("{what}-{:016x}", random(2)));
    remove_siblings(template);
    let making = sibling("making");
    std::fs::create_dir(&making).map_err(failed)?;
    // The server's user makes `data` in it; whoever runs as root adds the mark and needs no right for that.
    std::fs::set_permissions(&making, Permissions::from_mode(0o711)).map_err(failed)?;
    if let Some((uid, gid)) = programs.owner {
        chown(&making, Some(uid), Some(gid)).map_err(failed)?;
    }
    let data = making.join("data");
    initialise(programs, data.to_str().ok_or("the temporary directory must have a name in UTF-8")?)?;
    std::fs::write(making.join(COMPLETE), count(&data).to_string()).map_err(failed)?;
    if template.exists() {
        std::fs::rename(template, sibling("old")).map_err(failed)?;
    }
    std::fs::rename(&making, template).map_err(failed)?;
    remove_siblings(template);
    Ok(())
}

/// What earlier attempts left. An orphan that still writes there may keep it alive: then the next one removes it.
fn remove_siblings(template: &Path) {
    let name = template.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let left = [format!("{stem}.making-"), format!("{stem}.old-")];
    for entry in template.parent().and_then(|base| std::fs::read_dir(base).ok()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| left.iter().any(|start| name.starts_with(start))) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn initialise(programs: &Programs, data: &str) -> Result<(), String> {
    let options = ["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync", "--wal-segsize=4"];
    programs.run("initdb", &[&["-D", data][..], &options].concat())?;
    // One command a line, without a server. What no test uses goes: every server copies what is left.
    let sql = format!(
        "CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'\nCREATE DATABASE {USER} OWNER {USER}\n\
         REVOKE ALL ON DATABASE {USER} FROM public\n\
         UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'\n\
         DROP DATABASE template0\nDROP DATABASE postgres\n"
    );
    let mut single = programs.command("postgres");
    single.args(["--single", "-D", data, "-c", "fsync=off", "template1"]);
    let (_, said) = output(&mut single, "postgres --single", &sql)?;
    if said.contains("ERROR") { Err(format!("postgres --single failed: {said}")) } else { Ok(()) }
}

fn plain(version: &str) -> String {
    version.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// Where the data of a server stands in its directory.
pub(super) fn data_dir(home: &Path) -> PathBuf {
    home.join("data")
}

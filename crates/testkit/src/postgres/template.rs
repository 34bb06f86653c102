//! An initialised data directory that every server starts as a copy of.

use std::{
    fs::Permissions,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::programs::{Programs, output};
use crate::base::{base_dir, lock_file, open_for_passing};

/// Changes whenever this file makes something else.
const REVISION: u32 = 1;
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
    let template = base.join(format!("postgres-{}-{REVISION}", plain(&programs.version)));
    if !is_whole(&template) {
        make(programs, &template)?;
    }
    // Many may copy at once; whoever makes a template waits for them.
    lock.lock_shared().map_err(|error| format!("the template cannot be locked: {error}"))?;
    // As ourselves: `-a` keeps the owner.
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(template.join("data")).arg(data);
    output(&mut copy, "cp").map(drop)
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

fn make(programs: &Programs, template: &Path) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(template);
    std::fs::create_dir(template).map_err(|error| format!("{}: {error}", template.display()))?;
    std::fs::set_permissions(template, Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
    if let Some((uid, gid)) = programs.owner {
        chown(template, Some(uid), Some(gid)).map_err(|error| error.to_string())?;
    }
    let data = template.join("data");
    let data_name = data.to_str().ok_or("the temporary directory must have a name in UTF-8")?;
    programs.run(
        "initdb",
        &["-D", data_name, "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync", "--wal-segsize=4"],
    )?;
    // One command a line, without a server.
    let sql = format!(
        "CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'\nCREATE DATABASE {USER} OWNER {USER}\n\
         REVOKE ALL ON DATABASE {USER} FROM public\n"
    );
    let mut single = programs.command("postgres");
    single.args(["--single", "-D", data_name, "-c", "fsync=off", "postgres"]);
    let mut child = single
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("postgres --single: {error}"))?;
    child.stdin.take().ok_or("stdin was asked for")?.write_all(sql.as_bytes()).map_err(|error| error.to_string())?;
    let out = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() || said.contains("ERROR") {
        return Err(format!("postgres --single failed: {said}"));
    }
    if programs.owner.is_some() {
        // Whoever runs as root reads the copy's settings, and nobody else needs to.
        open_for_passing(template);
    }
    let count = count(&data).to_string();
    std::fs::write(template.join(COMPLETE), count).map_err(|error| error.to_string())
}

fn plain(version: &str) -> String {
    version.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

/// Where the data of a server stands in its directory.
pub(super) fn data_dir(home: &Path) -> PathBuf {
    home.join("data")
}

//! Finds the files that the checks read. It walks folders instead of asking git, which refuses a checkout that belongs to
//! another user.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the workspace.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Relative to the root of the workspace.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

/// All files beneath `root/dir` whose names end in `ending`, in order of path. Build output is left out.
///
/// # Errors
/// The path that cannot be read, and why.
pub fn find(root: &Path, dir: &Path, ending: &str) -> Result<Vec<SourceFile>, String> {
    let mut found = Vec::new();
    let mut open = vec![root.join(dir)];
    while let Some(folder) = open.pop() {
        let says = |error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(says)? {
            let path = entry.map_err(says)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    open.push(path);
                }
            } else if name.ends_with(ending) {
                let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let path = path.strip_prefix(root).map_or_else(|_| path.clone(), Path::to_owned);
                found.push(SourceFile { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

//! The last checkpoint, kept in a file outside the log.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind as IoKind, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::AuditError,
    log::AuditLog,
    note::{Checkpoint, NOTE_BYTES_MAX, NoteSigner, NoteVerifier},
    tree::TreeHead,
};

/// How often `advance` starts anew because another process signed in between.
const ATTEMPTS_MAX: usize = 8;

/// A signed note and the key that signs it, in files that the caller names; a `.lock` file beside the note serves several
/// processes. Keep the note, or a copy of it, where whoever can write the log cannot: a log that is cut back *together with*
/// its note and key looks like the younger log that it once was.
#[derive(Debug, Clone)]
pub struct CheckpointFile {
    note: PathBuf,
    key: PathBuf,
    origin: String,
}

impl CheckpointFile {
    /// Names the files and the log (`origin`, e.g. `example.com/bots/7`); no I/O happens yet.
    #[must_use]
    pub fn new(note: impl Into<PathBuf>, key: impl Into<PathBuf>, origin: impl Into<String>) -> Self {
        Self { note: note.into(), key: key.into(), origin: origin.into() }
    }

    /// The last checkpoint; none before the first `advance`.
    ///
    /// # Errors
    /// `NoteMissing` and `KeyMissing` if one file exists without the other; `BadNote`, `BadKey` for what is in them; `File`.
    ///
    /// # Cancel safety
    /// Changes nothing but the lock file.
    pub async fn load(&self) -> Result<Option<Checkpoint>, AuditError> {
        Ok(self.load_with_signer().await?.map(|(checkpoint, _)| checkpoint))
    }

    /// The public half of the key, to be given to whoever verifies; none before the first `advance`.
    ///
    /// # Errors
    /// As `load`.
    ///
    /// # Cancel safety
    /// As `load`.
    pub async fn verifier(&self) -> Result<Option<NoteVerifier>, AuditError> {
        Ok(self.load_with_signer().await?.map(|(_, signer)| signer.verifier().clone()))
    }

    async fn load_with_signer(&self) -> Result<Option<(Checkpoint, NoteSigner)>, AuditError> {
        let this = self.clone();
        blocking(move || {
            let _lock = this.lock()?;
            this.read()
        })
        .await
    }

    /// Verifies the log against the last checkpoint, and signs and stores its head as the next one. A log that was tampered with is
    /// never signed. The first call makes the key, readable by its owner only.
    ///
    /// # Errors
    /// `Tampered` and the other errors of [`AuditLog::checkpoint`]; those of `load`; `Ambiguous` if the disk did not confirm the
    /// new file.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the old or the new checkpoint, never half of one.
    pub async fn advance(&self, log: &dyn AuditLog) -> Result<Checkpoint, AuditError> {
        for _ in 0..ATTEMPTS_MAX {
            let previous = self.load().await?;
            let head = log.checkpoint(previous.as_ref()).await?;
            if let Some(previous) = previous.as_ref().filter(|previous| previous.head() == head) {
                return Ok(previous.clone());
            }
            let this = self.clone();
            if let Some(next) = blocking(move || this.replace(previous.as_ref(), head)).await? {
                return Ok(next);
            }
        }
        Err(AuditError::File {
            what: "replace",
            path: self.note.display().to_string(),
            reason: "other processes replaced it each time: let one process sign".into(),
        })
    }

    /// Stores the next checkpoint if the last one is still `previous`.
    fn replace(&self, previous: Option<&Checkpoint>, head: TreeHead) -> Result<Option<Checkpoint>, AuditError> {
        let _lock = self.lock()?;
        let found = self.read()?;
        if found.as_ref().map(|(checkpoint, _)| checkpoint) != previous {
            return Ok(None);
        }
        let Some((_, signer)) = found else { return self.begin(head).map(Some) };
        let next = signer.sign(head);
        write_whole(&self.note, next.note().as_bytes(), 0o644)?;
        Ok(Some(next))
    }

    /// Makes the key and the first note. The key gets its name last: one without a note means that somebody took the note away, and
    /// must never mean that this process died in between.
    fn begin(&self, head: TreeHead) -> Result<Checkpoint, AuditError> {
        let signer = NoteSigner::generate(&self.origin)?;
        let new = beside(&self.key, ".new");
        write_whole(&new, format!("{}\n", signer.to_secret_text()).as_bytes(), 0o600)?;
        let first = signer.sign(head);
        write_whole(&self.note, first.note().as_bytes(), 0o644)?;
        rename(&new, &self.key)?;
        Ok(first)
    }

    /// Goes on where a process died that began: its key gets its name if it signed the note, and is nothing if there is none.
    fn finish_beginning(&self) -> Result<(), AuditError> {
        let new = beside(&self.key, ".new");
        let Some(key) = read_text(&new)? else { return Ok(()) };
        if read_text(&self.key)?.is_none()
            && let Some(note) = read_text(&self.note)?
        {
            let signer = NoteSigner::parse_secret(key.trim_end());
            return match signer.filter(|signer| Checkpoint::open(&note, signer.verifier()).is_ok()) {
                Some(_) => rename(&new, &self.key),
                // The note is another's: what is missing is told by `read`.
                None => Ok(()),
            };
        }
        fs::remove_file(&new).map_err(|e| failed("remove", &new, &e))
    }

    fn lock(&self) -> Result<File, AuditError> {
        let path = beside(&self.note, ".lock");
        let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = options.map_err(|e| failed("open", &path, &e))?;
        file.lock().map_err(|e| failed("lock", &path, &e))?;
        Ok(file)
    }

    fn read(&self) -> Result<Option<(Checkpoint, NoteSigner)>, AuditError> {
        self.finish_beginning()?;
        let name = |path: &Path| path.display().to_string();
        let (key, note) = match (read_text(&self.key)?, read_text(&self.note)?) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(AuditError::NoteMissing { path: name(&self.note) }),
            (None, Some(_)) => return Err(AuditError::KeyMissing { path: name(&self.key) }),
            (Some(key), Some(note)) => (key, note),
        };
        let bad = |reason: &str| AuditError::BadKey { path: name(&self.key), reason: reason.into() };
        if others_may_read(&self.key)? {
            return Err(bad("others may read it: chmod 600 it, or make a new key if they have"));
        }
        let signer = NoteSigner::parse_secret(key.trim_end()).ok_or_else(|| bad("it is not PRIVATE+KEY+…"))?;
        if signer.verifier().origin() != self.origin {
            return Err(bad("it is the key of another origin"));
        }
        Ok(Some((Checkpoint::open(&note, signer.verifier())?, signer)))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(AuditError::Ambiguous { reason: format!("the thread that handled the checkpoint file ended: {e}") })
    })
}

fn failed(what: &'static str, path: &Path, e: &std::io::Error) -> AuditError {
    AuditError::File { what, path: path.display().to_string(), reason: e.to_string() }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn read_text(path: &Path) -> Result<Option<String>, AuditError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("open", path, &e)),
    };
    let mut text = String::new();
    file.take(NOTE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(|e| failed("read", path, &e))?;
    Ok(Some(text))
}

#[cfg(unix)]
fn others_may_read(path: &Path) -> Result<bool, AuditError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).map_err(|e| failed("inspect", path, &e))?;
    Ok(metadata.permissions().mode() & 0o077 != 0)
}

/// Elsewhere, who may read a file is not in its mode.
#[cfg(not(unix))]
fn others_may_read(_path: &Path) -> Result<bool, AuditError> {
    Ok(false)
}

/// Leaves the old file or the whole new one, whatever happens in between.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuditError> {
    let temporary = beside(path, ".tmp");
    // A leftover of a process that died would keep its own mode.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != IoKind::NotFound => return Err(failed("remove", &temporary, &e)),
        _ => {}
    }
    let mut file = create(&temporary, mode).map_err(|e| failed("create", &temporary, &e))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| failed("write", &temporary, &e))?;
    rename(&temporary, path)
}

/// Puts a whole file into the place of another.
fn rename(from: &Path, path: &Path) -> Result<(), AuditError> {
    fs::rename(from, path).map_err(|e| failed("replace", path, &e))?;
    sync_directory(path).map_err(|e| AuditError::Ambiguous {
        reason: format!("{} was replaced, but the disk did not confirm it: {e}", path.display()),
    })
}

fn create(path: &Path, mode: u32) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Elsewhere, a directory cannot be opened to be synced.
#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

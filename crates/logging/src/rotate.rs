//! A file that rotates by size, between lines: no line is split, lost or written twice.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use infra_types::{Clock, Monotonic};

use crate::{
    config::FileConfig,
    error::LogError,
    queue::Batch,
    sink::{Fate, Sink},
};

/// How long a file that failed is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

struct Open {
    file: File,
    len: u64,
    /// The file ends in a piece of a line: the next one starts on a new line.
    torn: bool,
}

/// A file that rotates by size.
pub(crate) struct RotatingFile {
    config: FileConfig,
    clock: Arc<dyn Clock>,
    open: Option<Open>,
    /// When to try again after a failure, and what had failed.
    retry: Option<(Monotonic, String)>,
    /// Held for as long as we write; the system lets go of it when the process dies.
    lock: Option<File>,
}

impl RotatingFile {
    /// Opens the file, and says what is in the way if it cannot be opened now; it is tried again later.
    pub(crate) fn new(config: FileConfig, clock: Arc<dyn Clock>) -> Result<(Self, Option<String>), LogError> {
        let mut this = Self { config, clock, open: None, retry: None, lock: None };
        match this.ensure_open() {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(LogError::FileInUse { path: this.lock_path() }),
            Err(e) => {
                let problem = this.give_up(&e);
                Ok((this, Some(problem)))
            }
            Ok(()) => Ok((this, None)),
        }
    }

    fn path(&self, number: u32) -> PathBuf {
        let prefix = &self.config.prefix;
        self.config.dir.join(if number == 0 { format!("{prefix}.log") } else { format!("{prefix}.{number}.log") })
    }

    fn lock_path(&self) -> PathBuf {
        self.config.dir.join(format!("{}.lock", self.config.prefix))
    }

    /// Leaves the file alone for a while; words the problem.
    fn give_up(&mut self, error: &io::Error) -> String {
        self.open = None;
        let problem = format!("{}: {error}", self.path(0).display());
        self.retry = Some((self.clock.now() + RETRY_AFTER, problem.clone()));
        problem
    }

    fn ensure_open(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open {
            if self.still_there(open) {
                return Ok(());
            }
            // Moved or deleted by somebody else: what we wrote there is theirs, the rest goes to a new file.
            self.open = None;
        }
        fs::create_dir_all(&self.config.dir)?;
        if self.lock.is_none() {
            let lock = options().append(true).open(self.lock_path())?;
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, "held by another process"));
                }
                // A file system without locks cannot warn of a second writer; that is no reason not to log.
                Ok(()) | Err(TryLockError::Error(_)) => self.lock = Some(lock),
            }
        }
        let mut file = options().append(true).read(true).open(self.path(0))?;
        let len = file.metadata()?.len();
        let mut end = [b'\n'];
        if len > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut end)?;
        }
        self.open = Some(Open { file, len, torn: end != [b'\n'] });
        Ok(())
    }

    #[cfg(unix)]
    fn still_there(&self, open: &Open) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (fs::metadata(self.path(0)), open.file.metadata()) {
            (Ok(named), Ok(held)) => (named.dev(), named.ino()) == (held.dev(), held.ino()),
            _ => false,
        }
    }

    #[cfg(not(unix))]
    fn still_there(&self, _: &Open) -> bool {
        self.path(0).exists()
    }

    /// Makes room for a new file: `.log` becomes `.1.log`, and so on up to the first gap or the oldest, which goes.
    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let oldest = self.config.files_max - 1;
        let last = (1..oldest).find(|n| !self.path(*n).exists()).unwrap_or(oldest);
        for number in (0..last).rev() {
            fs::rename(self.path(number), self.path(number + 1))?;
        }
        self.ensure_open()
    }

    /// Writes `bytes`, whole lines, at the end of the open file; all or nothing as far as the system lets us.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Err(io::ErrorKind::NotConnected.into()) };
        if open.torn {
            open.file.write_all(b"\n")?;
            open.len += 1;
            open.torn = false;
        }
        let written = open.file.write_all(bytes);
        match &written {
            Ok(()) => open.len += bytes.len() as u64,
            // Cut off the piece that got through. Where that fails, opening the file again finds it torn.
            Err(_) => open.torn = open.file.set_len(open.len).is_err(),
        }
        written
    }

    fn write_all(&mut self, batch: &Batch, fate: &mut Fate) -> io::Result<()> {
        self.ensure_open()?;
        let start_of = |line: usize| if line == 0 { 0 } else { batch.ends[line - 1].at };
        while fate.written < batch.ends.len() {
            let start = start_of(fate.written);
            let len = self.open.as_ref().map_or(0, |open| open.len + u64::from(open.torn));
            let room = self.config.bytes_max.saturating_sub(len);
            let fits = |end: usize| (end - start) as u64 <= room;
            let mut until = fate.written + batch.ends[fate.written..].partition_point(|end| fits(end.at));
            if until == fate.written {
                if len > 0 {
                    self.rotate()?;
                    fate.rotations += 1;
                    continue;
                }
                // Longer than a whole file: it gets one of its own.
                until += 1;
            }
            if let Err(error) = self.append(&batch.bytes[start..start_of(until)]) {
                // Perhaps some of the lines fit on what is left of the disk.
                for line in fate.written..until {
                    if self.append(&batch.bytes[start_of(line)..start_of(line + 1)]).is_err() {
                        return Err(error);
                    }
                    fate.written = line + 1;
                }
            }
            fate.written = until;
        }
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Logs tell who trades what: for the owner and the group only.
        options.mode(0o640);
    }
    options
}

impl Sink for RotatingFile {
    fn write(&mut self, batch: &Batch) -> Fate {
        let mut fate = Fate::default();
        if let Some((at, problem)) = &self.retry
            && self.clock.now() < *at
        {
            fate.problem = Some(problem.clone());
            return fate;
        }
        self.retry = None;
        if let Err(error) = self.write_all(batch, &mut fate) {
            fate.problem = Some(self.give_up(&error));
        }
        fate
    }
}

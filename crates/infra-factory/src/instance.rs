//! One process a bot: two with the same id on the same data would both be right and both be wrong.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use infra_types::BotId;

use crate::error::FactoryError;

/// Held as long as the bot runs; the operating system frees it however the process ends.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock of `bot` in `data_dir`, which is created if it is missing.
    pub(crate) fn take(data_dir: &Path, bot: &BotId) -> Result<Self, FactoryError> {
        let failed =
            |e: std::io::Error| FactoryError::DataDir { path: data_dir.display().to_string(), reason: e.to_string() };
        std::fs::create_dir_all(data_dir).map_err(failed)?;
        let path = data_dir.join(format!("bot-{bot}.lock"));
        // Never truncated and never removed: a removed file could be locked twice.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(FactoryError::AlreadyRunning { bot: bot.to_string(), path: data_dir.display().to_string() })
            }
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_bot_of_the_same_id_is_refused_and_another_id_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("made/on/demand");
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let held = InstanceLock::take(&data, &one).unwrap();
        assert!(matches!(InstanceLock::take(&data, &one), Err(FactoryError::AlreadyRunning { .. })));
        InstanceLock::take(&data, &two).unwrap();
        drop(held);
        InstanceLock::take(&data, &one).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let e = InstanceLock::take(&file.path().join("x"), &"one".parse().unwrap()).unwrap_err();
        assert!(e.to_string().contains("data directory"), "{e}");
    }
}

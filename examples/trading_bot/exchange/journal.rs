//! The exchange's file: one JSON object a line, written before anything is answered.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
};

use infra_types::{OrderId, Timestamp};
use serde::{Deserialize, Serialize};

use super::protocol::NewOrder;

/// What is worth remembering.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A placement arrived (and may have been dropped or put off).
    Attempt { order: OrderId },
    /// An order was taken or refused for good; what becomes of it follows from the seed.
    Order { order: NewOrder },
    /// A second order of the same id arrived.
    Duplicate { order: OrderId },
    /// An order was cancelled as of this time.
    Cancel { order: OrderId, at: Timestamp },
}

/// An append-only file of lines, held by one process.
pub(crate) struct Journal(File);

impl Journal {
    /// Opens or creates the file and reads what is in it. A half line at the end (the process was killed while
    /// writing, so nobody was answered) is cut off.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Line>), String> {
        let fail = |what: &str, e: &dyn std::fmt::Display| format!("exchange journal {}: {what}: {e}", path.display());
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).open(path).map_err(|e| fail("cannot open", &e))?;
        file.try_lock().map_err(|e| fail("another exchange holds it", &e))?;
        let (mut lines, mut whole) = (Vec::new(), 0u64);
        let mut reader = BufReader::new(&file);
        let mut text = String::new();
        while reader.read_line(&mut text).map_err(|e| fail("cannot read", &e))? > 0 && text.ends_with('\n') {
            lines.push(serde_json::from_str(&text).map_err(|e| fail("damaged line", &e))?);
            whole += text.len() as u64;
            text.clear();
        }
        file.set_len(whole).map_err(|e| fail("cannot cut a half line", &e))?;
        file.seek(SeekFrom::End(0)).map_err(|e| fail("cannot seek", &e))?;
        Ok((Self(file), lines))
    }

    /// Appends a line in one write, so that a kill leaves it whole or (at the end) half.
    pub(crate) fn append(&mut self, line: &Line) -> Result<(), String> {
        let mut text = serde_json::to_vec(line).map_err(|e| e.to_string())?;
        text.push(b'\n');
        self.0.write_all(&text).map_err(|e| format!("exchange journal: cannot write: {e}"))
    }
}

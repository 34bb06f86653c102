//! The file: appended to at its end, drained from its beginning, emptied when everything in it is drained.
//!
//! It begins with 64 bytes that name it and say how far it is drained. That place is advice: if it is missing or stale, draining begins
//! at the front, and the bus recognises what it has. Behind it stand frames without a gap. What a kill or a full disk leaves behind of a
//! write is a part of a frame at the end, which nobody was told about: it is cut off. Anything else that is no frame is damage.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bytes::{Buf, BufMut, Bytes};
use infra_types::ErrorKind;

use super::{
    SpillSync,
    frame::{Frame, HEAD, Head, Record, is_urgent},
};
use crate::BusError;

/// Bytes before the first frame.
const FRONT: u64 = 64;
const NAME: [u8; 16] = *b"infra-spill v1\r\n";
/// Drained bytes that the file may keep before what is left is copied to a new one.
const DRAINED_BYTES_MAX: u64 = 8 << 20;
/// Events and bytes that are read at a time.
const READ_EVENTS: usize = 512;
const READ_BYTES: u64 = 4 << 20;

/// Where a frame begins, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    offset: u64,
    number: u64,
}

/// Why an append did not happen.
#[derive(Debug)]
pub(super) struct NotAppended {
    pub(super) error: io::Error,
    /// It was written and cut off again, and a power cut may bring it back.
    pub(super) may_return: bool,
}

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Its lock ends with it.
    _lock: File,
    sync: SpillSync,
    /// What is drained next.
    head: Place,
    /// What is written next.
    end: Place,
    /// Where the urgent ones are that stand behind `head`.
    urgent: VecDeque<Place>,
    /// A failed write may have left something behind `end`.
    has_tail: bool,
}

/// `path` with something behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io_error(path: &Path, what: &str, error: &io::Error) -> BusError {
    let message =
        format!("spill log {} cannot be {what}: {error}; check the disk and the folder's rights", path.display());
    BusError::Backend { message, kind: ErrorKind::Unavailable }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

impl Log {
    /// Locks and opens the file, makes it if there is none, checks every frame and cuts off a torn tail.
    pub(super) fn open(path: &Path, sync: SpillSync) -> Result<Self, BusError> {
        let failed = |error: io::Error| io_error(path, "opened", &error);
        let lock = open_file(&beside(path, ".lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(BusError::SpillInUse { path: path.display().to_string() });
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
        }
        // What a kill left of a copy that did not take its place.
        match std::fs::remove_file(beside(path, ".new")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let file = open_file(path).map_err(failed)?;
        let start = Place { offset: FRONT, number: 0 };
        let mut log = Self {
            path: path.into(),
            file,
            _lock: lock,
            sync,
            head: start,
            end: start,
            urgent: VecDeque::new(),
            has_tail: false,
        };
        let length = log.file.metadata().map_err(failed)?.len();
        if length < FRONT {
            log.begin(length).map_err(failed)??;
        } else {
            log.scan(length).map_err(failed)??;
        }
        Ok(log)
    }

    /// Writes the front of a new file. One that is shorter than a front was never answered for.
    fn begin(&mut self, length: u64) -> io::Result<Result<(), BusError>> {
        let mut found = Vec::new();
        (&self.file).read_to_end(&mut found)?;
        if !NAME.starts_with(&found[..found.len().min(NAME.len())]) {
            return Ok(Err(self.damaged(0, "this is no spill log", 0)));
        }
        if length > 0 {
            self.file.set_len(0)?;
        }
        self.write_front()?;
        // Once, whatever the policy: a file whose name is lost is lost whole.
        self.file.sync_all()?;
        sync_folder(&self.path)?;
        Ok(Ok(()))
    }

    fn damaged(&self, offset: u64, reason: &str, intact: u64) -> BusError {
        BusError::SpillDamaged { path: self.path.display().to_string(), offset, reason: reason.into(), intact }
    }

    fn scan(&mut self, length: u64) -> io::Result<Result<(), BusError>> {
        let mut file = BufReader::with_capacity(1 << 18, self.file.try_clone()?);
        file.seek(SeekFrom::Start(0))?;
        let mut front = [0; FRONT as usize];
        file.read_exact(&mut front)?;
        if front[..NAME.len()] != NAME {
            return Ok(Err(self.damaged(0, "this is no spill log of a version that is known here", 0)));
        }
        let noted = noted(&front);
        let (mut at, mut first, mut drained) = (FRONT, None, None);
        let mut next = None;
        let mut body = Vec::new();
        while at < length {
            let left = length - at;
            let intact = next.zip(first).map_or(0, |(next, first): (u64, Place)| next - first.number);
            let mut bytes = [0; HEAD];
            let have = usize::try_from(left).unwrap_or(HEAD).min(HEAD);
            file.read_exact(&mut bytes[..have])?;
            let Some(head) = Head::read(&bytes).filter(|_| have == HEAD) else {
                // Fewer bytes than a head, or room that the file system gave and nothing came into.
                if have < HEAD || (bytes == [0; HEAD] && only_zeros(&mut file)?) {
                    break;
                }
                return Ok(Err(self.damaged(at, "no event begins there", intact)));
            };
            if next.is_some_and(|next| next != head.number) {
                let reason = format!("event {} is where another was written", head.number);
                return Ok(Err(self.damaged(at, &reason, intact)));
            }
            if head.size() > left {
                break;
            }
            body.resize(head.length as usize, 0);
            file.read_exact(&mut body)?;
            if !head.matches(&body) {
                return Ok(Err(self.damaged(at, "the event's checksum does not fit", intact)));
            }
            let here = Place { offset: at, number: head.number };
            first.get_or_insert(here);
            if is_urgent(&body) {
                self.urgent.push_back(here);
            }
            if noted == Some(here) {
                drained = noted;
            }
            at += head.size();
            next = Some(head.number + 1);
        }
        // An empty file goes on counting where it was, or a little before.
        let known = noted.map_or(0, |noted| noted.number);
        self.end = Place { offset: at, number: next.unwrap_or(known) };
        self.head = if noted == Some(self.end) { self.end } else { drained.or(first).unwrap_or(self.end) };
        self.pass_urgent();
        if at < length {
            self.file.set_len(at)?;
            self.file.sync_data()?;
        }
        // What was noted and is not true might become true by chance when the file grows, so it goes now.
        if self.is_empty() {
            self.empty()?
        } else {
            self.write_front()?
        }
        Ok(Ok(()))
    }

    pub(super) fn events(&self) -> u64 {
        self.end.number - self.head.number
    }

    pub(super) fn bytes(&self) -> u64 {
        self.end.offset - self.head.offset
    }

    fn is_empty(&self) -> bool {
        self.head == self.end
    }

    /// Appends all of them or none, and answers when they are as safe as the policy says.
    pub(super) fn append(&mut self, frames: &mut [Frame]) -> Result<(), NotAppended> {
        let certainly_not = |error| NotAppended { error, may_return: false };
        self.cut_tail().map_err(certainly_not)?;
        let mut end = self.end;
        self.has_tail = true;
        if let Err(error) = self.write(frames, &mut end) {
            // Kept for the next time if it does not work now: until then it is no part of the log.
            let cut = self.cut_tail();
            return Err(NotAppended { error, may_return: cut.is_err() });
        }
        if self.sync == SpillSync::Always
            && let Err(error) = self.file.sync_data()
        {
            let _ = self.cut_tail();
            return Err(NotAppended { error, may_return: true });
        }
        self.has_tail = false;
        let mut at = self.end;
        for frame in frames.iter() {
            if frame.is_urgent() {
                self.urgent.push_back(at);
            }
            at = Place { offset: at.offset + frame.size(), number: at.number + 1 };
        }
        self.end = end;
        Ok(())
    }

    /// The number behind the last urgent one; 0 if there is none.
    pub(super) fn urgent_end(&self) -> u64 {
        self.urgent.back().map_or(0, |last| last.number + 1)
    }

    fn pass_urgent(&mut self) {
        let passed = self.urgent.partition_point(|place| place.number < self.head.number);
        self.urgent.drain(..passed);
    }

    fn write(&mut self, frames: &mut [Frame], end: &mut Place) -> io::Result<()> {
        (&self.file).seek(SeekFrom::Start(end.offset))?;
        let mut out = BufWriter::with_capacity(1 << 17, &self.file);
        let write = || {
            for frame in frames {
                out.write_all(frame.numbered(end.number))?;
                *end = Place { offset: end.offset + frame.size(), number: end.number + 1 };
            }
            out.flush()
        };
        let result = write();
        // Dropping it would write what is left.
        let _ = out.into_parts();
        result
    }

    fn cut_tail(&mut self) -> io::Result<()> {
        if self.has_tail {
            self.file.set_len(self.end.offset)?;
            self.has_tail = false;
        }
        Ok(())
    }

    /// The oldest events that are not drained, a handful at a time.
    pub(super) fn read(&mut self) -> Result<Vec<Record>, BusError> {
        let (mut at, mut records) = (self.head, Vec::new());
        let mut file = BufReader::with_capacity(1 << 17, &self.file);
        file.seek(SeekFrom::Start(at.offset)).map_err(|e| io_error(&self.path, "read", &e))?;
        while at != self.end && records.len() < READ_EVENTS {
            let room = (!records.is_empty()).then(|| READ_BYTES.saturating_sub(at.offset - self.head.offset));
            let Some(record) = self.read_one(&mut file, at, room)? else { break };
            at = Place { offset: at.offset + record.size, number: at.number + 1 };
            records.push(record);
        }
        Ok(records)
    }

    /// The oldest urgent ones from a number on, a handful at a time.
    pub(super) fn read_urgent(&mut self, from: u64) -> Result<Vec<Record>, BusError> {
        let begin = self.urgent.partition_point(|place| place.number < from);
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut file = BufReader::new(&self.file);
        for at in self.urgent.iter().skip(begin).take(READ_EVENTS) {
            file.seek(SeekFrom::Start(at.offset)).map_err(|e| io_error(&self.path, "read", &e))?;
            let room = (!records.is_empty()).then(|| READ_BYTES.saturating_sub(bytes));
            let Some(record) = self.read_one(&mut file, *at, room)? else { break };
            bytes += record.size;
            records.push(record);
        }
        Ok(records)
    }

    /// The event that stands where the reader is; none if it has more bytes than there is room for.
    fn read_one(&self, file: &mut impl Read, at: Place, room: Option<u64>) -> Result<Option<Record>, BusError> {
        let failed = |error: io::Error| io_error(&self.path, "read", &error);
        let damaged = |reason: &str| self.damaged(at.offset, reason, at.number - self.head.number);
        let mut bytes = [0; HEAD];
        file.read_exact(&mut bytes).map_err(failed)?;
        let head = Head::read(&bytes).filter(|head| head.number == at.number);
        let head = head.ok_or_else(|| damaged("the event is no longer what was written"))?;
        if room.is_some_and(|room| head.size() > room) {
            return Ok(None);
        }
        let mut body = vec![0; head.length as usize];
        file.read_exact(&mut body).map_err(failed)?;
        if !head.matches(&body) {
            return Err(damaged("the event's checksum does not fit any more"));
        }
        head.record(Bytes::from(body)).map(Some).map_err(|reason| damaged(&reason))
    }

    /// Notes that the oldest `events` of `bytes` are drained. An error means that they may be published once more after a restart.
    pub(super) fn drained(&mut self, events: u64, bytes: u64) -> io::Result<()> {
        self.head = Place { offset: self.head.offset + bytes, number: self.head.number + events };
        self.pass_urgent();
        if self.is_empty() {
            return self.empty();
        }
        let drained = self.head.offset - FRONT;
        if drained >= DRAINED_BYTES_MAX && drained >= self.bytes() {
            return self.shrink();
        }
        self.write_front()
    }

    fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(FRONT)?;
        self.has_tail = false;
        self.end.offset = FRONT;
        self.head = self.end;
        self.write_front()?;
        match self.sync {
            // Otherwise a power cut brings back what is drained.
            SpillSync::Always => self.file.sync_data(),
            SpillSync::Os => Ok(()),
        }
    }

    fn write_front(&mut self) -> io::Result<()> {
        write_front(&self.file, self.head)
    }

    /// Copies what is left to a new file that takes the place of this one.
    fn shrink(&mut self) -> io::Result<()> {
        let path = beside(&self.path, ".new");
        let file = open_file(&path)?;
        let head = Place { offset: FRONT, number: self.head.number };
        let copy = || {
            file.set_len(0)?;
            write_front(&file, head)?;
            (&self.file).seek(SeekFrom::Start(self.head.offset))?;
            (&file).seek(SeekFrom::Start(FRONT))?;
            io::copy(&mut (&self.file).take(self.bytes()), &mut &file)?;
            // Whatever the policy: this replaces what may have been synced.
            file.sync_data()?;
            std::fs::rename(&path, &self.path)
        };
        if let Err(e) = copy() {
            let _ = std::fs::remove_file(&path);
            self.write_front()?;
            return Err(e);
        }
        let shift = self.head.offset - FRONT;
        self.urgent.iter_mut().for_each(|place| place.offset -= shift);
        self.end.offset = FRONT + self.bytes();
        (self.file, self.head, self.has_tail) = (file, head, false);
        sync_folder(&self.path)
    }
}

fn write_front(mut file: &File, head: Place) -> io::Result<()> {
    let mut front = Vec::with_capacity(FRONT as usize);
    front.put_slice(&NAME);
    front.put_u64_le(head.offset);
    front.put_u64_le(head.number);
    front.put_u32_le(crc32fast::hash(&front));
    front.resize(FRONT as usize, 0);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&front)
}

/// How far the front says that the file is drained.
fn noted(front: &[u8; FRONT as usize]) -> Option<Place> {
    let (noted, mut checksum) = front.split_at(NAME.len() + 16);
    let mut rest = &noted[NAME.len()..];
    let place = Place { offset: rest.get_u64_le(), number: rest.get_u64_le() };
    (checksum.get_u32_le() == crc32fast::hash(noted)).then_some(place)
}

fn only_zeros(file: &mut impl Read) -> io::Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            n if buffer[..n].iter().any(|b| *b != 0) => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;

//! What is the same for all backends: a list of what may be wrong, each line with its answer.

pub(crate) mod requests;

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use bytes::Bytes;
use infra_state_store::{Batch, Key, Scan, StateStore, StoreError, Version};
use infra_types::{ErrorKind, HealthStatus, Namespace};

/// Stands in URLs, files and values, and never in an error.
pub(crate) const SECRET: &str = "hunter2-never-print";
/// Each of the two limits that the stores are given; a machine that is busy takes its time to connect.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// Connecting and operating together: no answer takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// One line of a list.
pub(crate) struct Line {
    /// What is wrong.
    pub(crate) wrong: &'static str,
    /// The variant of `StoreError` that says so.
    pub(crate) variant: &'static str,
    /// What the caller should do, as a class.
    pub(crate) kind: ErrorKind,
    /// What the operator should do: words of the text.
    pub(crate) says: &'static [&'static str],
    /// Makes it wrong, answers the error, and shows what became of the data.
    pub(crate) case: Case,
}

pub(crate) type Case = fn(&'static Line) -> Pin<Box<dyn Future<Output = StoreError> + Send>>;

/// Goes through a list, two lines at a time: most of the time servers start, end, or say nothing.
pub(crate) async fn walk(list: &'static [Line]) {
    let mut failed = Vec::new();
    for lines in list.chunks(2) {
        let running: Vec<_> = lines.iter().map(|line| (line.wrong, tokio::spawn((line.case)(line)))).collect();
        for (wrong, case) in running {
            println!("{wrong}");
            if case.await.is_err() {
                failed.push(wrong);
            }
        }
    }
    assert!(failed.is_empty(), "these lines have another answer, see above: {failed:?}");
}

impl Line {
    /// The error of `work`, which comes in time.
    pub(crate) async fn refuses<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> StoreError {
        self.fits(in_time(work).await.err().unwrap_or_else(|| panic!("{}: it must be refused", self.wrong)))
    }

    /// The error is the one of this line.
    pub(crate) fn fits(&self, e: StoreError) -> StoreError {
        let (words, inside) = (e.to_string(), format!("{e:?}"));
        assert!(inside.split([' ', '(']).next() == Some(self.variant), "{}: {inside}", self.wrong);
        assert_eq!(e.kind(), self.kind, "{}: {inside}", self.wrong);
        for part in self.says {
            assert!(words.contains(part), "{}: {words:?} does not say {part:?}", self.wrong);
        }
        assert!(!words.contains(SECRET) && !inside.contains(SECRET), "{}: {inside}", self.wrong);
        e
    }

    /// Every way into the store is refused alike, and health says so.
    pub(crate) async fn refuses_all(&self, store: &dyn StateStore) -> StoreError {
        self.refuses(store.get(&home(), &record("k"))).await;
        self.refuses(store.scan(&home(), Scan::new("kept/"))).await;
        self.refuses(store.clear(&home())).await;
        let e = self.refuses(store.apply(Batch::new(home()).set(record("k"), SECRET))).await;
        let health = tokio::time::timeout(LIMIT, store.health()).await.unwrap();
        assert_eq!(health.status, HealthStatus::Down, "{}", self.wrong);
        assert!(!health.detail.contains(SECRET) && self.says.iter().all(|part| health.detail.contains(part)));
        e
    }
}

/// What `work` answers, which must be before both limits are over.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("an answer must come in time, also a bad one")
}

pub(crate) fn home() -> Namespace {
    Namespace::new("home").unwrap()
}

pub(crate) fn record(name: &str) -> Key {
    Key::record(name).unwrap()
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(len: usize, mut seed: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // SplitMix64.
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// What was acknowledged, and what may be there because the answer to it was lost.
#[derive(Default)]
pub(crate) struct Kept {
    batches: u64,
    answered: BTreeMap<String, (Bytes, Version)>,
    unknown: Vec<u64>,
}

impl Kept {
    /// One batch of two records of `len` bytes.
    pub(crate) async fn write(&mut self, store: &dyn StateStore, len: usize) -> Result<(), StoreError> {
        self.batches += 1;
        let n = self.batches;
        let pair = [0, 1].map(|half| (name(n, half), noise(len, n * 2 + half)));
        let batch = Batch::new(home()).set(record(&pair[0].0), pair[0].1.clone());
        let applied = match in_time(store.apply(batch.set(record(&pair[1].0), pair[1].1.clone()))).await {
            Ok(applied) => applied,
            Err(e) => {
                if e.kind() == ErrorKind::Ambiguous {
                    self.unknown.push(n);
                }
                return Err(e);
            }
        };
        for ((name, value), applied) in pair.into_iter().zip(applied) {
            let infra_state_store::Applied::Version(version) = applied else { panic!("{applied:?}") };
            self.answered.insert(name, (value, version));
        }
        Ok(())
    }

    /// Some batches, so that there is something to lose.
    pub(crate) async fn begin(store: &dyn StateStore) -> Self {
        let mut kept = Self::default();
        for _ in 0..3 {
            kept.write(store, 100).await.unwrap();
        }
        kept
    }

    /// Writes until something is refused, at most so many batches.
    pub(crate) async fn fill(&mut self, store: &dyn StateStore, len: usize, batches_max: usize) -> StoreError {
        for _ in 0..batches_max {
            if let Err(e) = self.write(store, len).await {
                return e;
            }
        }
        panic!("{batches_max} batches were taken");
    }

    /// Everything acknowledged is there as it was written; of the rest nothing, but for whole batches whose answer was lost.
    pub(crate) async fn is_all_there(&self, store: &dyn StateStore) {
        let mut found = BTreeMap::new();
        let mut scan = Scan::new("kept/");
        loop {
            let page = in_time(store.scan(&home(), scan.clone())).await.unwrap();
            found.extend(page.entries.into_iter().map(|(key, entry)| (key.name().to_owned(), entry)));
            match page.next {
                Some(next) => scan.after = Some(next),
                None => break,
            }
        }
        for (name, (value, version)) in &self.answered {
            let entry = found.remove(name).unwrap_or_else(|| panic!("{name} was acknowledged and is lost"));
            assert_eq!(entry.version, Some(*version), "{name}");
            assert!(entry.value.as_bytes() == Some(value), "{name} is another");
        }
        for n in &self.unknown {
            let halves = [0, 1].map(|half| found.remove(&name(*n, half)).is_some());
            assert_eq!(halves[0], halves[1], "batch {n} is there by half");
        }
        assert!(found.is_empty(), "these were refused and are there: {:?}", found.keys());
    }

    /// The fault was repaired: the same handle works, soon, and nothing is lost.
    pub(crate) async fn goes_on(&mut self, store: &dyn StateStore) {
        let again = async {
            while self.write(store, 100).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(2 * LIMIT, again).await.expect("the same handle must work after the repair");
        self.is_all_there(store).await;
        assert_eq!(in_time(store.health()).await.status, HealthStatus::Up);
    }
}

fn name(batch: u64, half: u64) -> String {
    format!("kept/{batch}-{half}")
}

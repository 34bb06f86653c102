//! The batches: each touches every kind of state, and shows in each of them that it was there.

use std::{fmt, time::Duration};

use infra_state_store::{
    Applied, Batch, Delta, Key, Op, StateStore, StoreError, Ttl, Value, Version, When, WindowLimit,
};
use infra_types::{EventId, Namespace};

/// Tasks that write one batch after the other.
pub(crate) const WRITERS: u8 = 32;
/// Processes that they are in.
pub(crate) const CLIENTS: u8 = 2;
/// Namespaces that they share.
pub(crate) const SPACES: u8 = 4;
/// As much as a list holds; a writer has fewer batches.
pub(crate) const LIST_MAX: u32 = 10_000;
/// What a batch's number starts with, so that it can be recognised on the wire.
const MARK: i64 = 0x15_A5A5;

/// One attempt of one writer to write a batch; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) writer: u8,
    /// From 1 on.
    pub(crate) n: u32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<w{}n{}>", self.writer, self.n)
    }
}

impl Name {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (writer, n) = text.strip_prefix("<w")?.strip_suffix('>')?.split_once('n')?;
        Some(Self { writer: writer.parse().ok()?, n: n.parse().ok()? })
    }

    /// A number that stands for nothing else; a batch's last result.
    pub(crate) fn number(self) -> i64 {
        (MARK << 32) | (i64::from(self.writer) << 24) | i64::from(self.n)
    }

    pub(crate) fn from_number(number: i64) -> Option<Self> {
        let writer = u8::try_from((number >> 24) & 0xFF).ok()?;
        let n = u32::try_from(number & 0xFF_FFFF).ok()?;
        (number >> 32 == MARK).then_some(Self { writer, n })
    }

    /// What moves from one counter to the other.
    pub(crate) fn amount(self) -> i64 {
        1 + i64::from(self.n % 7)
    }
}

/// What the writer's record said before a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Before {
    /// Of the last batch; 0 for none.
    pub(crate) n: u32,
    version: Option<Version>,
}

pub(crate) fn space(index: u8) -> Namespace {
    Namespace::new(format!("s{index}")).expect("a valid namespace")
}

pub(crate) fn space_of(writer: u8) -> u8 {
    writer % SPACES
}

pub(crate) fn record(name: &str) -> Key {
    Key::record(name).expect("a valid key")
}

/// The record that holds the number of the writer's last batch.
pub(crate) fn last(writer: u8) -> Key {
    record(&format!("last/{writer}"))
}

/// How many batches of the writer there are.
pub(crate) fn count(writer: u8) -> Key {
    record(&format!("count/{writer}"))
}

/// A counter that holds [`Name::number`] of the last batch.
pub(crate) fn number(writer: u8) -> Key {
    record(&format!("number/{writer}"))
}

pub(crate) fn cached(writer: u8) -> Key {
    Key::cache(format!("cached/{writer}")).expect("a valid key")
}

pub(crate) fn list(writer: u8) -> Key {
    Key::list(format!("list/{writer}")).expect("a valid key")
}

/// Two counters of a namespace whose sum is always zero.
pub(crate) fn sums() -> [Key; 2] {
    [record("plus"), record("minus")]
}

pub(crate) fn outbox() -> Key {
    record("out")
}

/// Counts all batches of a namespace; `by` 0 tells.
pub(crate) fn window(by: i64) -> Op {
    let limit = WindowLimit::new(Value::COUNTER_MAX, Duration::from_secs(86_400));
    Op::Admit { window: Key::window("all").expect("a valid key"), by, limit }
}

fn id(name: Name) -> EventId {
    EventId::new(name.to_string()).expect("a valid id")
}

fn mark(name: Name) -> Op {
    Op::MarkInbox { consumer: record(&format!("in/{}", name.writer)), id: id(name), ttl: Ttl::Never }
}

/// The batch called `name`, on top of the one before.
pub(crate) fn batch(name: Name, before: Before) -> Batch {
    let Name { writer, n } = name;
    let [plus, minus] = sums();
    let when = before.version.map_or(When::Absent, When::Version);
    let number_before = if before.n == 0 { 0 } else { Name { writer, n: before.n }.number() };
    Batch::new(space(space_of(writer)))
        .with(mark(name))
        .set_when(last(writer), Value::Counter(i64::from(n)), Ttl::Never, when)
        .add(plus, Delta::unbounded(name.amount()))
        .add(minus, Delta::unbounded(-name.amount()))
        .add(count(writer), Delta::unbounded(1))
        .push(list(writer), n.to_string(), LIST_MAX)
        .with(Op::Enqueue {
            outbox: outbox(),
            order_key: writer.to_string(),
            id: id(name),
            payload: n.to_string().into(),
        })
        .set(cached(writer), Value::Counter(i64::from(n)))
        .with(window(1))
        .add(number(writer), Delta::unbounded(name.number() - number_before))
}

/// What the next batch stands on, from the answer to the one called `name`; none if that is not what such a batch answers.
pub(crate) fn after(name: Name, applied: &[Applied]) -> Option<Before> {
    match applied {
        [_, Applied::Version(version), .., Applied::Counter(number)]
            if applied.len() == 10 && *number == name.number() =>
        {
            Some(Before { n: name.n, version: Some(*version) })
        }
        _ => None,
    }
}

/// What the next batch of `writer` stands on, as it is stored.
pub(crate) async fn now(store: &dyn StateStore, writer: u8) -> Result<Before, StoreError> {
    let Some(entry) = store.get(&space(space_of(writer)), &last(writer)).await? else { return Ok(Before::default()) };
    let n = entry.value.as_counter().and_then(|n| u32::try_from(n).ok());
    let n = n.ok_or_else(|| StoreError::Corrupt { reason: format!("{writer}'s record holds no number") })?;
    Ok(Before { n, version: entry.version })
}

/// Whether the batch's mark is in the inbox; changes nothing, because what comes after the mark never holds.
pub(crate) async fn is_marked(store: &dyn StateStore, name: Name) -> Result<bool, StoreError> {
    let never = Op::Check { key: record("never"), when: When::Exists };
    match store.apply(Batch::new(space(space_of(name.writer))).with(mark(name)).with(never)).await {
        Err(StoreError::AlreadyProcessed { index: 0 }) => Ok(true),
        Err(StoreError::Mismatch { index: 1, .. }) => Ok(false),
        Err(e) => Err(e),
        Ok(_) => Err(StoreError::Corrupt { reason: "a check of an absent key held".into() }),
    }
}

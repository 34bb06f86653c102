//! Who of this process waits, and what is handed over to it: by the answer of an append of its own, or on the channel of this process.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;

use crate::broker::{Claims, HandOver};

/// Consumers remembered at most; with more, the others are not handed anything.
const WAITERS_MAX: usize = 4_096;

/// What is known of one consumer's word.
#[derive(Debug)]
enum Word {
    /// The store is being asked: whether it holds, and as which claim, is not known. What came meanwhile, by its claim.
    Asked(Option<(u64, Handed)>),
    /// The store took it, as this claim.
    Given(u64),
    /// The store took it, as this claim, and the consumer takes nothing any more.
    Recalled(u64),
}

#[derive(Debug)]
struct Waiter {
    group: Arc<str>,
    to: HandOver,
    word: Word,
}

/// Something to hand over, with whom it is for.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) group: Arc<str>,
    pub(super) incarnation: Arc<str>,
    pub(super) claims: Claims,
}

/// All consumers of this process that wait, by incarnation.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    all: Mutex<HashMap<Arc<str>, Waiter>>,
    /// Whether the channel of this process is heard.
    pub(super) hears: AtomicBool,
}

impl Waiters {
    /// The store is about to be asked. Whether it may take the word; and as which claim it may have lent something that did not come: what
    /// does come of it later is dropped, and the store is told to take it back.
    pub(super) fn ask(&self, group: &Arc<str>, incarnation: &Arc<str>, to: Option<&HandOver>) -> (bool, Option<u64>) {
        let mut all = self.all.lock();
        let (old, mut may) = (all.remove(incarnation), false);
        if let Some(to) = to {
            if all.len() >= WAITERS_MAX {
                all.retain(|_, waiter| !waiter.to.is_gone());
            }
            if all.len() < WAITERS_MAX {
                let waiter = Waiter { group: group.clone(), to: to.clone(), word: Word::Asked(None) };
                all.insert(incarnation.clone(), waiter);
                may = true;
            }
        }
        match old.map(|old| old.word) {
            Some(Word::Given(number) | Word::Recalled(number)) => (may, Some(number)),
            Some(Word::Asked(_)) | None => (may, None),
        }
    }

    /// From now on nothing is given to the consumer.
    pub(super) fn recall(&self, incarnation: &str) {
        if let Some(waiter) = self.all.lock().get_mut(incarnation)
            && let Word::Given(number) = waiter.word
        {
            waiter.word = Word::Recalled(number);
        }
    }

    /// The store answered: the word holds as this claim, or it does not. What could not be given.
    pub(super) fn answered(&self, incarnation: &Arc<str>, number: Option<u64>) -> Result<(), Handed> {
        let mut all = self.all.lock();
        let Some(waiter) = all.get_mut(incarnation) else { return Ok(()) };
        let Some(number) = number else {
            all.remove(incarnation);
            return Ok(());
        };
        match std::mem::replace(&mut waiter.word, Word::Given(number)) {
            Word::Asked(Some((came_as, handed))) if came_as == number => {
                let waiter = all.remove(incarnation);
                drop(all);
                give(waiter, handed)
            }
            _ => Ok(()),
        }
    }

    /// Whether something that is handed over as this claim may be meant for somebody here, and for which group.
    pub(super) fn expects(&self, incarnation: &str, number: u64) -> Option<(Arc<str>, Arc<str>)> {
        let all = self.all.lock();
        let (incarnation, waiter) = all.get_key_value(incarnation)?;
        let is_meant = matches!(waiter.word, Word::Given(n) if n == number) || matches!(waiter.word, Word::Asked(_));
        is_meant.then(|| (waiter.group.clone(), incarnation.clone()))
    }

    /// Something was handed over as this claim. What nobody is there for any more comes back.
    pub(super) fn take(&self, number: u64, handed: Handed) -> Result<(), Handed> {
        let mut all = self.all.lock();
        let Some(waiter) = all.get_mut(&handed.incarnation) else { return Ok(()) };
        match &mut waiter.word {
            Word::Given(n) if *n == number => {
                let waiter = all.remove(&handed.incarnation);
                drop(all);
                give(waiter, handed)
            }
            // Of another word, which was taken back since.
            Word::Given(_) | Word::Recalled(_) => Ok(()),
            Word::Asked(early) => {
                *early = Some((number, handed));
                Ok(())
            }
        }
    }

    pub(super) fn hears(&self) -> bool {
        self.hears.load(SeqCst)
    }
}

fn give(waiter: Option<Waiter>, handed: Handed) -> Result<(), Handed> {
    let Some(waiter) = waiter else { return Ok(()) };
    let Handed { group, incarnation, claims } = handed;
    waiter.to.give(claims).map_err(|claims| Handed { group, incarnation, claims })
}

use infra_types::{EventId, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{AuditEvent, AuditKind, AuditLog, MemoryAuditLog, MemoryConfig};

fn prepared(id: u8, body: u8) -> Prepared {
    let id = EventId::new(format!("e-{id}")).unwrap();
    let event = AuditEvent::new(id, AuditKind::SystemEvent, Timestamp::EPOCH, "bot", body.to_string());
    Prepared::new(event).unwrap()
}

/// What the answers say, in a form that compares.
fn told(answer: &Result<Vec<Receipt>, AuditError>) -> Result<Vec<Receipt>, (EventId, u64)> {
    match answer {
        Ok(receipts) => Ok(receipts.clone()),
        Err(AuditError::Conflict { id, index }) => Err((id.clone(), *index)),
        Err(e) => panic!("{e}"),
    }
}

proptest! {
    /// Groups of batches are to a plan what the same batches, one by one, are to the log in memory.
    #[test]
    fn a_group_is_its_batches_one_after_the_other(
        groups in prop::collection::vec(prop::collection::vec(prop::collection::vec((0..12u8, 0..2u8), 1..5), 1..5), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let memory = MemoryAuditLog::new(MemoryConfig::default(), infra_types::SystemClock::shared());
        let (mut known, mut frontier) = (HashMap::new(), Frontier::default());
        for group in groups {
            let batches: Vec<Vec<_>> =
                group.iter().map(|batch| batch.iter().map(|(id, body)| prepared(*id, *body)).collect()).collect();
            let plan = Plan::new(&batches, &known, &frontier);
            let stored = plan.new.iter().map(|(batch, place)| &batches[*batch][*place]);
            for (index, prepared) in (frontier.size()..).zip(stored) {
                let receipt = Receipt { index, leaf_hash: prepared.leaf };
                prop_assert!(known.insert(prepared.event.id.as_str().to_owned(), receipt).is_none());
            }
            for (batch, answer) in batches.into_iter().zip(&plan.answers) {
                let events = batch.into_iter().map(|prepared| prepared.event).collect();
                prop_assert_eq!(told(answer), told(&runtime.block_on(memory.append_batch(events))));
            }
            prop_assert_eq!(plan.grown.head(), runtime.block_on(memory.head()).unwrap());
            frontier = plan.grown;
        }
    }
}

#[test]
fn a_head_that_went_back_or_sideways_is_not_built_upon() {
    let tip = |leaves: &[u8]| {
        let mut frontier = Frontier::default();
        leaves.iter().for_each(|leaf| frontier.push(Hash32::from_bytes([*leaf; 32])));
        Tip { frontier, turn: 0 }
    };
    let seen = tip(&[1, 2, 3]);
    assert!(seen.follows(None).is_ok());
    assert!(seen.follows(Some(&seen)).is_ok());
    assert!(Tip { turn: 7, ..seen.clone() }.follows(Some(&seen)).is_ok());
    assert!(tip(&[1, 2, 3, 4]).follows(Some(&seen)).is_ok());
    assert!(matches!(tip(&[1, 2]).follows(Some(&seen)), Err(AuditError::Corrupt { index: Some(2), .. })));
    assert!(matches!(tip(&[1, 2, 4]).follows(Some(&seen)), Err(AuditError::Corrupt { index: None, .. })));
}

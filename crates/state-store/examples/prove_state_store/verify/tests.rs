//! The verifier is not to be trusted before it has caught each lie.

use super::{
    super::{
        batches::{SPACES, WRITERS},
        found::{OfSpace, OfWriter},
    },
    *,
};

const FIRST: Name = Name { writer: 0, n: 1 };

/// Three batches of one writer as they should be: acknowledged, ambiguous and there, refused.
fn honest() -> (Journal, Sightings, Found) {
    let mut journal = Journal::new(96);
    for line in [
        "b <w0n1> 1000",
        "o <w0n1> 1001",
        "b <w0n2> 1002",
        "a <w0n2> 1003 the connection ended",
        "f <w0n2> 1004 1",
        "b <w0n3> 1005",
        "r <w0n3> 1006 cannot connect: refused; nothing was sent",
    ] {
        journal.hear(line);
    }
    let second = Name { writer: 0, n: 2 };
    let wire = Sightings { sent: [FIRST, second].into(), answered: [FIRST].into(), resets: vec![] };
    let mut found = Found {
        spaces: vec![OfSpace::default(); usize::from(SPACES)],
        writers: vec![OfWriter::default(); usize::from(WRITERS)],
        marks: [FIRST, second].into(),
    };
    let amount = FIRST.amount() + second.amount();
    let outbox = vec![FIRST, second];
    found.spaces[0] = OfSpace { plus: amount, minus: -amount, window: 2, relayed: outbox[..1].to_vec(), outbox };
    found.writers[0] = OfWriter { last: Some(2), cached: Some(2), count: 2, number: second.number(), list: vec![1, 2] };
    (journal, wire, found)
}

fn judged(spoil: impl FnOnce(&mut Journal, &mut Sightings, &mut Found)) -> Verdict {
    let (mut journal, mut wire, mut found) = honest();
    spoil(&mut journal, &mut wire, &mut found);
    let verdict = verify(&journal, Some(&wire), &found);
    assert!(!verdict.holds() && !verdict.words.is_empty(), "a lie must be caught: {verdict:?}");
    verdict
}

/// Takes the first batch out of the store.
fn without_first(found: &mut Found) {
    found.marks.remove(&FIRST);
    let space = &mut found.spaces[0];
    space.outbox.remove(0);
    space.relayed.clear();
    (space.plus, space.minus, space.window) = (space.plus - FIRST.amount(), space.minus + FIRST.amount(), 1);
    found.writers[0].list.remove(0);
    found.writers[0].count = 1;
}

#[test]
fn what_is_as_it_should_be_holds() {
    let (journal, wire, found) = honest();
    let verdict = verify(&journal, Some(&wire), &found);
    assert!(verdict.holds(), "{verdict:?}");
    let expected =
        Verdict { acknowledged: 1, ambiguous_whole: 1, ambiguous_heard: 1, refused: 1, ..Verdict::default() };
    assert_eq!(verdict, expected);
    assert_eq!(journal.settled(), 2);
    assert_eq!(journal.last_acknowledged()[0], 1);
}

#[test]
fn a_lost_batch_is_caught() {
    let verdict = judged(|_, _, found| without_first(found));
    assert_eq!((verdict.lost, verdict.torn, verdict.doubled), (1, 0, 0), "{verdict:?}");
    // Who saw an ambiguous batch once must see it for ever.
    let verdict = judged(|journal, wire, found| {
        journal.writers[0][0].fate = Fate::Ambiguous;
        journal.writers[0][0].looked = Some(true);
        wire.answered.clear();
        without_first(found);
    });
    assert_eq!((verdict.lost, verdict.misreported), (1, 0), "{verdict:?}");
    assert_eq!(judged(|journal, _, _| journal.vanish(vec!["writer 0 is at 0".to_owned()])).lost, 1);
}

#[test]
fn a_torn_batch_is_caught_by_each_of_its_traces() {
    let spoilers: [fn(&mut Found); 10] = [
        |found| _ = found.marks.remove(&FIRST),
        |found| found.spaces[0].plus += 1,
        |found| found.spaces[0].minus -= 1,
        |found| found.spaces[0].window -= 1,
        |found| found.writers[0].count -= 1,
        |found| found.writers[0].last = Some(1),
        |found| found.writers[0].cached = None,
        |found| found.writers[0].number -= 1,
        |found| _ = found.writers[0].list.remove(0),
        |found| {
            found.spaces[0].outbox.remove(0);
            found.spaces[0].relayed.clear();
        },
    ];
    for (at, spoil) in spoilers.into_iter().enumerate() {
        let verdict = judged(|_, _, found| spoil(found));
        assert_eq!(verdict.lost, 0, "{at}: {verdict:?}");
        assert!(verdict.torn + verdict.doubled > 0, "{at}: {verdict:?}");
    }
    let verdict = judged(|_, _, found| found.spaces[1].outbox.push(Name { writer: 1, n: 9 }));
    assert!(verdict.torn > 0, "what nobody wrote: {verdict:?}");
}

#[test]
fn a_doubled_batch_is_caught() {
    assert_eq!(judged(|_, _, found| found.spaces[0].outbox.insert(1, FIRST)).doubled, 1);
    assert_eq!(judged(|_, _, found| found.writers[0].list.insert(1, 1)).doubled, 1);
    assert_eq!(judged(|_, _, found| found.writers[0].count += 1).doubled, 1);
    assert_eq!(judged(|_, _, found| found.spaces[0].window += 1).doubled, 1);
}

#[test]
fn another_order_is_caught() {
    assert!(judged(|_, _, found| found.spaces[0].outbox.swap(0, 1)).disordered > 0);
    assert!(judged(|_, _, found| found.writers[0].list.swap(0, 1)).disordered > 0);
    // A message that came in before one that had been read.
    assert_eq!(judged(|_, _, found| found.spaces[0].relayed = vec![Name { writer: 0, n: 2 }]).disordered, 1);
}

#[test]
fn a_misreported_batch_is_caught() {
    let refused = Fate::Refused { unsent: false, conflict: false };
    let verdict = judged(|journal, _, _| journal.writers[0][0].fate = refused);
    assert_eq!((verdict.misreported, verdict.lost), (1, 0), "not written, and it is there: {verdict:?}");
    let unsent = judged(|_, wire, _| _ = wire.sent.insert(Name { writer: 0, n: 3 }));
    assert_eq!(unsent.misreported, 1, "not sent, and it was: {unsent:?}");
    let nothing_sent = judged(|_, wire, _| _ = wire.sent.remove(&Name { writer: 0, n: 2 }));
    assert_eq!(nothing_sent.misreported, 1, "ambiguous, and nothing was sent: {nothing_sent:?}");
    let answered = judged(|_, wire, _| _ = wire.answered.insert(Name { writer: 0, n: 2 }));
    assert_eq!(answered.misreported, 1, "ambiguous, and answered: {answered:?}");
    let conflict = judged(|journal, _, _| journal.writers[0][2].fate = Fate::Refused { unsent: false, conflict: true });
    assert_eq!(conflict.misreported, 1, "a conflict with nobody: {conflict:?}");

    let (journal, _, found) = honest();
    assert_eq!(verify(&journal, None, &found).misreported, 1, "ambiguous without a wire");
}

#[test]
fn an_answer_that_must_not_come_is_caught() {
    for line in ["? <w0n3> 1007 was answered with []", "b <w0n9> 1007", "o <w0n1> 1007", "f <w0n1> 1007 1", "nonsense"]
    {
        assert_eq!(judged(|journal, _, _| journal.hear(line)).unexpected, 1, "{line}");
    }
}

#[test]
fn a_late_batch_and_the_conflict_it_brings_are_fine() {
    let (mut journal, mut wire, found) = honest();
    journal.writers[0][1].looked = Some(false);
    journal.writers[0][2].fate = Fate::Refused { unsent: false, conflict: true };
    wire.sent.insert(Name { writer: 0, n: 3 });
    let verdict = verify(&journal, Some(&wire), &found);
    assert!(verdict.holds() && verdict.late == 1, "{verdict:?}");
    // What was written into a connection while it was reset was perhaps not heard.
    wire.sent.remove(&Name { writer: 0, n: 2 });
    wire.resets.push(1_003);
    assert!(verify(&journal, Some(&wire), &found).holds());
}

#[test]
fn a_killed_client_goes_on_where_it_was() {
    let (mut journal, ..) = honest();
    journal.hear("b <w0n4> 1010");
    journal.died(0..1);
    assert_eq!(journal.settled(), 3);
    let resume = journal.resume(0);
    assert_eq!((resume.next, resume.left, resume.unresolved), (5, 0, 4));
    journal.hear("f <w0n4> 1011 0");
    assert_eq!(journal.resume(0).unresolved, 0);
    assert!(journal.problems.is_empty());
}

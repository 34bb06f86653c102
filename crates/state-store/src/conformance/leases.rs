//! Leases: one holder at a time, and a fence that only grows.

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Delta, Ttl, Version, When},
    error::StoreError,
    op::Op,
    store::{StateStore, Value},
};

fn renew(name: &str, holder: &str, fence: u64) -> Op {
    Op::RenewLease { key: lease(name), holder: holder.into(), fence, ttl: SOON }
}

fn release(name: &str, fence: u64) -> Op {
    Op::ReleaseLease { key: lease(name), fence }
}

fn check(name: &str, fence: u64) -> Op {
    Op::CheckFence { key: lease(name), fence }
}

async fn fenced(store: &dyn StateStore, op: Op) -> u64 {
    match refused(store, op).await {
        StoreError::Fenced { index: 0, newest, .. } => newest,
        other => panic!("expected to be fenced, got {other:?}"),
    }
}

/// The grant says until when; a read shows holder, fence and end, and nothing after the end.
pub async fn a_free_lease_is_granted_and_can_be_read(f: &dyn Fixture) {
    let store = f.store();
    // The second handle connects now, not while the lease runs.
    assert_eq!(get(&*f.second(), &lease("l")).await, None);
    let Applied::Lease(grant) = one(&*store, acquire("l", "me", SOON)).await else { panic!("expected a grant") };
    assert!(grant.fence > 0);
    let entry = get(&*f.second(), &lease("l")).await.expect("the lease can be read");
    assert_eq!(entry.value, Value::from("me"));
    assert_eq!((entry.version, entry.expires_at), (Some(Version(grant.fence)), Some(grant.expires_at)));
    f.advance(SOON).await;
    assert_eq!(get(&*store, &lease("l")).await, None);
}

/// Nobody else gets it; the refusal says who has it and until when.
pub async fn a_held_lease_is_refused(f: &dyn Fixture) {
    let store = f.store();
    let Applied::Lease(grant) = one(&*store, acquire("l", "me", LONG)).await else { panic!("expected a grant") };
    match refused(&*f.second(), acquire("l", "you", LONG)).await {
        StoreError::LeaseHeld { index: 0, key, holder, expires_at } => {
            assert_eq!((key, holder.as_str(), expires_at), (lease("l"), "me", grant.expires_at));
        }
        other => panic!("expected a held lease, got {other:?}"),
    }
    assert_eq!(value(&*store, &lease("l")).await, bytes("me"));
    one(&*store, acquire("another", "you", LONG)).await;
}

/// Asking again is prolonging.
pub async fn its_holder_prolongs_under_the_same_fence(f: &dyn Fixture) {
    let store = f.store();
    let first = fence(&*store, acquire("l", "me", LONG)).await;
    let end = get(&*store, &lease("l")).await.and_then(|e| e.expires_at);
    assert_eq!(fence(&*store, acquire("l", "me", LONG * 2)).await, first);
    let later = get(&*store, &lease("l")).await.and_then(|e| e.expires_at);
    assert!(later > end);
    assert_eq!(one(&*store, check("l", first)).await, Applied::Done);
}

/// Whoever comes after the end gets a greater fence, the same holder too: it may have slept through.
pub async fn an_expired_lease_gets_a_greater_fence(f: &dyn Fixture) {
    let store = f.store();
    let first = fence(&*store, acquire("l", "me", SOON)).await;
    f.advance(SOON).await;
    let second = fence(&*store, acquire("l", "me", SOON)).await;
    assert!(second > first);
    f.advance(SOON).await;
    let third = fence(&*store, acquire("l", "you", SOON)).await;
    assert!(third > second);
    assert_eq!(fenced(&*store, check("l", first)).await, third);
}

/// After a release it is absent and free, and the next fence is greater.
pub async fn a_released_lease_is_free_and_its_fence_counts_on(f: &dyn Fixture) {
    let store = f.store();
    let mut last = 0;
    for holder in ["me", "you", "me", "me"] {
        let granted = fence(&*store, acquire("l", holder, LONG)).await;
        assert!(granted > last);
        last = granted;
        assert_eq!(one(&*store, release("l", granted)).await, Applied::Done);
        assert_eq!(get(&*store, &lease("l")).await, None);
        one(&*store, release("l", granted)).await;
    }
}

/// Clearing a namespace takes the leases, never the count of their fences.
pub async fn clearing_frees_leases_and_their_fences_count_on(f: &dyn Fixture) {
    let store = f.store();
    let old = fence(&*store, acquire("l", "me", LONG)).await;
    good(store.clear(&home()).await);
    assert_eq!(get(&*store, &lease("l")).await, None);
    let new = fence(&*store, acquire("l", "you", LONG)).await;
    assert!(new > old);
    assert_eq!(fenced(&*store, check("l", old)).await, new);
}

/// A late renewal is fine as long as nobody else came; afterwards it is fenced.
pub async fn renewing_works_until_somebody_else_took_it(f: &dyn Fixture) {
    let store = f.store();
    let mine = fence(&*store, acquire("l", "me", SOON)).await;
    assert_eq!(fence(&*store, renew("l", "me", mine)).await, mine);
    f.advance(SOON).await;
    assert_eq!(get(&*store, &lease("l")).await, None);
    assert_eq!(fence(&*store, renew("l", "me", mine)).await, mine);
    assert_eq!(value(&*store, &lease("l")).await, bytes("me"));
    f.advance(SOON).await;
    let yours = fence(&*f.second(), acquire("l", "you", LONG)).await;
    assert_eq!(fenced(&*store, renew("l", "me", mine)).await, yours);
    assert_eq!(value(&*store, &lease("l")).await, bytes("you"));
}

/// Neither another holder nor another fence renews; a released lease is not renewed.
pub async fn renewing_needs_the_holder_and_its_fence(f: &dyn Fixture) {
    let store = f.store();
    let mine = fence(&*store, acquire("l", "me", LONG)).await;
    for op in [renew("l", "you", mine), renew("l", "me", mine + 1), renew("l", "me", 0)] {
        assert_eq!(fenced(&*store, op).await, mine);
    }
    assert_eq!(fenced(&*store, renew("never", "me", 1)).await, 0);
    one(&*store, release("l", mine)).await;
    assert_eq!(fenced(&*store, renew("l", "me", mine)).await, mine);
    assert_eq!(get(&*store, &lease("l")).await, None);
}

/// Whoever lost a lease cannot release the next holder's.
pub async fn releasing_an_old_fence_is_refused(f: &dyn Fixture) {
    let store = f.store();
    let mine = fence(&*store, acquire("l", "me", SOON)).await;
    f.advance(SOON).await;
    let yours = fence(&*store, acquire("l", "you", LONG)).await;
    assert_eq!(fenced(&*store, release("l", mine)).await, yours);
    assert_eq!(value(&*store, &lease("l")).await, bytes("you"));
}

/// The store itself refuses the write of a holder that was replaced.
pub async fn an_older_fence_cannot_write(f: &dyn Fixture) {
    let store = f.store();
    let write = |fence, text: &str| batch().with(check("l", fence)).set(record("k"), text.to_owned());
    let mine = fence(&*store, acquire("l", "me", SOON)).await;
    good(store.apply(write(mine, "mine")).await);
    f.advance(SOON).await;
    let yours = fence(&*f.second(), acquire("l", "you", LONG)).await;
    match store.apply(write(mine, "late")).await {
        Err(StoreError::Fenced { index: 0, newest, .. }) => assert_eq!(newest, yours),
        other => panic!("expected to be fenced, got {other:?}"),
    }
    // The order of operations does not matter: the batch is one.
    let late = batch().set(record("k"), "late").with(check("l", mine));
    assert!(matches!(store.apply(late).await, Err(StoreError::Fenced { index: 1, .. })));
    assert_eq!(value(&*store, &record("k")).await, bytes("mine"));
    good(f.second().apply(write(yours, "yours")).await);
}

/// Expiry or release alone fences nobody: only a new grant does.
pub async fn a_fence_outlives_its_expiry(f: &dyn Fixture) {
    let store = f.store();
    let mine = fence(&*store, acquire("l", "me", SOON)).await;
    f.advance(SOON).await;
    // Gives the store occasion to clean up.
    one(&*store, put(&record("k"), "v")).await;
    assert_eq!(one(&*store, check("l", mine)).await, Applied::Done);
    one(&*store, release("l", mine)).await;
    assert_eq!(one(&*store, check("l", mine)).await, Applied::Done);
}

/// Zero and fences of the future pass for nobody.
pub async fn fences_that_were_never_granted_are_refused(f: &dyn Fixture) {
    let store = f.store();
    for never in [0, 1, u64::MAX] {
        assert_eq!(fenced(&*store, check("never", never)).await, 0);
        assert_eq!(fenced(&*store, release("never", never)).await, 0);
    }
    let mine = fence(&*store, acquire("l", "me", LONG)).await;
    for other in [0, mine + 1, u64::MAX] {
        assert_eq!(fenced(&*store, check("l", other)).await, mine);
    }
}

/// Neither side reaches the other's keys.
pub async fn lease_keys_belong_to_lease_operations(f: &dyn Fixture) {
    let store = f.store();
    let mine = fence(&*store, acquire("k", "me", LONG)).await;
    let mut ops = vec![
        put(&lease("k"), "v"),
        Op::Delete { key: lease("k"), when: When::Always },
        Op::Check { key: lease("k"), when: When::Exists },
        Op::Add { key: lease("k"), delta: Delta::unbounded(1), ttl: Ttl::Keep },
    ];
    for key in [cache("k"), record("k")] {
        ops.extend([
            Op::AcquireLease { key: key.clone(), holder: "you".into(), ttl: LONG },
            Op::RenewLease { key: key.clone(), holder: "me".into(), fence: mine, ttl: LONG },
            Op::ReleaseLease { key: key.clone(), fence: mine },
            Op::CheckFence { key, fence: mine },
        ]);
    }
    for op in ops {
        let e = refused(&*store, op).await;
        assert!(matches!(e, StoreError::Invalid { .. }), "{e:?}");
    }
    assert_eq!(value(&*store, &lease("k")).await, bytes("me"));
}

/// A race has one winner.
pub async fn one_of_many_gets_the_lease(f: &dyn Fixture) {
    let won = together(f, |task, store| async move {
        match try_one(&*store, acquire("l", &format!("bot-{task}"), LONG)).await {
            Ok(Applied::Lease(grant)) => Some(grant.fence),
            Err(StoreError::LeaseHeld { .. }) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    let winners: Vec<usize> = (0..TASKS).filter(|task| won[*task].is_some()).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    let holder = value(&*f.store(), &lease("l")).await;
    assert_eq!(holder, bytes(&format!("bot-{}", winners[0])));
}

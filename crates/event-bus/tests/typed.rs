//! What a typed topic promises, one promise at a time.

use std::{
    future::Future,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use infra_event_bus::{PublishError, TryRecvError, TypedReceiver, TypedTopic, WhenFull};
use infra_types::ErrorKind;

fn topic<T>(capacity: usize, when_full: WhenFull) -> TypedTopic<T> {
    TypedTopic::new(NonZeroUsize::new(capacity).expect("above zero"), when_full)
}

/// Counts how often it is woken, and may do something then.
struct Woken<F: Fn() + Send + Sync>(AtomicUsize, F);

impl<F: Fn() + Send + Sync + 'static> Woken<F> {
    fn new(then: F) -> (Arc<Self>, Waker) {
        let woken = Arc::new(Self(AtomicUsize::new(0), then));
        (woken.clone(), Waker::from(woken))
    }

    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl<F: Fn() + Send + Sync> Wake for Woken<F> {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1();
    }
}

fn poll<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

fn drain<T: Clone>(receiver: &mut TypedReceiver<T>) -> Vec<T> {
    std::iter::from_fn(|| receiver.try_recv().ok().map(|event| event.clone())).collect()
}

#[tokio::test]
async fn every_receiver_reads_the_same_value() {
    let topic = topic(8, WhenFull::Block);
    let (mut a, mut b) = (topic.subscribe(), topic.subscribe());
    let event = Arc::new("fill".to_owned());
    topic.publish(event.clone()).await.expect("room");
    for receiver in [&mut a, &mut b] {
        let got = receiver.recv().await.expect("an event");
        assert!(Arc::ptr_eq(got.event, &event));
        assert_eq!(got.missed, 0);
    }
    assert_eq!(a.try_recv().expect_err("no more"), TryRecvError::Empty);
}

#[tokio::test]
async fn a_receiver_begins_with_the_next_event() {
    let topic = topic(8, WhenFull::Block);
    topic.publish(1).await.expect("nobody to wait for");
    let mut early = topic.subscribe();
    topic.publish(2).await.expect("room");
    let mut late = topic.subscribe();
    topic.publish(3).await.expect("room");
    assert_eq!((drain(&mut early), drain(&mut late)), (vec![2, 3], vec![3]));
    let metrics = topic.metrics();
    assert_eq!((metrics.published, metrics.unheard, metrics.dropped, metrics.receivers), (3, 1, 0, 2));
}

#[tokio::test]
async fn what_was_published_is_received_after_the_end() {
    for close in [true, false] {
        let topic = topic(8, WhenFull::Block);
        let (other, mut receiver) = (topic.clone(), topic.subscribe());
        topic.publish(1).await.expect("room");
        drop(topic);
        other.publish(2).await.expect("one publisher is enough");
        if close {
            other.close();
            other.close();
            let refused = other.publish(3).await.expect_err("closed");
            assert_eq!((refused, refused.kind()), (PublishError::Closed(3), ErrorKind::Unavailable));
            assert_eq!(other.try_publish(4), Err(PublishError::Closed(4)));
        } else {
            drop(other);
        }
        assert_eq!(receiver.recv().await.map(|e| *e), Some(1));
        let mut rest = Vec::new();
        assert_eq!(receiver.recv_many(&mut rest, 10).await, 1);
        assert_eq!(rest, [2]);
        assert!(receiver.recv().await.is_none() && receiver.recv().await.is_none());
        assert_eq!(receiver.try_recv().expect_err("ended"), TryRecvError::Closed);
        assert_eq!(receiver.recv_many(&mut rest, 10).await, 0);
    }
}

#[test]
fn the_end_wakes_everybody_who_waits() {
    for close in [true, false] {
        let topic = topic::<u8>(1, WhenFull::Block);
        let mut receiver = topic.subscribe();
        let (woken, waker) = Woken::new(|| {});
        {
            let mut next = pin!(receiver.recv());
            assert!(poll(next.as_mut(), &waker).is_pending());
            if close {
                topic.close()
            } else {
                drop(topic)
            }
            assert_eq!(woken.times(), 1);
            assert!(matches!(poll(next.as_mut(), &waker), Poll::Ready(None)));
        }
    }
    let topic = topic(1, WhenFull::Block);
    let _full = topic.subscribe();
    topic.try_publish(1).expect("room");
    let (woken, waker) = Woken::new(|| {});
    let mut waiting = pin!(topic.publish(2));
    assert!(poll(waiting.as_mut(), &waker).is_pending());
    topic.close();
    assert_eq!(woken.times(), 1);
    assert_eq!(poll(waiting.as_mut(), &waker), Poll::Ready(Err(PublishError::Closed(2))));
}

#[test]
fn one_place_lets_one_publisher_on_in_order() {
    for capacity in [1, 8, 100] {
        let topic = topic(capacity, WhenFull::Block);
        let mut receiver = topic.subscribe();
        (0..capacity).for_each(|n| topic.try_publish(n).expect("room"));
        let ((first, first_waker), (second, second_waker)) = (Woken::new(|| {}), Woken::new(|| {}));
        let mut one = pin!(topic.publish(capacity));
        let mut two = pin!(topic.publish(capacity + 1));
        assert!(poll(one.as_mut(), &first_waker).is_pending());
        assert!(poll(two.as_mut(), &second_waker).is_pending());
        assert_eq!(topic.metrics().waiting, 2);

        assert_eq!(receiver.try_recv().map(|e| *e), Ok(0));
        assert_eq!((first.times(), second.times()), (1, 0), "one place is for the one who came first");
        // Neither the second nor a newcomer gets the place.
        assert!(poll(two.as_mut(), &second_waker).is_pending());
        assert_eq!(topic.try_publish(99), Err(PublishError::Full(99)));
        assert_eq!(poll(one.as_mut(), &first_waker), Poll::Ready(Ok(())));

        assert_eq!(receiver.try_recv().map(|e| *e), Ok(1.min(capacity)));
        assert_eq!(second.times(), 1);
        assert_eq!(poll(two.as_mut(), &second_waker), Poll::Ready(Ok(())));
        assert_eq!(drain(&mut receiver).last(), Some(&(capacity + 1)));
    }
}

#[test]
fn a_publisher_that_gives_up_has_published_nothing_and_passes_its_place_on() {
    let topic = topic(1, WhenFull::Block);
    let mut receiver = topic.subscribe();
    topic.try_publish(0).expect("room");
    let ((_, first_waker), (second, second_waker)) = (Woken::new(|| {}), Woken::new(|| {}));
    let mut one = Box::pin(topic.publish(1));
    let mut two = Box::pin(topic.publish(2));
    assert!(poll(one.as_mut(), &first_waker).is_pending());
    assert!(poll(two.as_mut(), &second_waker).is_pending());
    assert_eq!(drain(&mut receiver), [0]);
    // It was woken for the free place, and takes nothing.
    assert_eq!(second.times(), 0);
    drop(one);
    assert_eq!(second.times(), 1);
    assert_eq!(poll(two.as_mut(), &second_waker), Poll::Ready(Ok(())));
    assert_eq!(drain(&mut receiver), [2]);
    assert_eq!(topic.metrics().waiting, 0);
}

#[test]
fn a_slow_receiver_that_goes_frees_its_publishers() {
    let topic = topic(2, WhenFull::Block);
    let (slow, mut quick) = (topic.subscribe(), topic.subscribe());
    (0..2).for_each(|n| topic.try_publish(n).expect("room"));
    assert_eq!(drain(&mut quick), [0, 1]);
    let (woken, waker) = Woken::new(|| {});
    let mut third = Box::pin(topic.publish(2));
    assert!(poll(third.as_mut(), &waker).is_pending());
    drop(slow);
    assert_eq!(woken.times(), 1);
    assert_eq!(poll(third.as_mut(), &waker), Poll::Ready(Ok(())));
    assert_eq!(drain(&mut quick), [2]);

    // The last one, with more publishers waiting than there will ever be room for.
    (3..5).for_each(|n| topic.try_publish(n).expect("room"));
    let mut waiting: Vec<_> = (5..9).map(|n| Box::pin(topic.publish(n))).collect();
    assert!(waiting.iter_mut().all(|p| poll(p.as_mut(), &waker).is_pending()));
    drop(quick);
    assert_eq!(woken.times(), 5);
    assert!(waiting.iter_mut().all(|p| poll(p.as_mut(), &waker) == Poll::Ready(Ok(()))));
    assert_eq!(topic.metrics().unheard, 4);
}

#[test]
fn a_receive_that_is_dropped_takes_nothing_and_waiting_again_leaves_nothing_behind() {
    let topic = topic(8, WhenFull::Block);
    let mut receiver = topic.subscribe();
    let (old, old_waker) = Woken::new(|| {});
    let (new, new_waker) = Woken::new(|| {});
    for _ in 0..100 {
        assert!(poll(pin!(receiver.recv()), &old_waker).is_pending());
    }
    assert!(poll(pin!(receiver.recv()), &new_waker).is_pending());
    assert_eq!(Arc::strong_count(&old), 2, "its waker is not kept");
    topic.try_publish(1).expect("room");
    assert_eq!((old.times(), new.times()), (0, 1));
    assert!(matches!(poll(pin!(receiver.recv()), &old_waker), Poll::Ready(Some(event)) if *event == 1));
    let mut none = Vec::new();
    assert!(matches!(poll(pin!(receiver.recv_many(&mut none, 0)), &old_waker), Poll::Ready(0)));
}

#[test]
fn what_was_dropped_is_told_with_the_next_event() {
    let oldest = topic(2, WhenFull::DropOldest);
    let mut receiver = oldest.subscribe();
    (0..5).for_each(|n| oldest.try_publish(n).expect("never full"));
    assert_eq!((receiver.len(), receiver.missed()), (2, 3));
    let got = receiver.try_recv().expect("an event");
    assert_eq!((*got, got.missed), (3, 3));
    let got = receiver.try_recv().expect("an event");
    assert_eq!((*got, got.missed), (4, 0));
    assert_eq!((receiver.missed(), oldest.metrics().dropped), (3, 3));

    let newest = topic(2, WhenFull::DropNewest);
    let mut receiver = newest.subscribe();
    (0..5).for_each(|n| newest.try_publish(n).expect("it drops"));
    let mut late = newest.subscribe();
    assert_eq!((drain(&mut receiver), receiver.missed()), (vec![0, 1], 3));
    (5..7).for_each(|n| newest.try_publish(n).expect("room"));
    let got = receiver.try_recv().expect("an event");
    assert_eq!((*got, got.missed), (5, 3));
    let got = late.try_recv().expect("an event");
    assert_eq!((*got, got.missed, late.missed()), (5, 0, 0), "what was dropped before it came is not its loss");
    assert_eq!((newest.metrics().published, newest.metrics().dropped), (7, 3));
}

#[tokio::test]
async fn the_policy_error_gives_the_event_back() {
    let topic = topic(1, WhenFull::Error);
    let mut receiver = topic.subscribe();
    topic.publish("first").await.expect("room");
    let full = topic.publish("second").await.expect_err("full");
    assert_eq!((full.kind(), full.into_event()), (ErrorKind::LimitExceeded, "second"));
    assert_eq!(topic.try_publish("third"), Err(PublishError::Full("third")));
    assert_eq!(
        format!("{full:?}: {full}"),
        "Full(..): the topic is full: the slowest receiver has to catch up, or be dropped"
    );
    assert_eq!((drain(&mut receiver), topic.metrics().refused), (vec!["first"], 2));
}

#[tokio::test]
async fn many_are_received_up_to_the_limit() {
    let topic = topic(200, WhenFull::Block);
    let mut receiver = topic.subscribe();
    (0..150).for_each(|n| topic.try_publish(n).expect("room"));
    let mut got = vec![-1];
    assert_eq!(receiver.recv_many(&mut got, 100).await, 100, "across chunks");
    assert_eq!(receiver.recv_many(&mut got, 100).await, 50);
    assert_eq!(got, (-1..150).collect::<Vec<_>>());
}

/// What a task does between its events must get its turn although there is always another event.
#[tokio::test]
async fn neither_side_keeps_others_from_running() {
    const EVENTS: usize = 5_000;
    let topic = topic(EVENTS, WhenFull::Block);
    let mut receiver = topic.subscribe();
    let turns = Arc::new(AtomicUsize::new(0));
    let seen = turns.clone();
    let other = tokio::spawn(async move {
        loop {
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    });
    for n in 0..EVENTS {
        topic.publish(n).await.expect("room");
    }
    let published = turns.load(Ordering::SeqCst);
    assert!(published >= EVENTS / 1_000, "{published}");
    for _ in 0..EVENTS {
        receiver.recv().await.expect("an event");
    }
    let received = turns.load(Ordering::SeqCst) - published;
    assert!(received >= EVENTS / 1_000, "{received}");
    other.abort();
}

/// Its drop uses the topic that it was published on, which must not be under its lock then.
#[derive(Clone)]
struct Uses(Option<TypedTopic<Uses>>);

impl Drop for Uses {
    fn drop(&mut self) {
        if let Some(topic) = &self.0 {
            drop(topic.clone());
        }
    }
}

#[test]
fn foreign_code_never_runs_under_the_lock() {
    for when_full in [WhenFull::Block, WhenFull::DropOldest, WhenFull::DropNewest, WhenFull::Error] {
        let topic = topic(3, when_full);
        // Nobody listens; full; read and left; left unread by the last receiver.
        assert!(topic.try_publish(Uses(Some(topic.clone()))).is_ok());
        let (mut reads, unread) = (topic.subscribe(), topic.subscribe());
        (0..9).for_each(|_| drop(topic.try_publish(Uses(Some(topic.clone())))));
        while reads.try_recv().is_ok() {}
        drop(unread);
        (0..9).for_each(|_| drop(topic.try_publish(Uses(Some(topic.clone())))));
        drop(reads);
        topic.close();
    }
    let topic = topic(1, WhenFull::Block);
    let mut receiver = topic.subscribe();
    let used = topic.clone();
    let (woken, waker) = Woken::new(move || drop(used.subscribe()));
    assert!(poll(pin!(receiver.recv()), &waker).is_pending());
    topic.try_publish(1).expect("room");
    let mut second = Box::pin(topic.publish(2));
    assert!(poll(second.as_mut(), &waker).is_pending());
    assert!(receiver.try_recv().is_ok());
    assert_eq!(woken.times(), 2);
}

/// Everything that was published and is still somewhere.
fn alive(probe: &Arc<()>) -> usize {
    Arc::strong_count(probe) - 1
}

#[test]
fn memory_is_given_back() {
    let probe = Arc::new(());
    let topic = topic(1_000, WhenFull::DropOldest);
    let (mut reads, idle) = (topic.subscribe(), topic.subscribe());
    for n in 0..100_000 {
        topic.try_publish(probe.clone()).expect("never full");
        if n % 2 == 0 {
            reads.try_recv().expect("an event");
        }
        assert!(alive(&probe) <= 1_000 + 2 * 64, "{}", alive(&probe));
    }
    drop(idle);
    while reads.try_recv().is_ok() {}
    assert!(alive(&probe) <= 64, "{}", alive(&probe));
    drop(reads);
    assert_eq!(alive(&probe), 0, "a topic that nobody reads keeps nothing");
    topic.try_publish(probe.clone()).expect("never full");
    assert_eq!(alive(&probe), 0);
}

//! Every interleaving of a typed topic, with the memory model of the processor at its weakest.
//!
//! The sources are compiled once more, into this test, with the lock and the atomics of the model checker: `super::sync` is the
//! module below. So it runs under the ordinary test command and needs no build of its own.
#![expect(dead_code, unreachable_pub, reason = "the tests use a part of what the library shows")]

use std::{
    num::NonZeroUsize,
    task::{Context, Poll},
};

use futures::task::noop_waker;
use loom::{future::block_on, model::Builder, thread};

#[path = "../src/typed/log.rs"]
mod log;
#[path = "../src/typed/policy.rs"]
mod policy;
#[path = "../src/typed/receiver.rs"]
mod receiver;
#[path = "../src/typed/seat.rs"]
mod seat;
#[path = "../src/typed/shared.rs"]
mod shared;
#[path = "../src/typed/state.rs"]
mod state;
#[path = "../src/typed/topic.rs"]
mod topic;

mod sync {
    pub(super) use loom::sync::atomic::AtomicU64;

    /// With the interface of `parking_lot`.
    #[derive(Debug)]
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics under it")
        }
    }
}

use policy::{PublishError, WhenFull};
use receiver::TypedReceiver;
use topic::TypedTopic;

fn topic(capacity: usize, when_full: WhenFull) -> TypedTopic<u64> {
    TypedTopic::new(NonZeroUsize::new(capacity).expect("above zero"), when_full)
}

/// All interleavings with at most so many forced switches: where a third one matters, hardly anybody has ever seen it.
fn all(switches: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}

/// Everything until the end.
fn receive(mut receiver: TypedReceiver<u64>) -> Vec<u64> {
    block_on(async move {
        let mut got = Vec::new();
        while let Some(event) = receiver.recv().await {
            got.push(*event);
        }
        got
    })
}

fn publish(topic: TypedTopic<u64>, events: impl IntoIterator<Item = u64> + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        block_on(async move {
            for event in events {
                topic.publish(event).await.expect("open");
            }
        });
    })
}

/// A receiver that goes to sleep is woken by what was published in that moment, and by the end.
#[test]
fn a_sleeping_receiver_is_woken() {
    all(3, || {
        let topic = topic(4, WhenFull::Block);
        let receiver = topic.subscribe();
        let publisher = publish(topic, [1, 2]);
        assert_eq!(receive(receiver), [1, 2]);
        publisher.join().expect("no panic");
    });
}

/// A publisher that waits is woken by the event that is taken in that moment.
#[test]
fn a_waiting_publisher_is_woken() {
    all(3, || {
        let topic = topic(1, WhenFull::Block);
        let receiver = topic.subscribe();
        let publisher = publish(topic, [1, 2, 3]);
        assert_eq!(receive(receiver), [1, 2, 3]);
        publisher.join().expect("no panic");
    });
}

/// As before, when there are two receivers to wait for and one of them is asked after the other.
#[test]
fn a_publisher_waits_for_the_slowest() {
    all(2, || {
        let topic = topic(1, WhenFull::Block);
        let (one, two) = (topic.subscribe(), topic.subscribe());
        topic.try_publish(1).expect("room");
        let publisher = publish(topic, [2]);
        let other = thread::spawn(move || receive(one));
        assert_eq!(receive(two), [1, 2]);
        assert_eq!(other.join().expect("no panic"), [1, 2]);
        publisher.join().expect("no panic");
    });
}

/// With one place for two publishers, each gets it in its turn.
#[test]
fn no_waiting_publisher_is_forgotten() {
    all(2, || {
        let topic = topic(1, WhenFull::Block);
        let receiver = topic.subscribe();
        topic.try_publish(1).expect("room");
        let publishers = [publish(topic.clone(), [2]), publish(topic, [3])];
        let mut got = receive(receiver);
        got.sort_unstable();
        assert_eq!(got, [1, 2, 3]);
        publishers.into_iter().for_each(|p| p.join().expect("no panic"));
    });
}

/// A publisher that gives up, perhaps in the moment in which its place comes free, leaves it to the next.
#[test]
fn a_place_that_is_given_up_is_passed_on() {
    all(2, || {
        let topic = topic(1, WhenFull::Block);
        let receiver = topic.subscribe();
        topic.try_publish(1).expect("room");
        let gives_up = thread::spawn({
            let topic = topic.clone();
            move || {
                let mut waiting = Box::pin(topic.publish(2));
                let waker = noop_waker();
                waiting.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(Ok(()))
            }
        });
        let publisher = publish(topic, [3]);
        let mut got = receive(receiver);
        got.sort_unstable();
        let published = gives_up.join().expect("no panic");
        assert_eq!(got, if published { vec![1, 2, 3] } else { vec![1, 3] });
        publisher.join().expect("no panic");
    });
}

/// The receiver that a publisher waits for goes away, and so does the last one.
#[test]
fn a_receiver_that_goes_frees_its_publishers() {
    all(3, || {
        let topic = topic(1, WhenFull::Block);
        let receiver = topic.subscribe();
        let publisher = publish(topic, [1, 2, 3]);
        drop(receiver);
        publisher.join().expect("no panic");
    });
}

/// Closing wakes whoever waits on either side, and what was published before is received.
#[test]
fn the_end_is_seen_by_all() {
    all(2, || {
        let topic = topic(1, WhenFull::Block);
        let receiver = topic.subscribe();
        let publisher = thread::spawn({
            let topic = topic.clone();
            move || {
                let first = block_on(topic.publish(1));
                let second = block_on(topic.publish(2));
                [first, second].into_iter().filter_map(Result::err).map(PublishError::into_event).collect::<Vec<_>>()
            }
        });
        let reader = thread::spawn(move || receive(receiver));
        topic.close();
        let refused = publisher.join().expect("no panic");
        let mut both = reader.join().expect("no panic");
        both.extend(refused);
        assert_eq!(both, [1, 2], "received or given back");
    });
}

/// A receiver that falls behind while it looks misses as many as it is told.
#[test]
fn what_is_lost_is_told() {
    all(3, || {
        let topic = topic(2, WhenFull::DropOldest);
        let mut receiver = topic.subscribe();
        let publisher = thread::spawn(move || (0..4).for_each(|n| topic.try_publish(n).expect("never full")));
        let mut next = 0;
        block_on(async {
            while let Some(got) = receiver.recv().await {
                assert_eq!(*got, next + got.missed);
                next = *got + 1;
            }
        });
        assert_eq!(next, 4, "the last ones are never lost");
        publisher.join().expect("no panic");
    });
}

//! A typed topic does what one queue for each receiver would do.

use std::{collections::VecDeque, num::NonZeroUsize, sync::Arc};

use infra_event_bus::{PublishError, TryRecvError, TypedReceiver, TypedTopic, WhenFull};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Publish(usize),
    Receive { which: usize, count: usize },
    Subscribe,
    Leave(usize),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..4usize).prop_map(Step::Publish),
        3 => (4..150usize).prop_map(Step::Publish),
        8 => (any::<usize>(), 1..4usize).prop_map(|(which, count)| Step::Receive { which, count }),
        3 => (any::<usize>(), 4..150usize).prop_map(|(which, count)| Step::Receive { which, count }),
        3 => Just(Step::Subscribe),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => (0..30u8).prop_filter_map("rare", |n| (n == 0).then_some(Step::Close)),
    ]
}

/// One event: its number, and something that tells whether it still lives.
type Event = (u64, Arc<()>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, u64)>,
    /// Lost and not told of yet: right before the next that it gets.
    gap: u64,
    missed: u64,
}

struct Model {
    capacity: usize,
    when_full: WhenFull,
    queues: Vec<Queue>,
    closed: bool,
}

impl Model {
    /// What became of an event: taken (or dropped) or not.
    fn publish(&mut self, event: u64) -> bool {
        if self.closed {
            return false;
        }
        let full = self.queues.iter().any(|q| q.waiting.len() == self.capacity);
        match self.when_full {
            WhenFull::Block | WhenFull::Error if full => return false,
            WhenFull::DropNewest if full => {
                self.queues.iter_mut().for_each(|q| (q.gap, q.missed) = (q.gap + 1, q.missed + 1));
                return true;
            }
            _ => {}
        }
        let oldest = self.when_full == WhenFull::DropOldest;
        for queue in &mut self.queues {
            if oldest && queue.waiting.len() == self.capacity {
                queue.waiting.pop_front();
                (queue.gap, queue.missed) = (queue.gap + 1, queue.missed + 1);
            }
            let gap = if oldest { 0 } else { std::mem::take(&mut queue.gap) };
            queue.waiting.push_back((event, gap));
        }
        true
    }

    fn receive(&mut self, which: usize) -> Result<(u64, u64), TryRecvError> {
        let ended = if self.closed { TryRecvError::Closed } else { TryRecvError::Empty };
        let oldest = self.when_full == WhenFull::DropOldest;
        let queue = &mut self.queues[which];
        let (event, gap) = queue.waiting.pop_front().ok_or(ended)?;
        Ok((event, if oldest { std::mem::take(&mut queue.gap) } else { gap }))
    }
}

fn run(capacity: usize, when_full: WhenFull, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let topic = TypedTopic::<Event>::new(NonZeroUsize::new(capacity).expect("above zero"), when_full);
    let mut receivers: Vec<TypedReceiver<Event>> = Vec::new();
    let mut model = Model { capacity, when_full, queues: Vec::new(), closed: false };
    let (probe, mut next) = (Arc::new(()), 0);
    for step in steps {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    let expected = model.publish(next);
                    let answer = topic.try_publish((next, probe.clone()));
                    let fits = match (&answer, expected) {
                        (Ok(()), true) => true,
                        (Err(PublishError::Closed((event, _))), false) => model.closed && *event == next,
                        (Err(PublishError::Full((event, _))), false) => !model.closed && *event == next,
                        _ => false,
                    };
                    prop_assert!(fits, "event {next}: {answer:?}, expected {expected}");
                    next += 1;
                }
            }
            Step::Receive { which, count } if !receivers.is_empty() => {
                let which = which % receivers.len();
                for _ in 0..count {
                    let got = receivers[which].try_recv().map(|got| (got.0, got.missed));
                    prop_assert_eq!(got, model.receive(which));
                }
            }
            Step::Subscribe if receivers.len() < 4 => {
                receivers.push(topic.subscribe());
                model.queues.push(Queue::default());
            }
            Step::Leave(which) if !receivers.is_empty() => {
                let which = which % receivers.len();
                drop((receivers.swap_remove(which), model.queues.swap_remove(which)));
            }
            Step::Close => {
                topic.close();
                model.closed = true;
            }
            Step::Receive { .. } | Step::Subscribe | Step::Leave(_) => {}
        }
        for (receiver, queue) in receivers.iter().zip(&model.queues) {
            prop_assert_eq!((receiver.len(), receiver.missed()), (queue.waiting.len(), queue.missed));
        }
        let longest = model.queues.iter().map(|q| q.waiting.len()).max().unwrap_or(0);
        let (alive, chunk) = (Arc::strong_count(&probe) - 1, capacity.min(64));
        // With `DropOldest` the topic itself may keep a chunk of which only a part is too old.
        prop_assert!(alive <= longest + (receivers.len() + 1) * chunk, "{alive} live, {longest} wait");
        prop_assert_eq!(topic.metrics().receivers, receivers.len());
    }
    drop(receivers);
    prop_assert_eq!(Arc::strong_count(&probe), 1);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_queues_would_do(
        capacity in prop_oneof![1..6usize, Just(63), Just(64), Just(65), Just(130)],
        when_full in prop_oneof![
            Just(WhenFull::Block), Just(WhenFull::DropOldest), Just(WhenFull::DropNewest), Just(WhenFull::Error)
        ],
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        run(capacity, when_full, steps)?;
    }
}

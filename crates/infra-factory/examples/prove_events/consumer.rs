//! A consumer process: handles until it is killed.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::Arc,
    time::Duration,
};

use infra_event_bus::{Delivered, HandlerError, Pattern, SubscribeOptions, handler_fn};
use infra_factory::Inbox;
use infra_state_store::{Batch, Key};
use infra_testkit::say;
use infra_types::{Backoff, Namespace, backoff::Jitter};
use parking_lot::Mutex;

use crate::world::{Backend, World};

/// Where the effects are.
pub(crate) fn home() -> Namespace {
    Namespace::new("book").expect("a fixed word")
}

/// The list of a key.
pub(crate) fn list(key: &str) -> Key {
    Key::list(format!("numbers/{key}")).expect("keys are short words")
}

/// What a consumer is told: backend, its name, the file for what it was delivered, target.
pub(crate) fn job(backend: Backend, name: &str, log: &str, target: &str) -> String {
    [backend.name(), name, log, target].join("\n")
}

pub(crate) async fn consume(job: &str) {
    let parts: Vec<&str> = job.splitn(4, '\n').collect();
    let [backend, name, log, target] = parts[..] else { panic!("a job has four lines") };
    let world = World::open(Backend::parse(backend).expect("a backend"), target).expect("it opens without I/O");
    let log = OpenOptions::new().append(true).create(true).open(log).expect("the log opens");
    let handler = handler(&world, Arc::new(Mutex::new(log)));
    let waits = Backoff::new(Duration::from_millis(50), Duration::from_secs(1), 2, Jitter::Full).expect("good waits");
    let options = SubscribeOptions::at_least_once(Pattern::new("fills:*").expect("a pattern"), "book", handler)
        .from_earliest()
        .with_consumer(name)
        .with_concurrency(8)
        .with_lease(Duration::from_secs(3))
        // An attempt fails while the store is away, and that is not the event's fault.
        .with_retry(1_000, waits);
    while let Err(error) = world.bus.subscribe(options.clone()).await {
        eprintln!("{name}: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    say("ready");
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Panics when nobody listens any more: it does not outlive the run.
        say("alive");
    }
}

/// Writes down each delivery before it has its effect.
fn handler(world: &World, log: Arc<Mutex<File>>) -> Arc<dyn infra_event_bus::Handler> {
    let inbox = Inbox::new(world.state.clone(), Key::record("inbox/book").expect("a key"), Duration::from_secs(3_600));
    let effect = inbox.handler(|event: Delivered| async move {
        let list = list(&event.envelope.key);
        Ok(Batch::new(home()).push(list, event.envelope.data.clone(), 1_000))
    });
    handler_fn(move |event: Delivered| {
        let (log, effect) = (log.clone(), effect.clone());
        async move {
            let number = String::from_utf8_lossy(&event.envelope.data).into_owned();
            // One write: what is killed in the middle leaves no half line.
            let line = format!("{} {number} {}\n", event.envelope.id, event.attempt);
            log.lock().write_all(line.as_bytes()).map_err(|e| HandlerError::Retry(e.to_string()))?;
            effect.handle(event).await
        }
    })
}

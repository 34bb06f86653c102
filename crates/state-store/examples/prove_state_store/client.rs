//! The client's part: it writes, says what it does, and is killed.

use std::{future::Future, sync::Arc, time::Duration};

use infra_state_store::{StateStore, StoreError};
use infra_testkit::say;
use infra_types::{Clock, ErrorKind, SystemClock};

use super::{
    batches::{self, Before, Name},
    journal::Resume,
    servers::{Backend, open},
};

/// Between a refusal and the next attempt.
const PAUSE: Duration = Duration::from_millis(25);

/// What a client is started with.
pub(crate) struct Job {
    pub(crate) backend: Backend,
    pub(crate) target: String,
    /// Connections, where a client can choose.
    pub(crate) connections: usize,
    pub(crate) writers: Vec<Resume>,
}

impl Job {
    pub(crate) fn to_argument(&self) -> String {
        let mut text = format!("{}|{}|{}", self.backend.name(), self.target, self.connections);
        for Resume { writer, next, left, unresolved } in &self.writers {
            text.push_str(&format!("|{writer} {next} {left} {unresolved}"));
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let backend = Backend::parse(parts.next()?)?;
        let (target, connections) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        let resume = |part: &str| {
            let mut numbers = part.split(' ');
            Some(Resume {
                writer: numbers.next()?.parse().ok()?,
                next: numbers.next()?.parse().ok()?,
                left: numbers.next()?.parse().ok()?,
                unresolved: numbers.next()?.parse().ok()?,
            })
        };
        Some(Self { backend, target, connections, writers: parts.map(resume).collect::<Option<_>>()? })
    }
}

/// Writes until every writer has what it was told to settle.
///
/// # Panics
/// If the argument is not [`Job`]'s, or a writer panics.
pub(crate) fn run(argument: &str) {
    let job = Job::parse(argument).expect("a client is started by its supervisor");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a small runtime").block_on(async {
        let store = open(job.backend, &job.target, job.connections).expect("the supervisor knows how to open it");
        let start = |resume| {
            let store = store.clone();
            tokio::spawn(Writer { store, clock: SystemClock::shared(), resume }.run())
        };
        let writers: Vec<_> = job.writers.into_iter().map(start).collect();
        for writer in writers {
            writer.await.expect("a writer must not panic");
        }
        store.close().await.expect("an idle store closes");
    });
    say("end");
}

struct Writer {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    resume: Resume,
}

impl Writer {
    async fn run(self) {
        let Resume { writer, next, mut left, unresolved } = self.resume;
        let mut before = match unresolved {
            0 => self.now().await,
            n => self.look(Name { writer, n }).await,
        };
        let mut names = (next..).map(|n| Name { writer, n });
        while left > 0 {
            let name = names.next().expect("numbers do not end");
            self.say('b', name, "");
            match self.store.apply(batches::batch(name, before)).await {
                Ok(applied) => {
                    self.say('o', name, "");
                    left -= 1;
                    before = match batches::after(name, &applied) {
                        Some(after) => after,
                        None => {
                            self.say('?', name, format_args!("was answered with {applied:?}"));
                            self.now().await
                        }
                    };
                }
                Err(StoreError::Ambiguous { reason }) => {
                    self.say('a', name, reason);
                    left -= 1;
                    before = self.look(name).await;
                }
                // A batch that nobody expected any more came in between.
                Err(StoreError::Mismatch { index: 1, .. }) => {
                    self.say('r', name, "conflict");
                    before = self.now().await;
                }
                Err(e @ StoreError::Backend { .. })
                    if matches!(e.kind(), ErrorKind::Transient | ErrorKind::Unavailable) =>
                {
                    self.say('r', name, e);
                    self.clock.sleep(PAUSE).await;
                }
                Err(e) => {
                    self.say('r', name, &e);
                    self.say('?', name, format_args!("{e:?}"));
                    self.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    /// Finds out whether it is there, says so, and answers what to go on with.
    async fn look(&self, name: Name) -> Before {
        let is_there = self.until(|| batches::is_marked(&*self.store, name)).await;
        self.say('f', name, u8::from(is_there));
        self.now().await
    }

    async fn now(&self) -> Before {
        self.until(|| batches::now(&*self.store, self.resume.writer)).await
    }

    /// Asks until there is an answer.
    async fn until<T, F: Future<Output = Result<T, StoreError>>>(&self, ask: impl Fn() -> F) -> T {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(_) => self.clock.sleep(PAUSE).await,
            }
        }
    }

    fn say(&self, letter: char, name: Name, rest: impl std::fmt::Display) {
        say(format_args!("{letter} {name} {} {}", self.clock.wall().as_millis(), rest.to_string().replace('\n', " ")));
    }
}

//! The client processes: started, listened to, killed and started again.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use infra_testkit::{ChildGone, KillableChild};

use super::{
    Settings, Spawn,
    batches::{CLIENTS, SPACES, WRITERS},
    client::Job,
    journal::Journal,
    locked,
    servers::Backend,
};

/// How long to listen before looking whether to kill.
const LISTEN: Duration = Duration::from_millis(5);

/// A thread for each client.
pub(crate) struct Clients(Vec<Client>);

struct Client {
    kill: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a client's thread needs.
struct Keeper {
    index: u8,
    backend: Backend,
    target: String,
    journal: Arc<Mutex<Journal>>,
    spawn: Spawn,
    kill: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Clients {
    pub(crate) fn start(settings: &Settings, target: &str, journal: &Arc<Mutex<Journal>>) -> Self {
        let start = |index| {
            let (kill, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
            let keeper = Keeper {
                index,
                backend: settings.backend,
                target: target.to_owned(),
                journal: journal.clone(),
                spawn: settings.spawn.clone(),
                kill: kill.clone(),
                stop: stop.clone(),
            };
            let thread = std::thread::spawn(move || keeper.keep());
            Client { kill, stop, thread: Mutex::new(Some(thread)) }
        };
        Self((0..CLIENTS).map(start).collect())
    }

    pub(crate) fn are_done(&self) -> bool {
        self.0.iter().all(Client::is_done)
    }

    /// Kills a client, from this one on, and waits until its last words were heard; false if all had ended.
    pub(crate) fn kill(&self, index: usize) -> bool {
        (0..self.0.len()).any(|further| self.0[(index + further) % self.0.len()].kill())
    }

    /// Ends them all.
    pub(crate) fn stop(&self) {
        for client in &self.0 {
            client.stop.store(true, Ordering::SeqCst);
        }
        for client in &self.0 {
            if let Some(thread) = locked(&client.thread).take() {
                thread.join().expect("the thread that keeps a client must not panic");
            }
        }
    }
}

impl Client {
    fn is_done(&self) -> bool {
        locked(&self.thread).as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn kill(&self) -> bool {
        self.kill.store(true, Ordering::SeqCst);
        while self.kill.load(Ordering::SeqCst) && !self.is_done() {
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.kill.load(Ordering::SeqCst)
    }
}

impl Keeper {
    fn keep(&self) {
        loop {
            let mut child = self.start();
            let is_over = loop {
                match child.next_line(LISTEN) {
                    Ok(line) if line == "end" => break true,
                    Ok(line) => locked(&self.journal).hear(&line),
                    Err(ChildGone::TimedOut) => {}
                    Err(ChildGone::Ended) => {
                        locked(&self.journal).complain(format!("client {} ended by itself", self.index));
                        break true;
                    }
                }
                if self.kill.load(Ordering::SeqCst) || self.stop.load(Ordering::SeqCst) {
                    break false;
                }
            };
            if is_over {
                return;
            }
            for line in child.kill() {
                if line != "end" {
                    locked(&self.journal).hear(&line);
                }
            }
            locked(&self.journal).died(self.writers());
            self.kill.store(false, Ordering::SeqCst);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn start(&self) -> KillableChild {
        let journal = locked(&self.journal);
        let writers = self.writers().map(|writer| journal.resume(writer)).collect();
        drop(journal);
        // One shares a connection between all its writers, the other does not.
        let connections = 1 + 3 * usize::from(self.index);
        let job = Job { backend: self.backend, target: self.target.clone(), connections, writers };
        (self.spawn)(&job.to_argument())
    }

    fn writers(&self) -> impl Iterator<Item = u8> + use<> {
        let index = self.index;
        // In groups, so that each namespace has writers of both.
        (0..WRITERS).filter(move |writer| writer / SPACES % CLIENTS == index)
    }
}

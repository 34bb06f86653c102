//! A console to look into, and one that can be held up.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use infra_logging::LogGuard;

/// What a test may see of a console. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Screen(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    held: bool,
    waiting: bool,
}

impl Screen {
    /// A console whose writer waits until it is let go.
    pub(crate) fn held() -> Self {
        let screen = Self::default();
        screen.0.0.lock().unwrap().held = true;
        screen
    }

    /// Waits until a writer stands before the held console.
    pub(crate) fn await_writer(&self) {
        let (state, changed) = &*self.0;
        drop(changed.wait_while(state.lock().unwrap(), |s| !s.waiting).unwrap());
    }

    pub(crate) fn let_go(&self) {
        self.0.0.lock().unwrap().held = false;
        self.0.1.notify_all();
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().bytes.clone()).unwrap()
    }

    /// Every line, read as JSON.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        json_lines(&self.text())
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting = state.held;
        changed.notify_all();
        let mut state = changed.wait_while(state, |s| s.held).unwrap();
        state.waiting = false;
        state.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

pub(crate) fn flush(guard: &LogGuard) {
    assert!(guard.handle().flush(Duration::from_secs(60)));
}

//! From a configuration to a running log.

use std::{
    fmt,
    io::{IsTerminal, Write},
    sync::Arc,
};

use infra_types::{Clock, SystemClock};
use tracing::Dispatch;
use tracing_subscriber::{Layer, layer::SubscriberExt, registry, reload};

use crate::{
    config::{LogConfig, LogFormat},
    error::LogError,
    fields::Cleaner,
    handle::LogGuard,
    layer::{Form, LogLayer, Output},
    level,
    mask::Mask,
    queue::Queue,
    rotate::RotatingFile,
    scrub::Scrubber,
    sink::{Console, Sink},
    writer::{Task, Writer},
};

/// Installs a log for the whole process, with the machine's clock.
///
/// # Errors
/// As [`LogBuilder::init`].
pub fn init(config: LogConfig) -> Result<LogGuard, LogError> {
    LogBuilder::new(config).init()
}

/// Sets up a log.
pub struct LogBuilder {
    config: LogConfig,
    clock: Arc<dyn Clock>,
    console: Option<Box<dyn Write + Send>>,
    ansi: Option<bool>,
}

impl fmt::Debug for LogBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl LogBuilder {
    /// A log as `config` says, with the machine's clock.
    #[must_use]
    pub fn new(config: LogConfig) -> Self {
        Self { config, clock: SystemClock::shared(), console: None, ansi: None }
    }

    /// Takes timestamps from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Writes to `console` in place of standard error.
    #[must_use]
    pub fn with_console(mut self, console: impl Write + Send + 'static) -> Self {
        self.console = Some(Box::new(console));
        self
    }

    /// Colours the pretty console or not; without this, if it is a terminal.
    #[must_use]
    pub fn with_ansi(mut self, ansi: bool) -> Self {
        self.ansi = Some(ansi);
        self
    }

    /// Installs the log for the whole process. Only a program's `main` may do that, once.
    ///
    /// # Errors
    /// As [`build`](Self::build), and [`LogError::AlreadyInstalled`].
    pub fn init(self) -> Result<LogGuard, LogError> {
        let (dispatch, guard) = self.build()?;
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::AlreadyInstalled)?;
        Ok(guard)
    }

    /// Starts the log without installing it, for `tracing::dispatcher::with_default` or `WithSubscriber`.
    ///
    /// A folder that cannot be written does not stop it: [`crate::LogHandle::health`] says so, and it is tried again
    /// every second in which something is logged.
    ///
    /// # Errors
    /// [`LogError::InvalidConfig`], [`LogError::FileInUse`], [`LogError::Thread`].
    pub fn build(self) -> Result<(Dispatch, LogGuard), LogError> {
        self.config.validate()?;
        let Self { config, clock, console, ansi } = self;
        let mut writers = Vec::new();
        let mut outputs = Vec::new();
        let mut start = |name, form, sink: Box<dyn Sink>, problem| -> Result<(), LogError> {
            let queue = Arc::new(Queue::new(config.queue_bytes_max, config.error_wait_max));
            outputs.push(Output { form, queue: queue.clone() });
            writers.push(Writer::spawn(name, Task { queue, sink, form, clock: clock.clone(), problem })?);
            Ok(())
        };
        if let Some(file) = config.file {
            let (sink, problem) = RotatingFile::new(file, clock.clone())?;
            start("file", Form { format: LogFormat::Json, ansi: false }, Box::new(sink), problem)?;
        }
        if config.console {
            let ansi = ansi.unwrap_or_else(|| console.is_none() && std::io::stderr().is_terminal());
            let out = console.unwrap_or_else(|| Box::new(std::io::stderr()));
            start("console", Form { format: config.format, ansi }, Box::new(Console(out)), None)?;
        }
        let scrubber = Arc::new(Scrubber::default());
        let cleaner = Cleaner { mask: Mask::new(&config.masked_fields), scrubber: scrubber.clone() };
        // The filter is what can be changed later, never the layer: swapping a filtered layer panics.
        let (filter, level) = reload::Layer::new(level::parse(&config.level)?);
        let layer = LogLayer { outputs, clock: clock.clone(), cleaner }.with_filter(filter);
        let dispatch = Dispatch::new(registry().with(layer));
        Ok((dispatch, LogGuard::new(writers, level, scrubber, clock)))
    }
}

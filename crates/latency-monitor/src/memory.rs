//! The monitor of one process.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_types::Clock;
use parking_lot::RwLock;

use crate::{
    config::LatencyConfig,
    error::LatencyError,
    monitor::{LatencyMonitor, MonitorStats, OTHER},
    operation::{Operation, OperationKey},
    recent::{Recent, Sample},
    recorder::Recorder,
    snapshot::{OperationSnapshot, Snapshot, Summary},
};

const NAME_MAX: usize = 128;

#[derive(Default)]
struct Registry {
    by_name: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Operation>>>,
    len: usize,
}

impl Registry {
    fn get(&self, service: &str, operation: &str) -> Option<&Arc<Operation>> {
        self.by_name.get(service)?.get(operation)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.by_name.values().flat_map(BTreeMap::values)
    }
}

/// Keeps everything in the memory of one process.
pub struct MemoryLatencyMonitor {
    config: LatencyConfig,
    clock: Arc<dyn Clock>,
    recent: Arc<Recent>,
    registry: RwLock<Registry>,
    over_cap: AtomicU64,
    clears: AtomicU64,
}

impl fmt::Debug for MemoryLatencyMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLatencyMonitor").field("config", &self.config).finish_non_exhaustive()
    }
}

impl MemoryLatencyMonitor {
    /// A monitor that measures on `clock`: the machine's in production, also when decisions run on another.
    ///
    /// # Errors
    /// Those of [`LatencyConfig::validate`].
    pub fn new(config: LatencyConfig, clock: Arc<dyn Clock>) -> Result<Self, LatencyError> {
        config.validate()?;
        Ok(Self {
            recent: Arc::new(Recent::new(config.recent_max.get())),
            config,
            clock,
            registry: RwLock::default(),
            over_cap: AtomicU64::new(0),
            clears: AtomicU64::new(0),
        })
    }

    fn operation(&self, service: &str, operation: &str) -> Arc<Operation> {
        if let Some(known) = self.registry.read().get(service, operation) {
            return known.clone();
        }
        let mut registry = self.registry.write();
        let fits = |name: &str| !name.is_empty() && name.len() <= NAME_MAX;
        let full = registry.len >= self.config.operations_max.get();
        let other = (service, operation) == (OTHER, OTHER);
        let over = !other && (full || !fits(service) || !fits(operation));
        // Another thread may have been faster between the two locks.
        let known = registry.get(service, operation).cloned();
        if let Some(known) = known {
            return known;
        }
        let (service, operation) = if over {
            self.over_cap.fetch_add(1, Ordering::Relaxed);
            (OTHER, OTHER)
        } else {
            (service, operation)
        };
        if let Some(known) = registry.get(service, operation) {
            return known.clone();
        }
        let key = OperationKey { service: service.into(), operation: operation.into() };
        let new = Arc::new(Operation::new(
            key.clone(),
            self.clock.clone(),
            self.config.slow_over,
            self.config.recent,
            self.recent.clone(),
        ));
        registry.by_name.entry(key.service).or_default().insert(key.operation, new.clone());
        // The one for all others does not take a place.
        registry.len += usize::from(!(over || other));
        new
    }

    fn stats(&self) -> MonitorStats {
        MonitorStats {
            registrations_over_cap: self.over_cap.load(Ordering::Relaxed),
            samples_evicted: self.recent.evicted(),
        }
    }
}

impl LatencyMonitor for MemoryLatencyMonitor {
    fn register(&self, service: &str, operation: &str) -> Recorder {
        Recorder::new(self.operation(service, operation))
    }

    fn set_slow_over(&self, service: &str, operation: &str, threshold: Option<Duration>) {
        self.operation(service, operation).set_slow_over(threshold);
    }

    fn snapshot(&self) -> Snapshot {
        // Held for the whole reading, so that `clear` falls before or after it, never between two operations.
        let registry = self.registry.read();
        Snapshot {
            at: self.clock.now(),
            wall: self.clock.wall(),
            clears: self.clears.load(Ordering::Relaxed),
            operations: registry.all().map(|o| o.snapshot()).collect(),
            stats: self.stats(),
        }
    }

    fn summary(&self, service: &str, operation: &str) -> Option<Summary> {
        let found = self.registry.read().get(service, operation).cloned();
        found.as_deref().map(Operation::snapshot).as_ref().map(OperationSnapshot::summary)
    }

    fn recent(&self, limit: usize) -> Vec<Sample> {
        self.recent.newest(limit)
    }

    fn clear(&self) {
        let registry = self.registry.write();
        registry.all().for_each(|o| o.clear());
        self.recent.clear();
        self.clears.fetch_add(1, Ordering::Relaxed);
    }
}

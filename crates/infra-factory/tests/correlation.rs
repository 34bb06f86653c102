//! What a handler logs carries the correlation of whoever published, on the other side of a store.

use std::{io::Write, sync::Arc, time::Duration};

use infra_event_bus::{Delivery, EventBus, MemoryEventBus, Pattern, SubscribeOptions, handler_fn};
use infra_logging::{LogBuilder, LogConfig, LogFormat};
use infra_types::{CorrelationId, Envelope, ExecutionContext, SystemClock, Timestamp, Topic};
use parking_lot::Mutex;

#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_handlers_log_line_has_the_publishers_correlation() {
    let console = Console::default();
    let config = LogConfig::default().with_format(LogFormat::Json);
    let (dispatch, guard) = LogBuilder::new(config).with_console(console.clone()).build().unwrap();
    // One thread runs everything here, so what is set for it counts for the handlers' tasks.
    let _set = tracing::dispatcher::set_default(&dispatch);

    let bus = MemoryEventBus::new(SystemClock::shared());
    let handler = handler_fn(|event| async move {
        tracing::info!(topic = %event.envelope.topic, "handled");
        Ok(())
    });
    let pattern = Pattern::new("t:*").unwrap();
    let stored = bus.subscribe(SubscribeOptions::at_least_once(pattern.clone(), "g", handler.clone())).await.unwrap();
    let live = bus.subscribe(SubscribeOptions::at_most_once(pattern, handler)).await.unwrap();
    for n in [7, 8] {
        let publish = async {
            let event = Envelope::new(Topic::new(format!("t:{n}")).unwrap(), "k", Timestamp::EPOCH, "");
            bus.publish(event, Delivery::AtLeastOnce).await.unwrap();
        };
        ExecutionContext::new(CorrelationId::from_u128(n)).scope(publish).await;
    }
    stored.drained().await.unwrap();
    live.drained().await.unwrap();
    assert!(guard.handle().flush(Duration::from_secs(5)));

    let text = String::from_utf8(console.0.lock().clone()).unwrap();
    let handled: Vec<&str> = text.lines().filter(|line| line.contains("\"handled\"")).collect();
    assert_eq!(handled.len(), 4, "{text}");
    for line in handled {
        let n = if line.contains("t:7") { 7 } else { 8 };
        let wanted = format!("\"correlation_id\":\"{}\"", CorrelationId::from_u128(n));
        assert!(line.contains(&wanted), "{line}");
    }
}

//! What a line says, and what it never says.

use std::{error::Error, fmt, sync::Arc};

use infra_logging::{LogBuilder, LogConfig, LogError, LogFormat, LogGuard};
use infra_types::{CorrelationId, ErrorKind, ExecutionContext, ManualClock, Secret, spawn_correlated};
use proptest::prelude::*;
use tracing::{Dispatch, debug, dispatcher::with_default, error, info, info_span, instrument::WithSubscriber, warn};

use crate::support::{Screen, flush};

fn log(config: LogConfig) -> (Dispatch, LogGuard, Screen) {
    let screen = Screen::default();
    let clock = Arc::new(ManualClock::default());
    let (dispatch, guard) = LogBuilder::new(config).with_clock(clock).with_console(screen.clone()).build().unwrap();
    (dispatch, guard, screen)
}

fn json() -> LogConfig {
    LogConfig::default().with_format(LogFormat::Json)
}

#[test]
fn a_json_line_has_every_part_in_its_place() {
    let (dispatch, guard, screen) = log(json());
    let context = ExecutionContext::new(CorrelationId::from_u128(7))
        .with_user("ann".parse().unwrap())
        .with_account("main".parse().unwrap())
        .with_operation("place_order");
    with_default(&dispatch, || {
        context.sync_scope(|| {
            let span = info_span!("gate", order = 17, venue = tracing::field::Empty);
            let _in = span.enter();
            span.record("venue", "binance");
            span.record("order", 18);
            info!(target: "bot", price = %"1.50", qty = 2.5, nan = f64::NAN, big = u128::MAX, ok = true, "a \"b\"\n{}", 1);
        });
    });
    flush(&guard);
    let want = concat!(
        r#"{"timestamp":"2025-01-01T00:00:00.000000000Z","level":"INFO","target":"bot","message":"a \"b\"\n1","#,
        r#""correlation_id":"00000000-0000-0000-0000-000000000007","user":"ann","account":"main","operation":"place_order","#,
        r#""fields":{"price":"1.50","qty":2.5,"nan":"NaN","big":"340282366920938463463374607431768211455","ok":true},"#,
        r#""spans":[{"name":"gate","fields":{"order":18,"venue":"binance"}}]}"#,
    );
    assert_eq!(screen.text().trim_end(), want);
}

#[test]
fn a_pretty_line_is_one_line_without_control_characters() {
    let (dispatch, guard, screen) = log(LogConfig::default());
    with_default(&dispatch, || {
        let _in = info_span!("gate", n = 1).entered();
        warn!(target: "bot", text = "two words", word = "one", "evil\n\x1b[2Jline");
    });
    flush(&guard);
    let want = "2025-01-01T00:00:00.000Z  WARN bot: evil\\n\\u{1b}[2Jline text=\"two words\" word=one [gate n=1]\n";
    assert_eq!(screen.text(), want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_tasks_keep_their_correlation_ids_apart() {
    let (dispatch, guard, screen) = log(json());
    let tasks: Vec<_> = (0..50u64)
        .map(|n| {
            let inner = dispatch.clone();
            let work = async move {
                for step in 0..20u64 {
                    info!(n, step, "outer");
                    tokio::task::yield_now().await;
                }
                let child = async move { info!(n, "inner") };
                spawn_correlated(child.with_subscriber(inner)).await.unwrap();
            };
            let context =
                ExecutionContext::new(CorrelationId::from_u128(u128::from(n))).with_operation(format!("op-{n}"));
            tokio::spawn(context.scope(work).with_subscriber(dispatch.clone()))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    flush(&guard);
    let lines = screen.lines();
    assert_eq!(lines.len(), 50 * 21);
    for line in lines {
        let n = line["fields"]["n"].as_u64().unwrap();
        assert_eq!(line["correlation_id"], CorrelationId::from_u128(u128::from(n)).to_string(), "{line}");
        assert_eq!(line["operation"], format!("op-{n}"), "{line}");
    }
}

#[test]
fn the_level_changes_at_run_time() {
    let (dispatch, guard, screen) = log(json().with_level("info"));
    let handle = guard.handle();
    let say = || {
        debug!(target: "risk", "debug");
        info!(target: "risk", "info");
    };
    with_default(&dispatch, || {
        say();
        handle.set_level("warn,risk=debug").unwrap();
        say();
        assert!(matches!(handle.set_level("inof"), Err(LogError::InvalidLevel { .. })));
        say();
        handle.set_level("off").unwrap();
        error!("nobody hears this");
    });
    flush(&guard);
    let levels: Vec<_> = screen.lines().iter().map(|l| l["message"].as_str().unwrap().to_owned()).collect();
    assert_eq!(levels, ["info", "debug", "info", "debug", "info"]);
}

#[derive(Debug)]
struct Refused(&'static str);
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused {}", self.0)
    }
}
impl Error for Refused {}

#[derive(Debug)]
struct Outer(Refused);
impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no order")
    }
}
impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn registered_secrets_print_nowhere() {
    for format in [LogFormat::Json, LogFormat::Pretty] {
        let (dispatch, guard, screen) = log(json().with_format(format));
        let odd = "qu\"ote\\back";
        for secret in ["hunter2", odd, "271828"] {
            guard.handle().register_secret(&Secret::new(secret.to_owned())).unwrap();
        }
        let error = Outer(Refused("hunter2"));
        with_default(&dispatch, || {
            let span = info_span!("span", url = "https://x/?key=hunter2");
            let context = ExecutionContext::new(CorrelationId::from_u128(1)).with_operation("op hunter2");
            let _in = span.enter();
            context.sync_scope(|| {
                info!(a = "xhunter2x", b = ?Some("hunter2"), c = odd, d = ?odd, n = 271_828, m = 271_828.5, "hunter2 {odd}");
                error!(error = &error as &dyn Error, "failed");
            });
        });
        flush(&guard);
        let text = screen.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        for part in ["hunter2", "ote", "271828"] {
            assert!(!text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("no order: refused ***"), "{text}");
    }
}

#[test]
fn a_secret_across_the_cut_leaves_no_piece() {
    let (dispatch, guard, screen) = log(json());
    guard.handle().register_secret(&Secret::new("SECRETSECRET".to_owned())).unwrap();
    let long = format!("{}SECRETSECRET{}", "x".repeat(8 * 1024 - 5), "y".repeat(100_000));
    with_default(&dispatch, || info!("{long}"));
    flush(&guard);
    let message = screen.lines()[0]["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("x***yy…[cut]"), "{}", &message[8_000..]);
    assert!(message.len() < 8_300);
}

#[test]
fn fields_named_like_secrets_are_masked() {
    let mut config = json();
    config.masked_fields = vec!["iban".to_owned()];
    let (dispatch, guard, screen) = log(config);
    with_default(&dispatch, || {
        let _in = info_span!("login", password = "p1").entered();
        info!(api_key = "p2", authToken = 33, iban = "p4", tokens = 5, "hello");
    });
    flush(&guard);
    let line = screen.lines().remove(0);
    let fields = serde_json::json!({"api_key": "***", "authToken": "***", "iban": "***", "tokens": 5});
    assert_eq!(line["fields"], fields);
    assert_eq!(line["spans"][0]["fields"]["password"], "***");
}

#[test]
fn a_wrong_configuration_names_every_mistake() {
    let mut config = json().with_level("loud").with_console(false);
    config.queue_bytes_max = 1;
    let error = LogBuilder::new(config).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let LogError::InvalidConfig { problems } = error else { panic!("{error}") };
    assert_eq!(problems.len(), 3, "{problems:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_text_is_one_valid_line(message in ".*", value in "\\PC*|[\\x00-\\x1f]*") {
        let (dispatch, guard, screen) = log(json());
        let (pretty_dispatch, pretty_guard, pretty) = log(LogConfig::default());
        with_default(&dispatch, || info!(value, "{message}"));
        with_default(&pretty_dispatch, || info!(value, "{message}"));
        flush(&guard);
        flush(&pretty_guard);
        prop_assert_eq!(screen.text().lines().count(), 1);
        let line = screen.lines().remove(0);
        prop_assert_eq!(line["message"].as_str(), Some(&*message));
        prop_assert_eq!(line["fields"]["value"].as_str(), Some(&*value));
        let pretty = pretty.text();
        prop_assert!(pretty.ends_with('\n') && !pretty.trim_end_matches('\n').contains(|c: char| c.is_control()));
    }
}

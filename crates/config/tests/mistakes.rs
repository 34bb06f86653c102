//! Every mistake at once, each with its place, and never a secret.

use infra_config::{ConfigBuilder, ConfigError, Environment, Preset, Source};
use infra_types::ErrorKind;
use proptest::prelude::*;

#[test]
fn one_report_holds_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bot.toml");
    let text = "[redis]\n  port = \"six\"\nprot = 1\n\n[logging]\nformat = \"jsno\"\nlevel = 3\n\n[audit]\nretention_days = 30\nbroken =\n";
    std::fs::write(&path, text).unwrap();
    let error = ConfigBuilder::new(Preset::Production)
        .file(&path)
        .file(dir.path().join("absent.toml"))
        .environment(Environment::empty().with("REDIS_PORT", "70000").with("INFRA_STAET__BACKEND", "redis"))
        .set("emergency.lease", "10")
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.omitted(), 0);
    let lines: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    let file = path.display();
    for expected in [
        format!("redis.port: expected a whole number from 0 to 65535 (environment variable REDIS_PORT, overrides {file}:2:10)"),
        format!("redis.port: expected a whole number from 0 to 65535, found text ({file}:2:10, overrides preset `production`); remove the quotes"),
        format!("redis.prot: unknown key ({file}:3:8); did you mean `port`?"),
        format!("logging.format: expected one of json, pretty ({file}:6:10, overrides preset `production`); did you mean `json`?"),
        format!("logging.level: expected one of trace, debug, info, warn, error, found a whole number ({file}:7:9, overrides preset `production`)"),
        format!("audit.retention_days: audit entries must be kept for at least 2555 days ({file}:10:18, overrides preset `production`, rule audit_retention); set 2555 or more"),
        "staet: unknown key (environment variable INFRA_STAET__BACKEND); did you mean `state`?".into(),
        "emergency.lease: expected a duration with a unit, such as `5s` or `250ms`, found a bare number (set in code, overrides preset `production`)".into(),
        format!("it does not exist ({})", dir.path().join("absent.toml").display()),
    ] {
        assert!(lines.contains(&expected), "missing: {expected}\nin: {error}");
    }
    let syntax = |p: &&infra_config::Problem| matches!(&p.source, Source::File { line: 11, .. });
    assert!(error.problems().iter().any(|p| syntax(&p)), "{error}");
    assert_eq!(lines.len(), 10, "{error}");
    assert!(error.to_string().starts_with("the configuration has 10 mistakes:\n  1. "));
}

#[test]
fn shapes_and_places_that_do_not_exist() {
    let at =
        |text: &str| ConfigBuilder::new(Preset::Staging).toml("f", text).build().unwrap_err().problems()[0].clone();
    assert_eq!(at("state = 5").message, "expected a table, found a whole number");
    assert_eq!(at("[state.backend]\nx = 1").message, "expected a single value, found a table");
    assert_eq!(at("[redis.password]\nx = 1").message, "expected a single value, found a table");
    assert_eq!(at("[[state]]\nbackend = \"redis\"").message, "expected a table, found an array");
    assert_eq!(at("redis.url = 5").message, "expected an address as text");
    assert_eq!(at("[redis.url]\nx = 5").path, "redis.url");
    assert_eq!(at("redis.ulr = \"redis://x\"").hint.as_deref(), Some("did you mean `url`?"));
    assert_eq!(at("redis.host = \"a@b\"").path, "redis.host");
    assert_eq!(at("redis.url = \"redis://h/x\"").path, "redis.db");
    assert_eq!(at("postgres.url = \"postgres://h/x?sslmode=prefer\"").path, "postgres.tls");
    assert_eq!(at("risk.max_total_positions = 0").path, "risk.max_total_positions");
    assert_eq!(at("redis.port = 170141183460469231731687303715884105728").message, "this whole number is too large");
    for path in ["", ".", "a..b", "redis.", "a.b.c.d.e.f.g.h.i"] {
        assert!(ConfigBuilder::new(Preset::Staging).set(path, "x").build().is_err(), "{path}");
    }
    for name in ["INFRA_", "INFRA_state__backend", "INFRA_STATE", "INFRA_A______B", "INFRA_ DATA"] {
        let error = ConfigBuilder::new(Preset::Staging).environment(Environment::empty().with(name, "hunter2")).build();
        assert!(!error.unwrap_err().to_string().contains("hunter2"));
    }
}

#[test]
fn a_report_is_bounded_and_counts_the_rest() {
    let text: String = (0..250).map(|n| format!("unknown_{n} = 1\n")).collect();
    let error = ConfigBuilder::new(Preset::Staging).toml("f", text).build().unwrap_err();
    assert_eq!((error.problems().len(), error.omitted()), (ConfigError::PROBLEMS_MAX, 150));
    assert!(error.to_string().contains("250 mistakes") && error.to_string().ends_with("and 150 more"));
}

#[test]
fn secrets_do_not_print() {
    let environment = Environment::empty()
        .with("REDIS_PASSWORD", "hunter2")
        .with("DATABASE_URL", "postgres://bot:hunter2@db/x?sslpassword=hunter2");
    let builder = ConfigBuilder::new(Preset::Staging).environment(environment.clone()).set("redis.password", "hunter2");
    let builder = builder.toml("f", "redis.password = \"hunter2\"");
    let text = format!("{environment:?} {builder:?}");
    let config = builder.build().unwrap();
    let text = format!("{text} {config:?} {config:#?} {config} {:?} {}", config.redis.url(), config.postgres.url());
    assert!(!text.contains("hunter2"), "{text}");
    assert!(config.masked_toml().contains("password = \"***\""));
    assert_eq!(config.redis.password.unwrap().expose(), "hunter2");
}

const SECRET: &str = "S3cr3t+Planted/Value";

/// Pieces that make nearly valid files, with a secret among them.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "[redis]", "[postgres]", "[risk]", "[[state]]", "\n", "\n", "\n", " = ", "=", ".", ",", "[", "]", "{", "}", "\"", "'''",
            "\"\"\"", "redis", "password", "url", "port", "postgres", "params", "logging.level", "bot_id", "risk.max_drawdown_pct",
            "preset", "007", "1e9", "0x", "inf", "true", "1979-05-27T00:32:00.9", "redis://", "postgres://", "#", "\\u", "\u{feff}",
        ]).prop_map(str::to_owned),
        2 => Just(SECRET.to_owned()),
        1 => Just(format!("\"{SECRET}\"")),
        1 => Just(format!("password = \"{SECRET}\"\n")),
        1 => Just(format!("url = \"postgres://u:{SECRET}@h:x/{SECRET}?{SECRET}={SECRET}\"\n")),
        1 => any::<String>(),
    ]
}

fn variable() -> impl Strategy<Value = (String, String)> {
    let name = prop::sample::select(vec![
        "REDIS_URL",
        "REDIS_URL_FILE",
        "REDIS_PORT",
        "REDIS_PASSWORD",
        "REDIS_PASSWORD_FILE",
        "DATABASE_URL",
        "POSTGRES_HOST",
        "LOG_LEVEL",
        "LOG_AUDIT_RETENTION_DAYS",
        "INFRA_REDIS",
        "INFRA_REDIS__PASSWORD",
        "INFRA_POSTGRES__PARAMS__X",
        "INFRA_POSTGRES__URL__X",
        "INFRA_BOT_ID",
        "INFRA_PRESET",
        "INFRA_RISK__MAX_ORDER_QTY",
        "INFRA_STATE__BACKEND",
        "INFRA_NO__SUCH",
        "INFRA___",
        "INFRA_A__",
    ]);
    let value = prop_oneof![Just(SECRET.to_owned()), prop::collection::vec(piece(), 0..4).prop_map(|p| p.concat())];
    (name.prop_map(str::to_owned), value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn garbage_never_panics_and_never_leaks(
        pieces in prop::collection::vec(piece(), 0..24),
        variables in prop::collection::vec(variable(), 0..6),
        odd_name in "INFRA_\\PC{0,12}",
        overrides in prop::collection::vec(("[a-z_.]{0,24}", variable()), 0..3),
        preset in prop::sample::select(Preset::ALL.to_vec()),
    ) {
        let environment: Environment = variables.into_iter().chain([(odd_name, SECRET.to_owned())]).collect();
        let builder = ConfigBuilder::new(preset).toml("bot.toml", pieces.concat()).environment(environment);
        let builder = overrides.into_iter().fold(builder, |b, (path, (_, value))| b.set(path, value));
        let text = match builder.build() {
            // Only settings that are not secret by their kind may show what stands in them.
            Ok(config) => format!("{:?} {:?}", config.redis.password, config.postgres.params.values()),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!text.contains(SECRET), "{text}");
        prop_assert!(!text.contains("S3cr3t"), "{text}");
    }

    #[test]
    fn any_bytes_never_panic(text in any::<String>(), deep in 0usize..3000, open in prop::sample::select(vec!["[", "{a=", "a.", "[[", "\"\"\""])) {
        for text in [text, open.repeat(deep), format!("a = {}", open.repeat(deep))] {
            let _ = ConfigBuilder::new(Preset::Development).toml("f", text).build();
        }
    }

    #[test]
    fn passwords_survive_an_address(user in "\\PC{1,12}", password in "\\PC{1,24}", db in prop_oneof!["\\PC{1,12}", "[.]{1,3}"]) {
        let set = |path: &'static str, value: &str| (path, value.to_owned());
        let parts = [set("postgres.user", &user), set("postgres.password", &password), set("postgres.db", &db)];
        let parts = parts.into_iter().fold(ConfigBuilder::new(Preset::Staging), |b, (path, value)| b.set(path, value));
        let first = parts.build().unwrap();
        let second = ConfigBuilder::new(Preset::Staging).set("postgres.url", first.postgres.url().expose()).build().unwrap();
        prop_assert_eq!(first.postgres, second.postgres);
    }
}

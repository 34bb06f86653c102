//! What covers what, and how values are read.

use std::time::Duration;

use infra_config::{Config, ConfigBuilder, ConfigError, Environment, LogFormat, LogLevel, PostgresTls, Preset};

fn with_env(preset: Preset, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    ConfigBuilder::new(preset).environment(variables.iter().copied().collect()).build()
}

fn staging(variables: &[(&str, &str)]) -> Config {
    with_env(Preset::Staging, variables).expect("these variables are right")
}

#[test]
fn code_covers_environment_covers_files_covers_preset() {
    let file = "[logging]\nlevel = \"warn\"\nformat = \"pretty\"\n[redis]\nport = 1\n[postgres]\nport = 1\n";
    let config = ConfigBuilder::new(Preset::Staging)
        .set("redis.port", "3")
        .environment([("REDIS_PORT", "2"), ("POSTGRES_PORT", "2")].into_iter().collect())
        .toml("first.toml", file)
        .toml("second.toml", "logging.level = \"error\"")
        .build()
        .unwrap();
    assert_eq!((config.redis.port, config.postgres.port), (3, 2));
    assert_eq!((config.logging.level, config.logging.format), (LogLevel::Error, LogFormat::Pretty));
    assert_eq!(config.redis.host, "localhost");
}

#[test]
fn the_named_variables() {
    let config = staging(&[
        ("REDIS_HOST", "cache"),
        ("REDIS_PORT", "7000"),
        ("REDIS_DB", "2"),
        ("REDIS_PASSWORD", "p@ss/%41"),
        ("POSTGRES_HOST", "::1"),
        ("POSTGRES_PORT", "7001"),
        ("POSTGRES_DB", "trading"),
        ("POSTGRES_USER", "bot"),
        ("POSTGRES_PASSWORD", "a b"),
        ("LOG_LEVEL", "DEBUG"),
        ("LOG_FORMAT", "pretty"),
        ("LOG_AUDIT_RETENTION_DAYS", "3650"),
        ("INFRA_DATA_DIR", "/srv/bot"),
        ("PATH", "/bin"),
        ("UNRELATED", ""),
    ]);
    assert_eq!(config.redis.url().expose(), "redis://:p%40ss%2F%2541@cache:7000/2");
    assert_eq!(config.postgres.url().expose(), "postgres://bot:a%20b@[::1]:7001/trading?sslmode=disable");
    assert_eq!((config.logging.level, config.logging.format), (LogLevel::Debug, LogFormat::Pretty));
    assert_eq!(config.audit.retention_days, 3650);
    assert_eq!(config.data_dir.to_str(), Some("/srv/bot"));
}

#[test]
fn addresses_round_trip_and_win_over_parts_of_their_layer() {
    let url = "postgres://b%40t:p%2Fw@db.example:7001/trading?sslmode=verify-ca&application_name=a%26b";
    let config = staging(&[("DATABASE_URL", url), ("POSTGRES_HOST", "other"), ("REDIS_URL", "rediss://u:p@r:1/5")]);
    assert_eq!(
        config.postgres.url().expose().as_str(),
        "postgres://b%40t:p%2Fw@db.example:7001/trading?sslmode=verify-ca&application_name=a%26b"
    );
    assert_eq!((config.postgres.user.as_str(), config.postgres.tls), ("b@t", PostgresTls::VerifyCa));
    assert_eq!(config.redis.url().expose(), "rediss://u:p@r:1/5");
}

#[test]
fn a_higher_part_completes_a_lower_address() {
    let config = ConfigBuilder::new(Preset::Production)
        .toml("bot.toml", "postgres.url = \"postgres://bot@db.example/trading\"\npostgres.params.sslrootcert = \"/ca\"")
        .environment(Environment::empty().with("POSTGRES_PASSWORD", "s3"))
        .build()
        .unwrap();
    let url = "postgres://bot:s3@db.example:5432/trading?sslmode=verify-full&sslrootcert=%2Fca";
    assert_eq!(config.postgres.url().expose(), url);
}

#[test]
fn generic_variables_win_over_named_ones() {
    let config = staging(&[
        ("REDIS_URL", "redis://named:1"),
        ("INFRA_REDIS__HOST", "generic"),
        ("INFRA_RISK__MAX_DAILY_LOSS_PCT", "0.0100"),
    ]);
    assert_eq!((config.redis.host.as_str(), config.redis.port), ("generic", 1));
    assert_eq!(config.risk.max_daily_loss_pct.to_string(), "0.0100");
}

#[test]
fn an_empty_variable_is_unset() {
    let config = staging(&[
        ("REDIS_HOST", ""),
        ("REDIS_URL", ""),
        ("LOG_LEVEL", ""),
        ("INFRA_REDIS__PORT", ""),
        ("INFRA_NO__SUCH", ""),
    ]);
    assert_eq!(config, ConfigBuilder::new(Preset::Staging).build().unwrap());
}

#[test]
fn a_text_stays_a_text() {
    assert_eq!(staging(&[("INFRA_BOT_ID", "007123")]).bot_id.as_str(), "007123");
    assert_eq!(staging(&[("REDIS_PASSWORD", "007123")]).redis.password.unwrap().expose(), "007123");
    assert_eq!(staging(&[("POSTGRES_USER", "true")]).postgres.user, "true");
    let number = ConfigBuilder::new(Preset::Staging).toml("f", "postgres.user = 7").build().unwrap_err();
    assert_eq!(number.problems()[0].message, "expected text, found a whole number");
    let quoted = ConfigBuilder::new(Preset::Staging).toml("f", "redis.port = \"7\"").build().unwrap_err();
    assert_eq!(quoted.problems()[0].hint.as_deref(), Some("remove the quotes"));
}

#[test]
fn amounts_are_taken_from_their_text() {
    // As a binary float this is 0.1000000000000000055…
    for text in ["0.1", "0.10", "0.1234567890123456789"] {
        let config = ConfigBuilder::new(Preset::Staging).toml("f", format!("risk.max_drawdown_pct = {text}")).build();
        assert_eq!(config.unwrap().risk.max_drawdown_pct.to_string(), text);
    }
    for bad in ["inf", "nan", "-inf", "1e-1", "true", "[0.1]", "1979-05-27"] {
        let error = ConfigBuilder::new(Preset::Staging).toml("f", format!("risk.max_drawdown_pct = {bad}")).build();
        assert_eq!(error.unwrap_err().problems()[0].path, "risk.max_drawdown_pct", "{bad}");
    }
}

#[test]
fn durations_need_units() {
    let read = |value: &str| {
        ConfigBuilder::new(Preset::Staging).toml("f", format!("state.operation_timeout = {value}")).build()
    };
    assert_eq!(read("\"1s 500ms\"").unwrap().state.operation_timeout, Duration::from_millis(1500));
    for bare in ["5", "\"5\"", "\"0\"", "5.0"] {
        let error = read(bare).unwrap_err();
        assert!(error.problems()[0].message.starts_with("expected a duration with a unit"), "{error}");
    }
    assert!(with_env(Preset::Staging, &[("INFRA_STATE__OPERATION_TIMEOUT", "5")]).is_err());
}

#[test]
fn secrets_come_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (redis, url, generic) = (write("a", "pw one\n"), write("b", "postgres://bot:pw2@db/x\r\n"), write("c", "pw3"));
    let config = staging(&[
        ("REDIS_PASSWORD_FILE", &redis),
        ("DATABASE_URL_FILE", &url),
        ("INFRA_POSTGRES__PASSWORD_FILE", &generic),
    ]);
    assert_eq!(config.redis.password.unwrap().expose(), "pw one");
    assert_eq!((config.postgres.host.as_str(), config.postgres.password.unwrap().expose().as_str()), ("db", "pw3"));

    let empty = write("empty", "\n");
    let error = with_env(
        Preset::Staging,
        &[
            ("REDIS_PASSWORD", "x"),
            ("REDIS_PASSWORD_FILE", &redis),
            ("POSTGRES_PASSWORD_FILE", "/no/hunter2"),
            ("REDIS_URL_FILE", &empty),
        ],
    )
    .unwrap_err();
    assert_eq!(error.problems().len(), 3, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_file_of_another_preset_is_refused() {
    let text = "preset = \"staging\"\n";
    assert!(ConfigBuilder::new(Preset::Staging).toml("f", text).build().is_ok());
    let error = ConfigBuilder::new(Preset::Production).toml("f", text).build().unwrap_err();
    assert_eq!((error.problems().len(), error.problems()[0].path.as_str()), (1, "preset"));
    assert!(with_env(Preset::Production, &[("INFRA_PRESET", "development")]).is_err());
}

#[test]
fn several_redis_addresses_fit_one_variable() {
    let environment = Environment::empty()
        .with("INFRA_REDIS__TOPOLOGY", "sentinel")
        .with("INFRA_REDIS__SERVICE", "main")
        .with("INFRA_REDIS__NODES", "one:26379,[::1]:26380");
    let config = ConfigBuilder::new(Preset::Staging).environment(environment).build().unwrap();
    let nodes: Vec<_> = config.redis.nodes.iter().map(|node| (node.host.as_str(), node.port)).collect();
    assert_eq!(nodes, [("one", 26379), ("::1", 26380)]);
    assert!(config.to_string().contains("one:26379,[::1]:26380"), "{config}");
    for bad in ["one", "one:", "one:0", ":1", "one:1,", "a b:1", "redis://one:1"] {
        let e = ConfigBuilder::new(Preset::Staging).set("redis.nodes", bad).build().unwrap_err().to_string();
        assert!(e.contains("redis.nodes"), "{bad}: {e}");
    }
}

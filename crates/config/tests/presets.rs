//! What each preset means.

use std::{path::Path, time::Duration};

use infra_config::{
    Backend, Config, ConfigBuilder, Environment, LimitsFrom, LogFormat, LogLevel, PostgresTls, Preset, Synchronous,
    get_config,
};
use infra_types::Decimal;

fn preset(preset: Preset) -> Config {
    ConfigBuilder::new(preset).build().expect("a preset is complete")
}

#[test]
fn production_is_redis_postgres_json_and_halts_by_itself() {
    let config = preset(Preset::Production);
    assert_eq!(config.preset, Preset::Production);
    assert_eq!((config.state.backend, config.events.backend), (Backend::Redis, Backend::Redis));
    assert_eq!((config.ledger.backend, config.audit.backend), (Backend::Postgres, Backend::Postgres));
    assert_eq!(config.logging.format, LogFormat::Json);
    assert!(config.emergency.auto_halt_on_limit);
    assert!(config.redis.tls && config.redis.url().expose().starts_with("rediss://"));
    assert_eq!(config.postgres.tls, PostgresTls::VerifyFull);
    assert!(config.audit.retention_days >= 2555);
}

#[test]
fn staging_rehearses_on_local_servers() {
    let config = preset(Preset::Staging);
    assert_eq!((config.state.backend, config.events.backend), (Backend::Redis, Backend::Redis));
    assert_eq!((config.ledger.backend, config.audit.backend), (Backend::Postgres, Backend::Postgres));
    assert_eq!(config.logging.format, LogFormat::Json);
    assert_eq!(config.redis.url().expose(), "redis://localhost:6379/0");
    assert_eq!(config.postgres.url().expose(), "postgres://infra@localhost:5432/infra?sslmode=disable");
}

#[test]
fn standalone_is_one_file_that_survives_a_power_cut() {
    let config = preset(Preset::Standalone);
    let Config { state, events, ledger, audit, .. } = &config;
    assert_eq!([state.backend, events.backend, ledger.backend, audit.backend], [Backend::Sqlite; 4]);
    assert_eq!(events.market_data_backend, Backend::Memory);
    assert_eq!(config.sqlite.synchronous, Synchronous::Full);
    assert_eq!(config.data_dir, Path::new("./infra-data"));
    assert_eq!(config.sqlite_path(), Path::new("./infra-data/infra.db"));
    assert_eq!(config.log_path().as_deref(), Some(Path::new("./infra-data/logs/infra.log")));
    assert!(config.logging.console && config.logging.format == LogFormat::Json);
    assert!(!config.uses(Backend::Redis) && !config.uses(Backend::Postgres));
}

#[test]
fn development_needs_nothing() {
    let config = preset(Preset::Development);
    for server in [Backend::Sqlite, Backend::Redis, Backend::Postgres] {
        assert!(!config.uses(server), "{server}");
    }
    assert_eq!((config.logging.format, config.logging.level), (LogFormat::Pretty, LogLevel::Info));
    assert!(config.logging.console && config.log_path().is_none());
}

#[test]
fn every_preset_has_the_limits_of_the_brief() {
    for name in Preset::ALL {
        let risk = preset(name).risk;
        assert_eq!(risk.max_portfolio_exposure_pct, Decimal::new(80, 2));
        assert_eq!(risk.max_daily_loss_pct, Decimal::new(5, 2));
        assert_eq!(risk.max_total_positions.get(), 50);
        assert_eq!((risk.limits, risk.alert_on_warning), (LimitsFrom::Config, false));
        assert!(preset(name).emergency.lease <= Duration::from_secs(5));
    }
}

#[test]
fn any_of_it_can_be_set_otherwise() {
    let config = ConfigBuilder::new(Preset::Production)
        .set("state.backend", "sqlite")
        .set("events.backend", "memory")
        .set("ledger.backend", "sqlite")
        .set("logging.format", "pretty")
        .set("emergency.auto_halt_on_limit", "false")
        .set("emergency.rearm_persons", "anna, ben")
        .set("emergency.rearm_second_person_within", "10m")
        .build()
        .unwrap();
    assert_eq!((config.state.backend, config.events.backend), (Backend::Sqlite, Backend::Memory));
    assert_eq!((config.ledger.backend, config.logging.format), (Backend::Sqlite, LogFormat::Pretty));
    assert!(!config.emergency.auto_halt_on_limit);
    assert_eq!(config.emergency.rearm_persons, ["anna".parse().unwrap(), "ben".parse().unwrap()]);
    assert_eq!(config.emergency.rearm_second_person_within.as_secs(), 600);
}

#[test]
fn get_config_is_the_preset_with_the_environment_of_the_process() {
    for name in Preset::ALL {
        let built = ConfigBuilder::new(name).environment(Environment::process()).build();
        assert_eq!(get_config(name.as_str()), built);
    }
    let error = get_config("prodution").unwrap_err();
    assert!(error.to_string().contains("did you mean `production`?"), "{error}");
}

#[test]
fn the_printed_configuration_reads_back() {
    for name in Preset::ALL {
        let config = preset(name);
        let again = ConfigBuilder::new(name).toml("printed.toml", config.masked_toml()).build().unwrap();
        assert_eq!(again, config);
        assert_eq!(config.to_string(), config.masked_toml());
    }
}

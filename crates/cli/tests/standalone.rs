//! The command beside a bot that runs, on one SQLite file.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use infra_factory::{
    Infrastructure, Preset,
    audit_log::Verdict,
    config::{ConfigBuilder, Environment},
    emergency::{OrderScopes, Stance},
    types::{Order, Side},
};
use serde_json::Value;

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infra"));
    // Nothing of the machine's own settings decides this test.
    command.env_clear().arg("--data-dir").arg(dir).args(args);
    command
}

fn infra(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn done(dir: &Path, args: &[&str]) -> Value {
    let out = infra(dir, &[&["--json"], args].concat());
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn refused(dir: &Path, args: &[&str], code: i32) -> String {
    let out = infra(dir, args);
    assert_eq!(out.status.code(), Some(code), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

async fn bot(dir: &Path) -> Infrastructure {
    let config = ConfigBuilder::new(Preset::Standalone)
        .environment(Environment::empty())
        .set("data_dir", dir.to_str().unwrap())
        .set("bot_id", "bot_001");
    Infrastructure::builder(config.build().unwrap()).build().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_halts_looks_and_re_arms_while_a_bot_runs() {
    let dir = tempfile::tempdir().unwrap();
    let infra_of_bot = bot(dir.path()).await;
    let switch = infra_of_bot.emergency();
    assert_eq!(done(dir.path(), &["status"])["firm"]["state"], "NORMAL");

    let halted = done(dir.path(), &["halt", "--by", "anna", "--reason", "prices look wrong"]);
    assert_eq!((&halted["state"], &halted["by"]), (&"HALT".into(), &"anna".into()));
    switch.refresh().await.unwrap();
    assert_eq!(switch.stance(), Stance::ReduceOnly);

    let account = "main".parse().unwrap();
    done(dir.path(), &["shutdown", "--scope", "account:main", "--by", "ben", "--reason", "margin call"]);
    switch.refresh().await.unwrap();
    let scopes = OrderScopes { account: Some(&account), ..OrderScopes::default() };
    assert_eq!(switch.stance_of(&scopes), Stance::Closed);

    let status = infra(dir.path(), &["status", "--check"]);
    assert_eq!(status.status.code(), Some(3));
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(text.contains("firm is HALT at version 1, by anna") && text.contains("account:main is SHUTDOWN"), "{text}");

    let old = refused(dir.path(), &["rearm", "--version", "7", "--by", "anna", "--reason", "looked"], 1);
    assert!(old.contains("version"), "{old}");
    done(dir.path(), &["rearm", "--version", "1", "--by", "anna", "--reason", "looked"]);
    switch.refresh().await.unwrap();
    assert_eq!((switch.stance(), switch.stance_of(&scopes)), (Stance::Open, Stance::Closed));
    let version = done(dir.path(), &["status"])["scopes"][0]["version"].to_string();
    done(dir.path(), &["rearm", "--scope", "account:main", "--version", &version, "--by", "ben", "--reason", "paid"]);
    assert_eq!(infra(dir.path(), &["status", "--check"]).status.code(), Some(0));

    // Every transition was told to the audit log by the command itself.
    infra_of_bot.anchor_audit().await.unwrap();
    let verdict = infra_of_bot.verify_audit().await.unwrap();
    assert!(matches!(verdict, Verdict::Ok { .. }), "{verdict:?}");
    assert_eq!(infra_of_bot.audit().head().await.unwrap().size, 5, "the first limits, and four changes");
    assert!(infra_of_bot.close().await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_takes_two_the_first_asks_and_another_one_confirms() {
    let dir = tempfile::tempdir().unwrap();
    let infra_of_bot = bot(dir.path()).await;
    infra_of_bot.emergency().halt("risk-engine", "daily loss").await.unwrap();
    let two = |args: &[&str]| {
        let mut command = command(dir.path(), &[&["--json"], args].concat());
        command
            .env("INFRA_EMERGENCY__REARM_SECOND_PERSON_WITHIN", "10m")
            .env("INFRA_EMERGENCY__REARM_PERSONS", "anna,ben");
        command.output().unwrap()
    };
    let rearm = |by| two(&["rearm", "--version", "1", "--by", by, "--reason", "booked wrongly"]);
    assert_eq!(rearm("carl").status.code(), Some(1), "not entitled");
    let asked: Value = serde_json::from_slice(&rearm("anna").stdout).unwrap();
    let id = asked["id"].as_str().unwrap();
    assert_eq!(done(dir.path(), &["status"])["firm"]["state"], "HALT");
    let confirm = |by| two(&["confirm", "--request", id, "--by", by]);
    assert_eq!(confirm("anna").status.code(), Some(1), "the same person");
    assert_eq!(confirm("carl").status.code(), Some(1), "not entitled");
    let now: Value = serde_json::from_slice(&confirm("ben").stdout).unwrap();
    assert_eq!(now["state"], "NORMAL");
    infra_of_bot.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_tells_a_change_and_ends_with_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let infra_of_bot = bot(dir.path()).await;
    let mut watch = command(dir.path(), &["watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("firm is NORMAL"));
    infra_of_bot.emergency().halt("risk-engine", "daily loss").await.unwrap();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("firm NORMAL -> HALT") && line.contains("daily loss"), "{line}");
    let pid = watch.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn wrong_input_is_told_in_a_line_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = refused(dir.path(), &["halt", "--by", "anna", "--reason", "x"], 1);
    assert!(missing.contains("data directory") && missing.lines().count() == 1, "{missing}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a halt in an empty ledger would stop nobody");
    let memory = refused(dir.path(), &["--preset", "development", "status"], 1);
    assert!(memory.contains("memory of each bot"), "{memory}");
    let typo = refused(dir.path(), &["--preset", "standalon", "status"], 1);
    assert!(typo.contains("did you mean `standalone`"), "{typo}");
    assert!(refused(dir.path(), &["halt", "--by", "anna"], 2).contains("--reason"));
    assert!(refused(dir.path(), &["halt", "--scope", "everything", "--by", "a", "--reason", "x"], 2).contains("scope"));
    assert!(refused(dir.path(), &["rearm", "--by", "anna", "--reason", "x"], 2).contains("--version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_shows_exports_and_changes_the_limits_of_a_bot_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let infra_of_bot = bot(dir.path()).await;
    let shown = done(dir.path(), &["limits", "show"]);
    assert_eq!((&shown["version"], &shown["author"]), (&1.into(), &"config".into()));
    let file = dir.path().join("limits.json");
    let path = file.to_str().unwrap();
    assert!(infra(dir.path(), &["limits", "export", path]).status.success());
    let mut edited: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(edited, shown);
    edited["limits"]["order_qty_max"] = "5".into();
    std::fs::write(&file, edited.to_string()).unwrap();
    let set = ["--json", "limits", "set", path, "--by", "anna", "--reason", "less"];
    let out = command(dir.path(), &set).env("INFRA_EMERGENCY__REARM_PERSONS", "ben,carl").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("anna is not among those who may"));
    let out = infra(dir.path(), &set);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stderr).contains("\"stored\""), "what a restart would do is said");
    let now: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&now["version"], &now["author"], &now["limits"]["order_qty_max"]),
        (&2.into(), &"anna".into(), &"5".into())
    );
    assert!(infra_of_bot.risk().reload_limits().await.unwrap());
    assert_eq!(infra_of_bot.risk().limits().version, 2);
    // The file was made of version 1: somebody would undo what he did not see.
    let old = refused(dir.path(), &set, 1);
    assert!(old.contains("version 2 of the limits is stored, not 1"), "{old}");
    edited["limits"]["order_qty_max"] = "-5".into();
    edited["version"] = 2.into();
    std::fs::write(&file, edited.to_string()).unwrap();
    let wrong = refused(dir.path(), &set, 1);
    assert!(wrong.contains("order_qty_max"), "{wrong}");
    std::fs::write(&file, edited["limits"].to_string()).unwrap();
    assert!(refused(dir.path(), &set, 1).contains("--version"));
    let out = infra(dir.path(), &["limits", "history"]);
    let lines = String::from_utf8(out.stdout).unwrap();
    let starts: Vec<_> = lines.lines().map(|line| line.split(" at ").next().unwrap().to_owned()).collect();
    assert_eq!(starts, ["version 2, by anna", "version 1, by config"]);
    infra_of_bot.anchor_audit().await.unwrap();
    assert_eq!(infra_of_bot.audit().head().await.unwrap().size, 2);
    assert!(infra_of_bot.close().await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_persons_let_one_order_past_a_limit_and_one_enables_a_strategy() {
    let dir = tempfile::tempdir().unwrap();
    let infra_of_bot = bot(dir.path()).await;
    let order = Order::limit(
        "o-1".parse().unwrap(),
        "main".parse().unwrap(),
        "breakout".parse().unwrap(),
        "sim/BTCUSDT".parse().unwrap(),
        Side::Buy,
        "1".parse().unwrap(),
        "100".parse().unwrap(),
    );
    let file = dir.path().join("order.json");
    std::fs::write(&file, serde_json::to_vec(&order).unwrap()).unwrap();
    let path = file.to_str().unwrap();
    let ask = |rules| {
        let args = ["--json", "override", "request", path, "--rules", rules, "--by", "anna", "--reason", "a hedge"];
        infra(dir.path(), &args)
    };
    assert_eq!(ask("no_such_rule").status.code(), Some(1));
    assert!(ask("order_notional_max,order_qty_max").status.success());
    let grant = |by| ["override", "grant", "--account", "main", "--order", "o-1", "--by", by];
    assert!(refused(dir.path(), &grant("anna"), 1).contains("another person"));
    let granted = done(dir.path(), &grant("ben"));
    assert_eq!((&granted["granted_by"], &granted["requested_by"]), (&"ben".into(), &"anna".into()));
    let leave = infra_of_bot.risk().override_of(&order.account, &order.id).await.unwrap().unwrap();
    assert_eq!(leave.rules.len(), 2);

    let enabled = done(dir.path(), &["enable-strategy", "breakout", "--by", "ben", "--reason", "looked"]);
    assert_eq!((&enabled["strategy"], &enabled["by"]), (&"breakout".into(), &"ben".into()));
    assert!(infra(dir.path(), &["orphans"]).stdout.is_empty());
    infra_of_bot.anchor_audit().await.unwrap();
    assert_eq!(infra_of_bot.audit().head().await.unwrap().size, 4, "limits, request, grant, enabling");
    infra_of_bot.close().await;
}

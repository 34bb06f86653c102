//! Two processes on one SQLite file: one halts, the other refuses, and goes on refusing after a restart, until a named
//! person re-arms it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use infra_factory::{
    Infrastructure, Preset,
    config::{ConfigBuilder, Environment},
    types::{Clock, SystemClock},
};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => operator().await,
        ["trader", dir] => trader(Path::new(dir)).await,
        _ => Err("usage: kill_switch (no arguments; it starts its own second process)".into()),
    }
}

async fn open(dir: &Path, bot: &str) -> Result<Infrastructure, Failure> {
    let config = ConfigBuilder::new(Preset::Standalone)
        .environment(Environment::process())
        .set("data_dir", dir.display().to_string())
        .set("bot_id", bot)
        .build()?;
    Ok(Infrastructure::builder(config).build().await?)
}

/// The second process: says whether it may trade, whenever that changes.
async fn trader(dir: &Path) -> Result<(), Failure> {
    let infra = open(dir, "trader").await?;
    let mut said = None;
    loop {
        let may = infra.emergency().can_trade();
        if said != Some(may) {
            said = Some(may);
            println!("{}", if may { "may trade" } else { "refuses" });
        }
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
}

/// A running trader, killed when it goes out of scope.
struct Trader(Child, BufReader<std::process::ChildStdout>);

impl Trader {
    fn start(dir: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?).arg("trader").arg(dir).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        Ok(Self(child, BufReader::new(out)))
    }

    fn expect(&mut self, want: &str) -> Result<(), Failure> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        match line.trim() {
            said if said == want => Ok(()),
            said => Err(format!("the trader said {said:?} instead of {want:?}").into()),
        }
    }
}

impl Drop for Trader {
    fn drop(&mut self) {
        // kill -9: it gets no chance to tidy up.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn operator() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let infra = open(dir.path(), "operator").await?;
    let mut trader = Trader::start(dir.path())?;
    trader.expect("may trade")?;
    println!("the trader, a process of its own, may trade");

    let began = SystemClock.now();
    infra.emergency().halt("operator", "prices look wrong").await?;
    trader.expect("refuses")?;
    println!("halted: it refuses {} ms later", SystemClock.now().since(began).as_millis());

    drop(trader);
    let mut trader = Trader::start(dir.path())?;
    trader.expect("refuses")?;
    println!("killed with -9 and started again: it still refuses");

    let halt = infra.emergency().refresh().await?;
    infra.emergency().rearm(&"alice".parse()?, "prices are right again", halt.version).await?;
    trader.expect("may trade")?;
    println!("re-armed by alice: it may trade");
    drop(trader);
    infra.close().await;
    Ok(())
}

//! From the arguments to an open console.

use infra_factory::{
    Console, Preset,
    config::{ConfigBuilder, Environment},
};

use crate::{Failure, args::Ledger};

pub(crate) async fn open(ledger: &Ledger) -> Result<Console, Failure> {
    let preset: Preset = ledger.preset.parse()?;
    let mut builder = ConfigBuilder::new(preset).environment(Environment::process());
    if let Some(file) = &ledger.config {
        builder = builder.file(file);
    }
    if let Some(dir) = &ledger.data_dir {
        let dir = dir.to_str().ok_or("the data directory's name is not UTF-8")?;
        builder = builder.set("data_dir", dir);
    }
    Ok(Console::open(&builder.build()?).await?)
}

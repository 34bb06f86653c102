//! What each command does.

use std::{process::ExitCode, time::Duration};

use infra_factory::{
    Console,
    emergency::{EmergencyError, EmergencyState, Stop},
    types::ErrorKind,
};

use crate::{
    Failure, STOPPED,
    args::{Confirm, Rearm, Stop as To},
    show::Show,
};

/// Says how everything stands.
pub(crate) async fn status(console: &Console, show: Show, check: bool, history: usize) -> Result<ExitCode, Failure> {
    let status = console.emergency().status(history).await;
    show.status(&status)?;
    let is_free = status.is_confirmed && status.firm.state == EmergencyState::Normal && status.scopes.is_empty();
    Ok(if check && !is_free { ExitCode::from(STOPPED) } else { ExitCode::SUCCESS })
}

/// Stops a scope.
pub(crate) async fn stop(console: &Console, show: Show, stop: Stop, to: &To) -> Result<ExitCode, Failure> {
    match console.emergency().stop(stop.in_scope(to.scope.clone())).await {
        Ok(now) => show.stands(&now)?,
        Err(e @ EmergencyError::NotDurable { .. }) if e.kind() == ErrorKind::Ambiguous => {
            return Err(format!("NOBODY KNOWS WHETHER IT HOLDS: {e}; look with `infra status`, and repeat it").into());
        }
        Err(e @ EmergencyError::NotDurable { .. }) => {
            // It would hold in this process only, which ends here: nobody is stopped.
            return Err(format!("NOBODY IS STOPPED: {e}; end the bots' processes if they must not trade").into());
        }
        Err(e) => return Err(e.into()),
    }
    told(console).await;
    Ok(ExitCode::SUCCESS)
}

/// Lets a scope go on, or asks a second person for it.
pub(crate) async fn rearm(console: &Console, show: Show, rearm: &Rearm) -> Result<ExitCode, Failure> {
    let Rearm { scope, by, reason, version } = rearm;
    match console.emergency().rearm_in(scope, by, reason, *version).await {
        Ok(now) => show.stands(&now)?,
        Err(EmergencyError::SecondPersonNeeded) => {
            let request = console.emergency().request_rearm(scope, by, reason, *version).await?;
            show.request(scope, &request)?;
        }
        Err(e) => return Err(e.into()),
    }
    told(console).await;
    Ok(ExitCode::SUCCESS)
}

/// Is the second person.
pub(crate) async fn confirm(console: &Console, show: Show, confirm: &Confirm) -> Result<ExitCode, Failure> {
    let now = console.emergency().confirm_rearm(&confirm.scope, &confirm.by, &confirm.request).await?;
    show.stands(&now)?;
    told(console).await;
    Ok(ExitCode::SUCCESS)
}

/// What is done is in the ledger and holds; audit log and bus hear of it here, or from the next console.
pub(crate) async fn told(console: &Console) {
    for line in console.tell().await {
        eprintln!("infra: it holds, but was not told yet and will be by the next command: {line}");
    }
}

/// Prints changes until Ctrl-C.
pub(crate) async fn watch(console: &Console, show: Show) -> Result<ExitCode, Failure> {
    const EVERY: Duration = Duration::from_millis(250);
    const HISTORY: usize = 500;
    let switch = console.emergency();
    let mut seen = switch.snapshots().iter().map(|s| s.version).max().unwrap_or(0);
    for snapshot in switch.snapshots() {
        show.stands(&snapshot)?;
    }
    let mut was_read = true;
    let mut end = Box::pin(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            ended = &mut end => {
                ended?;
                return Ok(ExitCode::SUCCESS);
            }
            () = tokio::time::sleep(EVERY) => {}
        }
        match switch.history(HISTORY).await {
            Ok(newest) => {
                for change in newest.iter().rev().filter(|t| t.version > seen) {
                    show.change(change)?;
                }
                seen = newest.first().map_or(seen, |t| t.version.max(seen));
                if !was_read {
                    eprintln!("infra: the ledger answers again");
                }
                was_read = true;
            }
            Err(e) if was_read => {
                eprintln!("infra: {e}; bots that cannot read it either let only exits pass; trying again");
                was_read = false;
            }
            Err(_) => {}
        }
    }
}

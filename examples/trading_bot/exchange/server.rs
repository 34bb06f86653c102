//! The exchange's process: one connection after the other, so that a new session starts only when the old one's last
//! request was read to its end.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    protocol::{Answer, Call, Reply, Request},
    venue::{Transport, Venue},
};

/// Hidden arguments: the bot starts this, a person does not.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// The exchange's own file.
    #[arg(long)]
    pub journal: PathBuf,
    /// Where to write the address that it listens on.
    #[arg(long)]
    pub address_file: PathBuf,
    /// Decides every fault.
    #[arg(long)]
    pub seed: u64,
    /// Ends itself when nobody was connected for so long.
    #[arg(long, default_value_t = 30)]
    pub idle_s: u64,
    /// Removes this folder when it ends (for runs that keep nothing).
    #[arg(long)]
    pub remove_dir: Option<PathBuf>,
}

/// Serves until it is told to end or nobody comes any more.
pub(crate) fn run(args: &ServerArgs) -> Result<(), String> {
    let mut venue = Venue::open(&args.journal, args.seed)?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("exchange: cannot listen: {e}"))?;
    let address = listener.local_addr().map_err(|e| format!("exchange: no address: {e}"))?;
    let fresh = args.address_file.with_extension("tmp");
    std::fs::write(&fresh, address.to_string())
        .and_then(|()| std::fs::rename(&fresh, &args.address_file))
        .map_err(|e| format!("exchange: cannot write {}: {e}", args.address_file.display()))?;

    let sessions = Arc::new(AtomicU64::new(1));
    watch_idleness(args, &sessions);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        sessions.fetch_add(1, Ordering::SeqCst);
        // A session that breaks is the bot's death or its good-bye; the books are on file either way.
        let ended = serve(&mut venue, &args.journal, &stream).unwrap_or(false);
        if ended {
            break;
        }
        sessions.fetch_add(1, Ordering::SeqCst);
    }
    leave(args);
    Ok(())
}

fn leave(args: &ServerArgs) {
    let _ = std::fs::remove_file(&args.address_file);
    if let Some(dir) = &args.remove_dir {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// `sessions` is odd while nobody is connected; the process ends when that stays so.
fn watch_idleness(args: &ServerArgs, sessions: &Arc<AtomicU64>) {
    let (args, sessions) = (args.clone(), Arc::clone(sessions));
    std::thread::spawn(move || {
        loop {
            let before = sessions.load(Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(args.idle_s.max(1)));
            if before % 2 == 1 && sessions.load(Ordering::SeqCst) == before {
                leave(&args);
                std::process::exit(0);
            }
        }
    });
}

/// Answers one connection; whether the bot asked the process to end.
fn serve(venue: &mut Venue, journal: &Path, stream: &TcpStream) -> Result<bool, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    stream.set_nodelay(true).map_err(|e| text(&e))?;
    let mut writer = stream.try_clone().map_err(|e| text(&e))?;
    let mut ending = false;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| text(&e))?;
        let request: Request = serde_json::from_str(&line).map_err(|e| text(&e))?;
        let answer = match request.call {
            Call::Place(order) => match venue.place(order)? {
                (Transport::DropRequest | Transport::DropReply, _) => None,
                (Transport::Late(ms), answer) => {
                    std::thread::sleep(Duration::from_millis(ms));
                    answer
                }
                (_, answer) => answer,
            },
            Call::Cancel { order, at } => Some(venue.cancel(order, at)?),
            Call::Query { order, at } => Some(venue.query(&order, at)),
            Call::Executions { after, at } => Some(venue.executions(after, at)),
            Call::Hello => Some(Answer::Hello { journal: journal.to_owned(), seed: venue.seed() }),
            Call::Stats => Some(Answer::Stats(venue.stats())),
            Call::Shutdown => {
                ending = true;
                Some(Answer::Bye)
            }
        };
        if let Some(answer) = answer {
            let mut bytes = serde_json::to_vec(&Reply { id: request.id, answer }).map_err(|e| text(&e))?;
            bytes.push(b'\n');
            writer.write_all(&bytes).map_err(|e| text(&e))?;
        }
        if ending {
            break;
        }
    }
    Ok(ending)
}

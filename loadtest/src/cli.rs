//! The program's commands.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::overload::Overload;
use crate::population::{Keywright, Size};
use crate::run::Run;
use crate::{overload, run};
use clap::{Args, Parser};

/// Load tests before a release.
#[derive(Parser)]
#[command(name = "keywright-loadtest")]
enum Command {
    // A script's own choices come first, and its caller's replace them.
    #[command(args_override_self = true)]
    Run(Box<Run>),
    Prepare(Prepare),
    Overload(Overload),
}

/// Makes who loads a service, by `keywright` itself: locks before the server is started for the first time, credentials
/// beside one whose sandbox is on.
#[derive(Args)]
struct Prepare {
    /// The program.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The server's folder of data.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The database, where locks are kept in one.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Make locks, and nothing else.
    #[arg(long, conflicts_with = "population")]
    locks_only: bool,
    /// Make credentials, and write who loads the service here.
    #[arg(long, value_name = "FILE", required_unless_present = "locks_only")]
    population: Option<PathBuf>,
    #[command(flatten)]
    size: Size,
}

impl Prepare {
    fn run(&self) -> Result<bool, String> {
        let keywright = Keywright {
            binary: &self.binary,
            data: &self.data,
            store: self.store.as_deref(),
        };
        match &self.population {
            None => {
                let mut folder = std::fs::DirBuilder::new();
                let made = folder.recursive(true).mode(0o700).create(&self.data);
                made.map_err(|e| format!("{}: {e}", self.data.display()))?;
                keywright.add_locks(self.size)?;
            }
            Some(path) => keywright.make_credentials(self.size)?.write(path)?,
        }
        Ok(true)
    }
}

/// The whole program: 0 if what was measured kept to its limits, 1 if not, 2 if nothing could be measured.
#[tokio::main]
pub async fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Run(run) => run::run(&run).await,
        Command::Prepare(prepare) => prepare.run(),
        Command::Overload(overload) => overload::run(&overload).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("keywright-loadtest: {why}");
            ExitCode::from(2)
        }
    }
}

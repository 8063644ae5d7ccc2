//! The commands of the program.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::Error;
use crate::overload::Overload;
use crate::population::{Keywright, Size};
use crate::run::Run;
use crate::{overload, run};
use clap::{Args, Parser};

/// Load tests before a release.
#[derive(Parser)]
#[command(name = "keywright-loadtest")]
enum Command {
    // Later options override earlier ones, so that callers of a script can override its options.
    #[command(args_override_self = true)]
    Run(Box<Run>),
    Prepare(Prepare),
    Overload(Overload),
}

/// Creates the population for a load test by calling `keywright`: locks before the server is started for the first time, or
/// credentials beside a running server with a sandbox.
#[derive(Args)]
struct Prepare {
    /// The program `keywright`.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The server's data folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The server's database, if its locks are in PostgreSQL.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Create only locks.
    #[arg(long, conflicts_with = "population")]
    locks_only: bool,
    /// Create credentials, and write the population to this file.
    #[arg(long, value_name = "FILE", required_unless_present = "locks_only")]
    population: Option<PathBuf>,
    #[command(flatten)]
    size: Size,
}

impl Prepare {
    fn run(&self) -> Result<bool, Error> {
        let keywright = Keywright {
            binary: &self.binary,
            data: &self.data,
            store: self.store.as_deref(),
        };
        match &self.population {
            None => {
                let mut folder = std::fs::DirBuilder::new();
                let created = folder.recursive(true).mode(0o700).create(&self.data);
                created.map_err(Error::file(&self.data))?;
                keywright.add_locks(self.size)?;
            }
            Some(path) => keywright.make_credentials(self.size)?.write(path)?,
        }
        Ok(true)
    }
}

/// Runs the program. The exit code is 0 if all limits hold, 1 if not, and 2 if nothing could be measured.
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

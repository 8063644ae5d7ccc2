//! Load tests of a running Keywright, over HTTP like any client.
//!
//! What to test is in the environment, as the sandbox's `sandbox.env` has it: `KEYWRIGHT_URL` and
//! `KEYWRIGHT_API_KEY`, and `KEYWRIGHT_LOADTEST_LOCKS`, which is one lock or a span such as `1001-1040`. The
//! arguments are Goose's: `--users 8 --run-time 10s`. The exit code is 1 where any request failed.

mod overload;
mod target;
mod write_until_confirmed;

use std::process::ExitCode;

use clap::Parser;
use goose::prelude::*;

use overload::Overload;
use target::Target;

/// What this program does besides a load test of a running server.
#[derive(Parser)]
#[command(name = "keywright-loadtest")]
enum Command {
    Overload(Overload),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("overload") {
        let Command::Overload(overload) = Command::parse();
        return match overload::run(&overload).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(why) => {
                eprintln!("keywright-loadtest: {why}");
                ExitCode::from(2)
            }
        };
    }
    let target = match Target::from_environment() {
        Ok(target) => target,
        Err(why) => {
            eprintln!("keywright-loadtest: {why}");
            return ExitCode::from(2);
        }
    };
    match attack(&target).await {
        Ok(metrics) => verdict(&metrics),
        Err(error) => {
            eprintln!("keywright-loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
async fn attack(target: &Target) -> Result<GooseMetrics, GooseError> {
    GooseAttack::initialize()?
        .set_default(GooseDefault::Host, target.url.as_str())?
        // Nobody steers it while it runs.
        .set_default(GooseDefault::NoTelnet, true)?
        .register_scenario(write_until_confirmed::scenario())
        .execute()
        .await
}

/// Goose itself ends with 0 also when everything failed.
fn verdict(metrics: &GooseMetrics) -> ExitCode {
    let requests = metrics.requests.values();
    let (good, failed) = requests.fold((0, 0), |(good, failed), r| {
        (good + r.success_count, failed + r.fail_count)
    });
    let unconfirmed: usize = metrics
        .transactions
        .iter()
        .flatten()
        .map(|t| t.fail_count)
        .sum();
    println!(
        "{good} requests succeeded, {failed} failed; {unconfirmed} writes were not confirmed in time"
    );
    if good > 0 && failed == 0 && unconfirmed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

//! `keywright sandbox`: a shadow service with virtual locks.

use std::any::Any;
use std::path::{Path, PathBuf};

use clap::Args;
use keywright_sandbox::{Demo, Shadows};
use keywright_shadow::{ShadowName, ShadowService};

use super::shadow::{self, FrontArgs};
use crate::bootstrap::sandbox::start_virtual_locks;
use crate::settings::shadow_options::SHADOW_NAME;
use crate::settings::values;
use crate::settings::{BehaviourOption, Behaviours};

#[derive(Args)]
pub(crate) struct SandboxCommand {
    #[command(flatten)]
    fronts: FrontArgs,
    /// The folder of the shadows and the memories of virtual locks. It is created if it is missing.
    #[arg(long, value_name = "DIR", default_value = "./keywright-sandbox")]
    data: PathBuf,
    /// How many locks there are in addition to 123 and 124: 1001, 1002, … Their things are demo-lock-123 and so on. A shadow of
    /// another thing gets a virtual lock with the first request for it.
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::count)]
    locks: u64,
    /// How one lock behaves, or all of them, as for `keywright serve`: 123:offline=5s or all:latency=50ms,twice.
    #[arg(long, value_name = "LOCK:LIST", value_parser = values::behaviour)]
    behaviour: Vec<BehaviourOption>,
    /// The named shadow from which the locks receive keys.
    #[arg(long, value_name = "NAME", default_value = SHADOW_NAME, value_parser = values::shadow_name)]
    shadow_name: String,
}

/// # Errors
/// The options are invalid, or the service fails.
pub(crate) fn run(command: SandboxCommand) -> anyhow::Result<()> {
    let demo = Demo {
        more_locks: command.locks,
    };
    let behaviours = Behaviours::new(command.behaviour, demo)?;
    let name = ShadowName::Named(command.shadow_name);
    let start = move |data: &Path, service: &ShadowService, broker| {
        // If there is a broker, the virtual locks reach their shadows over it, as real locks do.
        let shadows = match broker {
            Some(broker) => Shadows::Broker(broker, name),
            None => Shadows::InProcess(service.clone(), name),
        };
        let locks = start_virtual_locks(data, shadows, demo, &behaviours)?;
        Ok(Box::new(locks) as Box<dyn Any>)
    };
    shadow::serve(command.fronts, &command.data, Some(Box::new(start)))
}

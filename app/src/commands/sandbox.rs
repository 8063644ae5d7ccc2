//! `keywright sandbox`: shadows for others with virtual locks on them.

use std::any::Any;
use std::path::{Path, PathBuf};

use clap::Args;
use keywright_mqtt::Broker;
use keywright_sandbox::{Behaviour, Demo, Shadows, VirtualLocks};
use keywright_shadow::{ShadowName, ShadowService};

use super::shadow::{self, Fronts};
use crate::bootstrap::sandbox::VIRTUAL_LOCKS;
use crate::bootstrap::{Error, seconds};
use crate::cli;
use crate::settings::Behaviours;

/// Shadows with virtual locks on them.
#[derive(Args)]
pub(crate) struct SandboxCommand {
    #[command(flatten)]
    fronts: Fronts,
    /// Where shadows and the locks' memories are kept. Made where it is missing.
    #[arg(long, value_name = "DIR", default_value = "./keywright-sandbox")]
    data: PathBuf,
    /// How many locks there are besides 123 and 124: 1001, 1002, …; their things are demo-lock-123 and so on. A
    /// shadow of another thing gets a lock as soon as something is asked of it.
    #[arg(long, value_name = "N", default_value = "0", value_parser = cli::count)]
    locks: u64,
    /// How a lock behaves, or all of them, as for `keywright serve`: 123:offline=5s or all:latency=50ms,twice.
    #[arg(long, value_name = "LOCK:LIST", value_parser = cli::behaviour)]
    behaviour: Vec<(Option<u64>, Behaviour)>,
    /// The named shadow that the locks look at.
    #[arg(long, value_name = "NAME", default_value = "keys", value_parser = cli::shadow_name)]
    shadow_name: String,
}

impl SandboxCommand {
    /// # Errors
    /// It says not enough, or what does not go together.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.fronts.check()
    }
}

pub(crate) fn run(command: SandboxCommand) -> Result<(), Error> {
    let demo = Demo {
        more_locks: command.locks,
    };
    let locks = Locks {
        demo,
        behaviour: Behaviours::new(command.behaviour, demo)?,
        shadow_name: command.shadow_name,
    };
    let start = |data: &Path, service: &ShadowService, broker| {
        let locks = locks.start(data, service, broker)?;
        Ok(Box::new(locks) as Box<dyn Any>)
    };
    shadow::run(command.fronts, command.data, Some(Box::new(start)))
}

struct Locks {
    demo: Demo,
    behaviour: Behaviours,
    shadow_name: String,
}

impl Locks {
    /// Where there is a broker, they reach their shadows over it, as locks do.
    fn start(
        self,
        data: &Path,
        service: &ShadowService,
        broker: Option<Broker>,
    ) -> Result<VirtualLocks, Error> {
        let name = ShadowName::Named(self.shadow_name);
        let shadows = match broker {
            Some(broker) => Shadows::Broker(broker, name),
            None => Shadows::InProcess(service.clone(), name),
        };
        let others = Some(self.behaviour.of_others().clone());
        let file = data.join(VIRTUAL_LOCKS);
        let mut locks = VirtualLocks::open(&file, shadows, seconds(), others)?;
        for lock in self.demo.locks() {
            locks.add(&lock.thing, self.behaviour.of(lock.id).clone());
        }
        Ok(locks)
    }
}

//! The settings of the sandbox.

use clap::Args;
use keywright_adapters::decorator::FaultPlan;
use keywright_sandbox::{Behaviour, Demo};

use super::values::{Switch, behaviour, count};
use crate::settings::{Behaviours, SandboxSettings};

const HEADING: &str = "Sandbox";

#[derive(Args)]
pub(super) struct SandboxArgs {
    /// Whether virtual locks are there to answer, where the shadows are in this process. Elsewhere
    /// `keywright sandbox` runs them [default: on].
    #[arg(long, value_enum, help_heading = HEADING)]
    virtual_locks: Option<Switch>,
    /// How many locks the demo world has besides 123 and 124: 1001, 1002, … [default: 0].
    #[arg(long, value_name = "N", value_parser = count, help_heading = HEADING)]
    locks: Option<u64>,
    /// How a virtual lock behaves, or all of them: 123:offline=5s or all:latency=50ms,twice. What is said of one
    /// lock replaces what is said of all. Known are latency=TIME (300ms unless said otherwise),
    /// offline=TIME and offline=always, capacity=N, fail=REASON, twice (it sends each report twice), silent
    /// (it never reports), card=TIME (it needs a card, which somebody presents so much later) and card=never; and for a
    /// while, counted from the first write that any lock finds, offline@10s-20s or any other as latency=2s@10s-20s.
    #[arg(long, value_name = "LOCK:LIST", value_parser = behaviour, help_heading = HEADING)]
    behaviour: Vec<(Option<u64>, Behaviour)>,
    /// What goes wrong, by the count of the calls or by chance: put@1=refuse,read@2-=lose,update~0.1=delay:200ms,
    /// seed=7. Calls of the shadows are put (an update with a key), update (any) and read, those of the store
    /// save and load. Faults are delay:TIME, not-sent, refuse, drop-answer (it is done, nobody is told), lose (it
    /// is not done, nobody is told), late:TIME (it arrives so much later, nobody is told) and pass.
    #[arg(long, value_name = "PLAN", help_heading = HEADING)]
    faults: Option<FaultPlan>,
}

impl SandboxArgs {
    /// `is_on`: whether there is a sandbox; `here`: whether the shadows are in this process.
    ///
    /// # Errors
    /// Something is set that has no effect with the other settings; the text names both.
    pub(super) fn choose(self, is_on: bool, here: bool) -> Result<Option<SandboxSettings>, String> {
        if !is_on {
            return self.refuse_without_sandbox();
        }
        if self.virtual_locks == Some(Switch::On) && !here {
            return Err("--virtual-locks on needs shadows in this process: --shadow memory".into());
        }
        if !here && !self.behaviour.is_empty() {
            return Err(
                "--behaviour is about locks on shadows in this process; for others run `keywright sandbox`"
                    .into(),
            );
        }
        let more_locks = self.locks.unwrap_or_default();
        Ok(Some(SandboxSettings {
            virtual_locks: here && self.virtual_locks.is_none_or(Switch::is_on),
            more_locks,
            behaviours: Behaviours::new(self.behaviour, Demo { more_locks })?,
            faults: self.faults.unwrap_or_default(),
        }))
    }

    /// A setting that is for trials must not reach production by being forgotten.
    fn refuse_without_sandbox(self) -> Result<Option<SandboxSettings>, String> {
        let set = [
            ("--faults", self.faults.is_some()),
            ("--behaviour", !self.behaviour.is_empty()),
            ("--locks", self.locks.is_some()),
            ("--virtual-locks", self.virtual_locks.is_some()),
        ];
        match set.iter().find(|(_, is_set)| *is_set) {
            None => Ok(None),
            Some((name, _)) => Err(format!(
                "{name} is about the sandbox, and --sandbox is off: leave out {name}, or set --sandbox on"
            )),
        }
    }
}

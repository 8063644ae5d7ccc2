//! Options of the sandbox.

use anyhow::bail;
use clap::Args;
use keywright_adapters::decorator::FaultPlan;
use keywright_sandbox::Demo;

use super::values::{Switch, behaviour, count};
use crate::settings::{BehaviourOption, Behaviours, SandboxSettings};

#[derive(Args)]
#[command(next_help_heading = "Sandbox")]
pub(super) struct SandboxArgs {
    /// Whether virtual locks execute the writes. They need shadows in this process; for shadows elsewhere,
    /// `keywright sandbox` runs them [default: on].
    #[arg(long, value_enum)]
    virtual_locks: Option<Switch>,
    /// How many demo locks there are in addition to 123 and 124: 1001, 1002, … [default: 0].
    #[arg(long, value_name = "N", value_parser = count)]
    locks: Option<u64>,
    /// How one virtual lock behaves, or all of them: 123:offline=5s or all:latency=50ms,twice. The list of a single lock
    /// replaces the list of all. Behaviours are latency=TIME (300ms unless set), offline=TIME, offline=always, capacity=N,
    /// fail=REASON, twice (it sends each report twice), silent (it never reports), card=TIME (it waits this long for a card)
    /// and card=never. A behaviour may be limited to a period, counted from the first write that any lock receives:
    /// offline@10s-20s or latency=2s@10s-20s.
    #[arg(long, value_name = "LOCK:LIST", value_parser = behaviour)]
    behaviour: Vec<BehaviourOption>,
    /// Faults to inject, by the number of the call or at random: put@1=refuse,read@2-=lose,update~0.1=delay:200ms,seed=7.
    /// Calls to shadows are put (an update with a key), update (any update) and read; calls to the store are save and load.
    /// Faults are delay:TIME, not-sent, refuse, drop-answer (executed, but the answer is lost), lose (not executed, and no
    /// answer), late:TIME (executed after this time, and no answer) and pass.
    #[arg(long, value_name = "PLAN")]
    faults: Option<FaultPlan>,
}

impl SandboxArgs {
    /// `is_on`: whether the sandbox is on. `in_process`: whether the shadows are in this process.
    ///
    /// # Errors
    /// An option has no effect together with the others; the text names both.
    pub(super) fn choose(
        self,
        is_on: bool,
        in_process: bool,
    ) -> anyhow::Result<Option<SandboxSettings>> {
        if !is_on {
            self.refuse_without_sandbox()?;
            return Ok(None);
        }
        if self.virtual_locks == Some(Switch::On) && !in_process {
            bail!("--virtual-locks on needs shadows in this process: --shadow memory");
        }
        if !in_process && !self.behaviour.is_empty() {
            bail!(
                "--behaviour is for virtual locks on shadows in this process; for shadows elsewhere run `keywright sandbox`"
            );
        }
        let demo = Demo {
            more_locks: self.locks.unwrap_or_default(),
        };
        Ok(Some(SandboxSettings {
            virtual_locks: in_process && self.virtual_locks.is_none_or(Switch::is_on),
            demo,
            behaviours: Behaviours::new(self.behaviour, demo)?,
            faults: self.faults.unwrap_or_default(),
        }))
    }

    /// Refuses options of trial runs that were left in the settings of a production server.
    fn refuse_without_sandbox(&self) -> anyhow::Result<()> {
        let options = [
            ("--faults", self.faults.is_some()),
            ("--behaviour", !self.behaviour.is_empty()),
            ("--locks", self.locks.is_some()),
            ("--virtual-locks", self.virtual_locks.is_some()),
        ];
        match options.iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some((name, _)) => bail!(
                "{name} is for the sandbox, and --sandbox is off: leave out {name}, or set --sandbox on"
            ),
        }
    }
}

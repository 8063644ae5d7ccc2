use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::behaviour::{Behaviour, Card, Offline};
use crate::context::Context;
use crate::device_contract::{self, Entry, Outcome};
use crate::lock_error::LockError;
use crate::lock_memory::{LockMemory, Task};

/// How long a lock waits after the shadow service or the memory file failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How many executed writes a silent lock remembers.
const MAX_UNREPORTED: usize = 64;

pub(crate) struct VirtualLock {
    thing: String,
    behaviour: Behaviour,
    context: Context,
    /// The ids of the writes that a silent lock has executed, oldest first.
    unreported: Vec<String>,
}

impl VirtualLock {
    pub(crate) fn new(thing: &str, behaviour: Behaviour, context: Context) -> Self {
        Self {
            thing: thing.to_owned(),
            behaviour,
            context,
            unreported: Vec::new(),
        }
    }

    /// Executes the writes on the shadow, now and whenever the lock is woken.
    pub(crate) async fn run(mut self, waker: Arc<Notify>) {
        match self.behaviour.offline {
            Offline::Never => {}
            Offline::For(duration) => {
                self.stay_offline(duration).await;
                info!(thing = self.thing, "virtual lock is online");
            }
            Offline::Always => {
                info!(thing = self.thing, "virtual lock is offline");
                return;
            }
        }
        loop {
            self.wait_until_online().await;
            match self.step().await {
                Ok(true) => {}
                Ok(false) => waker.notified().await,
                Err(error) => {
                    warn!(thing = self.thing, %error, "virtual lock tries again");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// How much longer the script keeps the lock offline.
    fn remaining_offline(&self) -> Duration {
        let elapsed = self.context.script_time();
        elapsed.map_or(Duration::ZERO, |elapsed| {
            self.behaviour.remaining_offline(elapsed)
        })
    }

    async fn wait_until_online(&self) {
        loop {
            let remaining = self.remaining_offline();
            if remaining.is_zero() {
                return;
            }
            self.stay_offline(remaining).await;
        }
    }

    async fn stay_offline(&self, duration: Duration) {
        info!(
            thing = self.thing,
            "virtual lock is offline for {duration:?}"
        );
        tokio::time::sleep(duration).await;
    }

    /// Executes the next task. `false`: there is none.
    async fn step(&mut self) -> Result<bool, LockError> {
        let Some(task) = self.next_task().await? else {
            return Ok(false);
        };
        self.context.start_scripts();
        if self.remaining_offline().is_zero() {
            self.run_task(task).await?;
        }
        Ok(true)
    }

    /// The shadow is read before each write, so that an entry that was removed in the meantime is not executed.
    async fn next_task(&self) -> Result<Option<Task>, LockError> {
        let desired = self.context.link.desired(&self.thing).await?;
        let entries = device_contract::parse_entries(&desired);
        let now = (self.context.clock)();
        Ok(self.context.with_memory(&self.thing, |memory| {
            memory.next(&entries, &self.unreported, now)
        }))
    }

    async fn run_task(&mut self, task: Task) -> Result<(), LockError> {
        let elapsed = self.context.script_time().unwrap_or_default();
        let behaviour = self.behaviour.at(elapsed).into_owned();
        let (id, outcome) = match task {
            Task::ReportAgain(id, outcome) => (id, outcome),
            Task::Execute(entry) => {
                self.wait_for_write(&entry, &behaviour).await?;
                let outcome = self.settle(&entry, &behaviour).await?;
                (entry.id, outcome)
            }
        };
        if behaviour.silent {
            if self.unreported.len() >= MAX_UNREPORTED {
                self.unreported.remove(0);
            }
            self.unreported.push(id);
            return Ok(());
        }
        let report = device_contract::result_report(&id, &outcome);
        self.report(&report).await?;
        if behaviour.twice {
            info!(
                thing = self.thing,
                write = id,
                "virtual lock reports it again"
            );
            self.report(&report).await?;
        }
        Ok(())
    }

    /// Waits for as long as the write takes, or for the card.
    async fn wait_for_write(&self, entry: &Entry, behaviour: &Behaviour) -> Result<(), LockError> {
        if behaviour.card != Card::NotNeeded && !behaviour.silent {
            let report = device_contract::in_progress_report(&entry.id);
            self.report(&report).await?;
        }
        let duration = match behaviour.card {
            Card::After(duration) => duration,
            Card::NotNeeded | Card::Never => behaviour.latency,
        };
        tokio::time::sleep(duration).await;
        Ok(())
    }

    /// Saves the outcome before it is reported, so that a lock that stops in between does not execute the write again.
    async fn settle(&self, entry: &Entry, behaviour: &Behaviour) -> Result<Outcome, LockError> {
        let mut memory = self.context.with_memory(&self.thing, LockMemory::clone);
        let outcome = memory.settle(entry, behaviour);
        let (write, held) = (&entry.id, memory.keys.len());
        self.context.save(&self.thing, memory).await?;
        match &outcome {
            Outcome::Succeeded {
                key_index_number: slot,
            } => info!(
                thing = self.thing,
                write, slot, held, "virtual lock has the key"
            ),
            Outcome::Failed { reason } => {
                info!(thing = self.thing, write, reason, "virtual lock refuses");
            }
        }
        Ok(outcome)
    }

    async fn report(&self, body: &Value) -> Result<(), LockError> {
        self.wait_until_online().await;
        self.context.link.update(&self.thing, body).await
    }
}

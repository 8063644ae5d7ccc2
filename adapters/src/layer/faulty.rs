//! A shadow that misbehaves on purpose, for tests and for trying out what a failure looks like.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use keywright_domain::ports::{ShadowChange, ShadowError, ShadowPort, ShadowSnapshot};
use keywright_domain::reason::FailureReason;
use keywright_domain::values::{ClientToken, ShadowVersion, ThingName};

/// What is done to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Pass,
    /// The request never leaves.
    NotSent,
    /// The shadow refuses it, as throttled.
    Refuse,
    /// It is done, and the answer is lost.
    DropAnswer,
    /// It is lost on the way; the caller cannot know.
    LoseRequest,
    /// It stays on the way until [`FaultyShadow::release`]; the caller gets no answer.
    Withhold,
}

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `update`.
    Update,
    /// `read`.
    Read,
}

/// The faults of the calls to come, in their order; after the last one, none.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    updates: VecDeque<Fault>,
    reads: VecDeque<Fault>,
}

impl FaultPlan {
    /// The next calls of `operation` fare so.
    #[must_use]
    pub fn then(mut self, operation: Operation, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.queue(operation).extend(faults);
        self
    }

    fn queue(&mut self, operation: Operation) -> &mut VecDeque<Fault> {
        match operation {
            Operation::Update => &mut self.updates,
            Operation::Read => &mut self.reads,
        }
    }
}

/// Puts faults between a caller and a shadow. Clones share one plan.
#[derive(Clone)]
pub struct FaultyShadow {
    inner: Arc<dyn ShadowPort>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    plan: FaultPlan,
    withheld: Vec<(ThingName, ShadowChange)>,
}

impl FaultyShadow {
    /// Passes everything through until a plan is set.
    pub fn new(inner: Arc<dyn ShadowPort>) -> Self {
        Self {
            inner,
            state: Arc::default(),
        }
    }

    /// What happens to the calls from now on.
    pub fn set(&self, plan: FaultPlan) {
        self.with(|state| state.plan = plan);
    }

    /// Delivers the updates that were withheld, in their order, and answers what came of each.
    pub async fn release(&self) -> Vec<Result<ShadowVersion, ShadowError>> {
        let withheld = self.with(|state| std::mem::take(&mut state.withheld));
        let mut outcomes = Vec::with_capacity(withheld.len());
        for (thing, change) in withheld {
            outcomes.push(self.inner.update(&thing, change).await);
        }
        outcomes
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn next(&self, operation: Operation) -> Fault {
        self.with(|state| state.plan.queue(operation).pop_front())
            .unwrap_or(Fault::Pass)
    }
}

fn lost() -> ShadowError {
    ShadowError::Unknown("injected: the answer is lost".into())
}

/// The error of a fault that keeps a request from the shadow.
fn kept_away(fault: Fault) -> ShadowError {
    let detail = "injected".to_owned();
    match fault {
        Fault::NotSent => ShadowError::NotApplied {
            reason: FailureReason::Unavailable,
            detail,
        },
        Fault::Refuse => ShadowError::Refused {
            reason: FailureReason::Throttled,
            detail,
        },
        _ => lost(),
    }
}

#[async_trait]
impl ShadowPort for FaultyShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        match self.next(Operation::Update) {
            Fault::Pass => self.inner.update(thing, change).await,
            Fault::DropAnswer => {
                self.inner.update(thing, change).await?;
                Err(lost())
            }
            fault => {
                if fault == Fault::Withhold {
                    self.with(|state| state.withheld.push((thing.clone(), change)));
                }
                Err(kept_away(fault))
            }
        }
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        match self.next(Operation::Read) {
            Fault::Pass => self.inner.read(thing, token).await,
            fault => Err(kept_away(fault)),
        }
    }
}

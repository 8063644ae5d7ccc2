//! Injects faults into the calls of a shadow, for tests and for trying out failures in the sandbox.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use keywright_domain::model::{
    ClientToken, FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName,
};
use keywright_domain::ports::{ShadowError, ShadowPort};

use super::faults::{Fault, FaultInjector, FaultPlan, Operation};

/// A shadow whose calls have the faults of a plan. Clones share the plan and the withheld updates.
#[derive(Clone)]
pub struct FaultyShadow {
    inner: Arc<dyn ShadowPort>,
    faults: FaultInjector,
    withheld: Arc<Mutex<Vec<(ThingName, ShadowChange)>>>,
}

impl FaultyShadow {
    /// Passes all calls until a plan is set.
    pub fn new(inner: Arc<dyn ShadowPort>) -> Self {
        Self::with(inner, FaultInjector::default())
    }

    /// Injects these faults.
    pub fn with(inner: Arc<dyn ShadowPort>, faults: FaultInjector) -> Self {
        Self {
            inner,
            faults,
            withheld: Arc::default(),
        }
    }

    /// Follows another plan from its start.
    pub fn set(&self, plan: FaultPlan) {
        self.faults.set(plan);
    }

    /// Makes the withheld updates in their order and returns their results.
    pub async fn release(&self) -> Vec<Result<ShadowVersion, ShadowError>> {
        let withheld = std::mem::take(&mut *self.withheld());
        let mut outcomes = Vec::with_capacity(withheld.len());
        for (thing, change) in withheld {
            outcomes.push(self.inner.update(&thing, change).await);
        }
        outcomes
    }

    fn withheld(&self) -> MutexGuard<'_, Vec<(ThingName, ShadowChange)>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost() -> ShadowError {
    ShadowError::Unknown("injected: the answer is lost".into())
}

fn not_sent() -> ShadowError {
    ShadowError::NotApplied {
        reason: FailureReason::Unavailable,
        detail: "injected".into(),
    }
}

fn refused() -> ShadowError {
    ShadowError::Refused {
        reason: FailureReason::Throttled,
        detail: "injected".into(),
    }
}

#[async_trait]
impl ShadowPort for FaultyShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let operations = match change.put {
            Some(_) => &[Operation::Put, Operation::Update][..],
            None => &[Operation::Update],
        };
        match self.faults.next(operations).await {
            Fault::Pass | Fault::Delay(_) => self.inner.update(thing, change).await,
            Fault::DropAnswer => {
                self.inner.update(thing, change).await?;
                Err(lost())
            }
            Fault::Withhold => {
                self.withheld().push((thing.clone(), change));
                Err(lost())
            }
            Fault::Late(span) => {
                let (inner, thing) = (self.inner.clone(), thing.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(span).await;
                    let outcome = inner.update(&thing, change).await;
                    match outcome {
                        Ok(version) => {
                            tracing::info!(%thing, %version, "a delayed update was accepted");
                        }
                        Err(error) => {
                            tracing::info!(%thing, %error, "a delayed update was refused");
                        }
                    }
                });
                Err(lost())
            }
            Fault::NotSent => Err(not_sent()),
            Fault::Refuse => Err(refused()),
            Fault::LoseRequest => Err(lost()),
        }
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        match self.faults.next(&[Operation::Read]).await {
            Fault::Pass | Fault::Delay(_) => self.inner.read(thing, token).await,
            Fault::NotSent => Err(not_sent()),
            Fault::Refuse => Err(refused()),
            Fault::DropAnswer | Fault::LoseRequest | Fault::Withhold | Fault::Late(_) => {
                Err(lost())
            }
        }
    }
}

//! The in-memory adapter behind faults fulfils the contract of `ShadowPort`, and for each case a broken adapter fails this case and
//! no other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::decorator::FaultyShadow;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_domain::model::*;
use keywright_domain::ports::*;
use keywright_shadow::ShadowName;
use keywright_testkit::faulty_transport::{
    ANSWER_TIMEOUT, FaultyShadows, Transport, TransportFault,
};
use keywright_testkit::faulty_transport_cases;
use keywright_testkit::shadow_port::Device;

struct Locks(InMemoryShadow);

#[async_trait]
impl Device for Locks {
    async fn report(&self, thing: &ThingName, document: &str) {
        let name = ShadowName::Named(InMemoryShadow::DEFAULT_NAME.into());
        let service = self.0.service();
        let accepted = service
            .update(thing.as_str(), &name, document.as_bytes())
            .await;
        accepted.expect("a report");
    }
}

/// Faults of the in-memory adapter. There a late answer is lost, and answers cannot be reordered.
struct Faults(FaultyShadow);

#[async_trait]
impl Transport for Faults {
    async fn set(&self, fault: TransportFault) {
        let plan = match fault {
            TransportFault::AnswersLate(span) if span <= ANSWER_TIMEOUT => {
                format!("update~1=delay:{}ms", span.as_millis())
            }
            TransportFault::AnswersLost
            | TransportFault::AnswersLate(_)
            | TransportFault::Disconnect => "update~1=drop-answer".into(),
            TransportFault::Throttled => "update~1=refuse".into(),
            TransportFault::None | TransportFault::AnswersReordered => String::new(),
        };
        self.0.set(plan.parse().expect("a plan"));
    }

    async fn pause(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

type Fresh = (Arc<dyn ShadowPort>, Arc<Locks>, Arc<Faults>);

async fn fixture() -> Fresh {
    let shadow = InMemoryShadow::of_this_process();
    let faulty = FaultyShadow::new(Arc::new(shadow.clone()));
    (
        Arc::new(faulty.clone()),
        Arc::new(Locks(shadow)),
        Arc::new(Faults(faulty)),
    )
}

faulty_transport_cases!(fixture);

/// An adapter that violates the contract only in what the named case checks, during the fault of that case.
struct Broken {
    case: &'static str,
    inner: Arc<dyn ShadowPort>,
    fault: Arc<Mutex<TransportFault>>,
    last_version: Mutex<Option<ShadowVersion>>,
    disconnected: AtomicBool,
}

/// Faults of which the broken adapter is notified, too.
struct SharedFaults(Faults, Arc<Mutex<TransportFault>>);

#[async_trait]
impl Transport for SharedFaults {
    async fn set(&self, fault: TransportFault) {
        *self.1.lock().expect("no panic") = fault;
        self.0.set(fault).await;
    }

    async fn pause(&self, span: Duration) {
        self.0.pause(span).await;
    }
}

#[async_trait]
impl ShadowPort for Broken {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let expected = change.expected;
        let answer = self.inner.update(thing, change).await;
        let fault = *self.fault.lock().expect("no panic");
        match (self.case, fault) {
            ("lost_answer_is_unknown", TransportFault::AnswersLost) => {
                answer.map_err(|_| ShadowError::Conflict)
            }
            // This is the answer to the request before.
            ("late_answer_is_not_taken_for_another_request", TransportFault::AnswersLate(_)) => {
                answer.map(|own| expected.unwrap_or(own))
            }
            ("reordered_answers_reach_their_requests", TransportFault::AnswersReordered) => {
                let mut last = self.last_version.lock().expect("no panic");
                let other = std::mem::replace(&mut *last, answer.clone().ok());
                other.map_or(answer, Ok)
            }
            ("throttled_update_is_refused", TransportFault::Throttled) => {
                answer.map_err(|_| ShadowError::Conflict)
            }
            ("broken_connection_is_unknown_and_reestablished", TransportFault::Disconnect) => {
                self.disconnected.store(true, Ordering::Relaxed);
                answer
            }
            _ => answer,
        }
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        if self.disconnected.load(Ordering::Relaxed) {
            return Err(ShadowError::Unknown("the port never reconnects".into()));
        }
        self.inner.read(thing, token).await
    }
}

#[tokio::test(start_paused = true)]
async fn each_broken_adapter_fails_its_own_case_and_no_other() {
    for broken in FAULTY_TRANSPORT_CASES {
        for case in FAULTY_TRANSPORT_CASES {
            let (inner, device, faults) = fixture().await;
            let fault = Arc::new(Mutex::new(TransportFault::None));
            let transport = SharedFaults(Faults(faults.0.clone()), fault.clone());
            let port = Broken {
                case: broken,
                inner,
                fault,
                last_version: Mutex::default(),
                disconnected: AtomicBool::new(false),
            };
            let outcome = tokio::spawn(async move {
                let faulty = FaultyShadows {
                    port: &port,
                    device: &*device,
                    transport: &transport,
                };
                run_faulty_transport_case(case, &faulty).await;
            });
            assert_eq!(
                outcome.await.is_err(),
                broken == case,
                "adapter broken for {broken}, case {case}"
            );
        }
    }
}

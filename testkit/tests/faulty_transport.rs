//! The in-memory adapter behind faults fulfils the contract of `ShadowPort`, and for each case a broken adapter fails this case and
//! no other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_domain::model::*;
use keywright_domain::ports::*;
use keywright_shadow::ShadowName;
use keywright_testkit::faulty_transport::{
    ANSWER_TIMEOUT, CurrentFault, FaultyShadows, Transport, TransportFault,
};
use keywright_testkit::shadow_port::Device;
use serde_json::Value;

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

    async fn state(&self, thing: &ThingName) -> Value {
        let name = ShadowName::Named(InMemoryShadow::DEFAULT_NAME.into());
        let found = self.0.service().get(thing.as_str(), &name, b"").await;
        found.expect("a shadow").body()["state"].clone()
    }
}

/// The in-memory adapter behind a transport with faults. Its answers are never reordered: the broken adapter mixes them.
#[derive(Clone)]
struct Wire {
    shadow: InMemoryShadow,
    fault: CurrentFault,
}

impl Wire {
    async fn within_timeout<T>(
        &self,
        request: impl Future<Output = Result<T, ShadowError>>,
    ) -> Result<T, ShadowError> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.with_fault(request)).await;
        answer.unwrap_or_else(|_| Err(ShadowError::Unknown("there is no answer".into())))
    }

    async fn with_fault<T>(
        &self,
        request: impl Future<Output = Result<T, ShadowError>>,
    ) -> Result<T, ShadowError> {
        let refused = |reason| {
            let detail = "refused by the test".to_owned();
            Err(ShadowError::Refused { reason, detail })
        };
        let fault = self.fault.take();
        match fault {
            TransportFault::Throttled => return refused(FailureReason::Throttled),
            TransportFault::NotAuthorized(_) => return refused(FailureReason::NotAuthorized),
            TransportFault::ConnectionRefused => {
                return Err(ShadowError::NotApplied {
                    reason: FailureReason::Unavailable,
                    detail: "there is no connection".to_owned(),
                });
            }
            _ => {}
        }
        let answer = request.await;
        match fault {
            TransportFault::None | TransportFault::AnswersReordered => answer,
            TransportFault::AnswersLate(span) => {
                tokio::time::sleep(span).await;
                answer
            }
            TransportFault::AnswersLost => std::future::pending().await,
            fault => Err(ShadowError::Unknown(format!("{fault:?}"))),
        }
    }
}

#[async_trait]
impl ShadowPort for Wire {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        self.within_timeout(self.shadow.update(thing, change)).await
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        self.within_timeout(self.shadow.read(thing, token)).await
    }
}

#[async_trait]
impl Transport for Wire {
    async fn set(&self, fault: TransportFault) {
        self.fault.set(fault, false);
    }

    async fn set_for_next_request(&self, fault: TransportFault) {
        self.fault.set(fault, true);
    }

    async fn pause(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

type Fresh = (Arc<dyn ShadowPort>, Arc<Locks>, Arc<Wire>);

async fn fixture() -> Fresh {
    let wire = Wire {
        shadow: InMemoryShadow::of_this_process(),
        fault: CurrentFault::default(),
    };
    let (port, locks) = (Arc::new(wire.clone()), Locks(wire.shadow.clone()));
    (port, Arc::new(locks), Arc::new(wire))
}

mod contract {
    keywright_testkit::faulty_transport_cases!(super::fixture);
}

/// An adapter that violates the contract only in what the named case checks, during the fault of that case.
struct Broken {
    case: &'static str,
    inner: Arc<dyn ShadowPort>,
    wire: Arc<Wire>,
    last_version: Mutex<Option<ShadowVersion>>,
    disconnected: AtomicBool,
}

#[async_trait]
impl ShadowPort for Broken {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let expected = change.expected;
        let (fault, is_for_one_request) = self.wire.fault.get();
        let copy = change.clone();
        let answer = self.inner.update(thing, change).await;
        match (self.case, fault) {
            ("lost_answer_is_unknown", TransportFault::AnswersLost) if !is_for_one_request => {
                answer.map_err(|_| ShadowError::Conflict)
            }
            // The conflict of the copy is taken for the success of the first request.
            ("lost_update_is_not_sent_again", TransportFault::AnswersLost)
                if is_for_one_request =>
            {
                match self.inner.update(thing, copy).await {
                    Err(ShadowError::Conflict) => {
                        expected.map(|v| v.next()).ok_or(ShadowError::Conflict)
                    }
                    answer => answer,
                }
            }
            ("server_error_is_unknown", TransportFault::ServerError(_)) => {
                answer.map_err(|error| ShadowError::Refused {
                    reason: FailureReason::Unavailable,
                    detail: error.to_string(),
                })
            }
            ("torn_answer_is_unknown", TransportFault::AnswersTorn) => {
                expected.map(|v| v.next()).ok_or(ShadowError::Conflict)
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
            ("throttled_update_is_refused", TransportFault::Throttled)
            | ("update_without_a_connection_is_no_refusal", TransportFault::ConnectionRefused) => {
                answer.map_err(|_| ShadowError::Conflict)
            }
            ("forbidden_update_is_refused", TransportFault::NotAuthorized(_)) => {
                answer.map_err(|error| ShadowError::Unknown(error.to_string()))
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
        let found = self.inner.read(thing, token).await;
        let fault = self.wire.fault.get().0;
        match (self.case, found) {
            ("failed_read_is_an_error", Err(_))
                if !matches!(
                    fault,
                    TransportFault::ServerError(_) | TransportFault::NotAuthorized(_)
                ) =>
            {
                Ok(None)
            }
            (_, found) => found,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_broken_adapter_fails_its_own_case_and_no_other() {
    use contract::{FAULTY_TRANSPORT_CASES, run_faulty_transport_case};

    for broken in FAULTY_TRANSPORT_CASES {
        for case in FAULTY_TRANSPORT_CASES {
            let (inner, device, wire) = fixture().await;
            let port = Broken {
                case: broken,
                inner,
                wire: wire.clone(),
                last_version: Mutex::default(),
                disconnected: AtomicBool::new(false),
            };
            let outcome = tokio::spawn(async move {
                let faulty = FaultyShadows {
                    port: &port,
                    device: &*device,
                    transport: &*wire,
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

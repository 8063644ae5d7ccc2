//! A faulty memory shadow keeps the contract in trouble, and for each case there is a broken one that only it catches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::decorator::{Fault, FaultPlan, FaultyShadow, Operation, Timeout};
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

/// In memory an answer that is late comes to nobody, and none can overtake another.
struct Faults(FaultyShadow);

#[async_trait]
impl Transport for Faults {
    async fn set(&self, trouble: TransportFault) {
        let all = |fault| FaultPlan::default().at_random(Operation::Update, 1.0, fault, 1);
        self.0.set(match trouble {
            TransportFault::AnswersLost | TransportFault::Cut => all(Fault::DropAnswer),
            TransportFault::AnswersLate(span) if span > ANSWER_TIMEOUT => all(Fault::DropAnswer),
            TransportFault::AnswersLate(span) => all(Fault::Delay(span)),
            TransportFault::Throttled => all(Fault::Refuse),
            TransportFault::None | TransportFault::AnswersDisordered => FaultPlan::default(),
        });
    }

    async fn pause(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

type Fresh = (Arc<dyn ShadowPort>, Arc<Locks>, Arc<Faults>);

async fn fresh() -> Fresh {
    let shadow = InMemoryShadow::of_this_process();
    let faulty = FaultyShadow::new(Arc::new(shadow.clone()));
    let port: Arc<dyn ShadowPort> = Arc::new(faulty.clone());
    let port = Arc::new(Timeout::<dyn ShadowPort>::new(port, ANSWER_TIMEOUT));
    (port, Arc::new(Locks(shadow)), Arc::new(Faults(faulty)))
}

faulty_transport_cases!(fresh);

/// A port that breaks the contract in exactly one way: that of the case it is named after.
struct Broken {
    way: &'static str,
    inner: Arc<dyn ShadowPort>,
    trouble: Arc<Mutex<TransportFault>>,
    last: Mutex<Option<ShadowVersion>>,
    gone: AtomicBool,
}

/// Tells the broken port, too, what goes wrong, so that it is broken there and nowhere else.
struct Known(Faults, Arc<Mutex<TransportFault>>);

#[async_trait]
impl Transport for Known {
    async fn set(&self, trouble: TransportFault) {
        *self.1.lock().expect("no panic") = trouble;
        self.0.set(trouble).await;
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
        let trouble = *self.trouble.lock().expect("no panic");
        match (self.way, trouble) {
            ("a_lost_answer_is_unknown_and_the_update_may_stand", TransportFault::AnswersLost) => {
                answer.map_err(|_| ShadowError::Conflict)
            }
            // The answer to the request before this one.
            ("a_late_answer_is_not_taken_for_the_fences", TransportFault::AnswersLate(_)) => {
                answer.map(|own| expected.unwrap_or(own))
            }
            ("disordered_answers_find_their_requests", TransportFault::AnswersDisordered) => {
                let mut last = self.last.lock().expect("no panic");
                let others = std::mem::replace(&mut *last, answer.clone().ok());
                others.map_or(answer, Ok)
            }
            ("a_throttled_update_is_refused", TransportFault::Throttled) => {
                answer.map_err(|_| ShadowError::Conflict)
            }
            ("a_broken_connection_is_unknown_and_made_anew", TransportFault::Cut) => {
                self.gone.store(true, Ordering::Relaxed);
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
        if self.gone.load(Ordering::Relaxed) {
            return Err(ShadowError::Unknown("it never connects again".into()));
        }
        self.inner.read(thing, token).await
    }
}

#[tokio::test(start_paused = true)]
async fn each_broken_port_fails_its_own_case_and_no_other() {
    for way in FAULTY_TRANSPORT_CASES {
        for case in FAULTY_TRANSPORT_CASES {
            let (inner, device, faults) = fresh().await;
            let trouble = Arc::new(Mutex::new(TransportFault::None));
            let known = Known(Faults(faults.0.clone()), trouble.clone());
            let port = Broken {
                way,
                inner,
                trouble,
                last: Mutex::default(),
                gone: AtomicBool::new(false),
            };
            let outcome = tokio::spawn(async move {
                let troubled = FaultyShadows {
                    port: &port,
                    device: &*device,
                    way: &known,
                };
                run_faulty_transport_case(case, &troubled).await;
            });
            assert_eq!(
                outcome.await.is_err(),
                way == case,
                "the port broken in {way}, case {case}"
            );
        }
    }
}

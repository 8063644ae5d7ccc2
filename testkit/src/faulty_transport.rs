//! Contract test cases for [`ShadowPort`] over a faulty transport: answers are lost, delayed, duplicated or reordered, the shadow
//! service throttles, or the connection breaks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use keywright_domain::model::{
    FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName, WriteId,
};
use keywright_domain::ports::{ShadowError, ShadowPort};

use crate::samples::{lock_id, thing};
use crate::shadow_port::{Device, ShadowFixture, door, put, token};

/// The timeout with which a port under test waits for one answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A fault of the transport between a port and the shadow service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportFault {
    /// No fault.
    #[default]
    None,
    /// Requests are applied; their answers are lost.
    AnswersLost,
    /// Requests are applied; each answer is delayed by this time.
    AnswersLate(Duration),
    /// Answers arrive twice and in another order.
    AnswersReordered,
    /// The shadow service refuses requests because there are too many (429).
    Throttled,
    /// The connection breaks after a request was applied and before its answer arrives.
    Disconnect,
    /// Requests are applied; their answers end in the middle, and the connection with them.
    AnswersTorn,
    /// Requests are applied, and answered by this status (5xx).
    ServerError(u16),
    /// The shadow service refuses requests because the port is not permitted to make them: 401 or 403.
    NotAuthorized(u16),
    /// Connections are refused, and open ones are closed.
    ConnectionRefused,
}

/// The current fault of a transport, for implementations of [`Transport`]. Clones share it.
#[derive(Clone, Default)]
pub struct CurrentFault(Arc<Mutex<FaultState>>);

#[derive(Clone, Copy, Default)]
struct FaultState {
    fault: TransportFault,
    is_for_one_request: bool,
}

impl CurrentFault {
    /// Replaces the fault.
    pub fn set(&self, fault: TransportFault, is_for_one_request: bool) {
        *self.state() = FaultState {
            fault,
            is_for_one_request,
        };
    }

    /// The fault of the next request, and whether it is for that request only.
    pub fn get(&self) -> (TransportFault, bool) {
        let state = *self.state();
        (state.fault, state.is_for_one_request)
    }

    /// Takes the fault for a request. If it is for one request only, it ends.
    pub fn take(&self) -> TransportFault {
        let mut state = self.state();
        let fault = state.fault;
        if state.is_for_one_request {
            *state = FaultState::default();
        }
        fault
    }

    fn state(&self) -> MutexGuard<'_, FaultState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The transport between a port and the shadow service, with faults that a test controls. If it cannot have a fault, the test does
/// not generate the case of that fault.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Replaces the current fault. It applies to every request from now on: after [`TransportFault::ConnectionRefused`], open connections
    /// are closed before this returns, or an update is answered as unknown.
    async fn set(&self, fault: TransportFault);
    /// Replaces the current fault. It applies to the next request only.
    async fn set_for_next_request(&self, fault: TransportFault);
    /// Waits for `span` of the time by which the port under test measures its timeouts.
    async fn pause(&self, span: Duration);
}

/// A port under test, which waits [`ANSWER_TIMEOUT`] for an answer, over a faulty transport and a shadow service without any
/// shadow.
pub struct FaultyShadows<'a> {
    /// The port under test.
    pub port: &'a dyn ShadowPort,
    /// The locks of the same shadow service. No fault affects them.
    pub device: &'a dyn Device,
    /// The transport of the port.
    pub transport: &'a dyn Transport,
}

impl<'a> FaultyShadows<'a> {
    const fn shadows(&self) -> ShadowFixture<'a> {
        ShadowFixture {
            port: self.port,
            device: self.device,
        }
    }

    /// Makes an update under a fault, which ends afterwards. Returns the version before the update, and the answer.
    async fn update_under(
        &self,
        fault: TransportFault,
    ) -> (ShadowVersion, Result<ShadowVersion, ShadowError>) {
        let version = self.shadows().create(&door()).await;
        self.transport.set(fault).await;
        let answer = self.port.update(&door(), put(1, version, 1)).await;
        self.transport.set(TransportFault::None).await;
        (version, answer)
    }

    /// Asserts that a read under this fault is an error.
    async fn assert_read_fails(&self, fault: TransportFault) {
        self.transport.set(fault).await;
        let found = self.port.read(&door(), token(91)).await;
        assert!(found.is_err(), "{fault:?}: {found:?}");
        self.transport.set(TransportFault::None).await;
        self.read_again().await;
    }

    /// Asserts that an update under this fault is applied and that its outcome is unknown.
    async fn assert_applied_and_unknown(&self, fault: TransportFault) {
        let (version, answer) = self.update_under(fault).await;
        assert!(
            matches!(answer, Err(ShadowError::Unknown(_))),
            "the outcome of an update is unknown after {fault:?}: {answer:?}"
        );
        let found = self.read_again().await;
        let entries = vec![WriteId::from_u128(1)];
        assert_eq!(
            (found.version, found.entries),
            (version.next(), entries),
            "an update is applied once under {fault:?}"
        );
    }

    /// Asserts that an update under this fault is not sent again. The fault ends with the first copy, so a second one would be answered.
    async fn assert_sent_once(&self, fault: TransportFault) {
        let version = self.read_again().await.version;
        self.transport.set_for_next_request(fault).await;
        let answer = self.port.update(&door(), put(2, version, 3)).await;
        assert!(
            matches!(answer, Err(ShadowError::Unknown(_))),
            "an update is sent again after {fault:?}, and the answer to the copy is taken for its own: {answer:?}"
        );
        self.transport.set(TransportFault::None).await;
        let now = self.read_again().await.version;
        assert_eq!(
            now,
            version.next(),
            "an update is sent again after {fault:?}"
        );
    }

    /// Asserts that an update under this fault is refused for this reason and not applied.
    async fn assert_refused(&self, fault: TransportFault, expected: FailureReason) {
        match self.update_under(fault).await {
            (version, Err(ShadowError::Refused { reason, .. })) => {
                assert_eq!(reason, expected);
                let found = self.read_again().await;
                assert_eq!((found.version, found.entries), (version, vec![]));
            }
            (_, other) => panic!("the update must be refused: {other:?}"),
        }
    }

    /// Reads the shadow, and repeats the read while the port reestablishes its connection.
    async fn read_again(&self) -> ShadowSnapshot {
        for _ in 0..100 {
            match self.port.read(&door(), token(90)).await {
                Ok(Some(found)) => return found,
                Ok(None) => panic!("the shadow exists"),
                Err(_) => self.transport.pause(ANSWER_TIMEOUT / 10).await,
            }
        }
        panic!("the port does not reestablish its connection");
    }
}

/// A lost answer is unknown, because the port cannot know whether the update was applied.
pub async fn lost_answer_is_unknown(faulty: &FaultyShadows<'_>) {
    faulty
        .assert_applied_and_unknown(TransportFault::AnswersLost)
        .await;
}

/// An update whose answer is lost is not sent again: neither one at an expected version, whose copy would be a conflict, nor one at
/// any version, whose copy would be applied.
pub async fn lost_update_is_not_sent_again(faulty: &FaultyShadows<'_>) {
    let version = faulty.shadows().create(&door()).await;
    let changes = [put(1, version, 1), ShadowChange::create(token(2))];
    for (change, version) in changes
        .into_iter()
        .zip([version.next(), version.next().next()])
    {
        let lost = TransportFault::AnswersLost;
        faulty.transport.set_for_next_request(lost).await;
        let answer = faulty.port.update(&door(), change).await;
        assert!(matches!(answer, Err(ShadowError::Unknown(_))), "{answer:?}");
        assert_eq!(faulty.read_again().await.version, version);
    }
}

/// An update that is answered by a 5xx is unknown, because it may have been applied, and is not sent again. Such a read is an error.
pub async fn server_error_is_unknown(faulty: &FaultyShadows<'_>) {
    let fault = TransportFault::ServerError(500);
    faulty.assert_applied_and_unknown(fault).await;
    for status in [500, 502, 503, 504] {
        let fault = TransportFault::ServerError(status);
        faulty.assert_sent_once(fault).await;
        faulty.assert_read_fails(fault).await;
    }
}

/// An update whose answer ends in the middle is unknown, and is not sent again.
pub async fn torn_answer_is_unknown(faulty: &FaultyShadows<'_>) {
    let fault = TransportFault::AnswersTorn;
    faulty.assert_applied_and_unknown(fault).await;
    faulty.assert_sent_once(fault).await;
}

/// An answer that arrives after its timeout, while another request waits, is not taken as the answer to that request.
pub async fn late_answer_is_not_taken_for_another_request(faulty: &FaultyShadows<'_>) {
    let version = faulty.shadows().create(&door()).await;
    faulty
        .transport
        .set(TransportFault::AnswersLate(
            ANSWER_TIMEOUT + ANSWER_TIMEOUT / 4,
        ))
        .await;
    let answer = faulty.port.update(&door(), put(1, version, 1)).await;
    assert!(matches!(answer, Err(ShadowError::Unknown(_))), "{answer:?}");
    faulty.transport.set(TransportFault::None).await;
    let now = faulty.read_again().await.version;
    // The late answer arrives while the fence waits for its own.
    faulty
        .transport
        .set(TransportFault::AnswersLate(ANSWER_TIMEOUT / 2))
        .await;
    let fenced = faulty
        .port
        .update(&door(), ShadowChange::fence(now, token(2)))
        .await;
    faulty.transport.set(TransportFault::None).await;
    assert_eq!(fenced, Ok(now.next()), "the answer to the fence");
    assert_eq!(faulty.read_again().await.version, now.next());
}

/// Answers that arrive twice and in another order reach the requests that they belong to.
pub async fn reordered_answers_reach_their_requests(faulty: &FaultyShadows<'_>) {
    const THINGS: u64 = 5;
    let things: Vec<ThingName> = (1..=THINGS).map(|n| thing(lock_id(n))).collect();
    for (n, thing) in things.iter().enumerate() {
        // Each shadow has another version, so that the answers differ.
        for _ in 0..=n {
            faulty.shadows().create(thing).await;
        }
    }
    faulty.transport.set(TransportFault::AnswersReordered).await;
    for round in 0..3 {
        let updates = things.iter().zip(0_u32..).map(|(thing, n)| {
            let expected = ShadowVersion(u64::from(n) + 1 + u64::from(round));
            let change = ShadowChange::fence(expected, token(100 * (round + 1) + n));
            let port = faulty.port;
            async move { (expected, port.update(thing, change).await) }
        });
        for (expected, answer) in join_all(updates).await {
            assert_eq!(answer, Ok(expected.next()));
        }
    }
    faulty.transport.set(TransportFault::None).await;
}

/// An update that the shadow service throttles is refused and not applied.
pub async fn throttled_update_is_refused(faulty: &FaultyShadows<'_>) {
    faulty
        .assert_refused(TransportFault::Throttled, FailureReason::Throttled)
        .await;
}

/// An update that the port is not permitted to make is refused and not applied. Such a read is an error.
pub async fn forbidden_update_is_refused(faulty: &FaultyShadows<'_>) {
    for status in [401, 403] {
        let fault = TransportFault::NotAuthorized(status);
        faulty
            .assert_refused(fault, FailureReason::NotAuthorized)
            .await;
        faulty.assert_read_fails(fault).await;
    }
}

/// An update without a connection is neither a conflict nor refused, because no shadow service has answered.
pub async fn update_without_a_connection_is_no_refusal(faulty: &FaultyShadows<'_>) {
    let (version, answer) = faulty.update_under(TransportFault::ConnectionRefused).await;
    let found = faulty.read_again().await;
    match answer {
        Err(ShadowError::NotApplied { .. }) => {
            assert_eq!((found.version, found.entries), (version, vec![]));
        }
        // The update may have been sent just before the connection was closed.
        Err(ShadowError::Unknown(_)) => {}
        other => panic!(
            "an update without a connection is neither refused nor accepted, but the answer is {other:?}; if it was applied, the transport \
             returned from `set` before it had closed the open connections"
        ),
    }
}

/// A read that fails is an error, and not a shadow that does not exist.
pub async fn failed_read_is_an_error(faulty: &FaultyShadows<'_>) {
    faulty.shadows().create(&door()).await;
    for fault in [
        TransportFault::Throttled,
        TransportFault::AnswersLost,
        TransportFault::AnswersTorn,
        TransportFault::Disconnect,
        TransportFault::ConnectionRefused,
    ] {
        faulty.assert_read_fails(fault).await;
    }
}

/// An update during which the connection breaks is unknown, and the port reestablishes the connection by itself.
pub async fn broken_connection_is_unknown_and_reestablished(faulty: &FaultyShadows<'_>) {
    let fault = TransportFault::Disconnect;
    faulty.assert_applied_and_unknown(fault).await;
    faulty.assert_sent_once(fault).await;
    let found = faulty.read_again().await;
    let fenced = faulty
        .port
        .update(&door(), ShadowChange::fence(found.version, token(2)))
        .await;
    assert_eq!(fenced, Ok(found.version.next()));
}

/// Generates a test for each case of the contract of `ShadowPort` over a faulty transport, on tokio's multi-threaded runtime.
///
/// In `faulty_transport_cases!(fixture)`, `fixture().await` returns a triple `(port, device, transport)` of smart pointers to a
/// `ShadowPort`, a [`Device`](crate::shadow_port::Device) and a [`Transport`](crate::faulty_transport::Transport).
/// `faulty_transport_cases! { fixture: case, case }` generates only the named cases, for a transport that cannot have all faults.
#[macro_export]
macro_rules! faulty_transport_cases {
    ($fixture:path) => {
        $crate::faulty_transport_cases! { $fixture:
            lost_answer_is_unknown,
            lost_update_is_not_sent_again,
            server_error_is_unknown,
            torn_answer_is_unknown,
            broken_connection_is_unknown_and_reestablished,
            late_answer_is_not_taken_for_another_request,
            reordered_answers_reach_their_requests,
            throttled_update_is_refused,
            forbidden_update_is_refused,
            update_without_a_connection_is_no_refusal,
            failed_read_is_an_error
        }
    };
    ($fixture:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const FAULTY_TRANSPORT_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name; the testkit's own tests run every case against broken adapters.
        pub async fn run_faulty_transport_case(
            case: &str,
            faulty: &$crate::faulty_transport::FaultyShadows<'_>,
        ) {
            match case {
                $(stringify!($case) => $crate::faulty_transport::$case(faulty).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let (port, device, transport) = $fixture().await;
            let faulty = $crate::faulty_transport::FaultyShadows {
                port: &*port,
                device: &*device,
                transport: &*transport,
            };
            $crate::faulty_transport::$case(&faulty).await;
        })+
    };
}

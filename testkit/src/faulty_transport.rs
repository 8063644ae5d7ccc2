//! The contract of `ShadowPort` where what lies between the port and the shadow fails: answers that get lost, come
//! late, twice or in another order, a service that is overloaded, connections that break.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName, WriteId,
};
use keywright_domain::ports::{ShadowError, ShadowPort};

use crate::samples::{lock_id, thing};
use crate::shadow_port::{Device, ShadowFixture, door, put, token};

/// How long a port under test may wait for one answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What goes wrong on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFault {
    /// Nothing.
    None,
    /// Requests arrive and are done; their answers do not come back.
    AnswersLost,
    /// Requests arrive and are done; each answer comes so much later.
    AnswersLate(Duration),
    /// Answers come twice and overtake each other, where the way is one that allows it.
    AnswersDisordered,
    /// The shadow has too much to do, and refuses (429).
    Throttled,
    /// A connection breaks when a request has passed and before its answer does.
    Cut,
}

/// What lies between a port and the shadow.
#[async_trait]
pub trait Transport: Send + Sync {
    /// From now on this goes wrong.
    async fn set(&self, trouble: TransportFault);
    /// Lets time pass.
    async fn pause(&self, span: Duration);
}

/// Shadows of which none exists yet, behind a port that waits [`ANSWER_TIMEOUT`] for an answer.
pub struct FaultyShadows<'a> {
    /// The backend's side.
    pub port: &'a dyn ShadowPort,
    /// The lock's side, which nothing disturbs.
    pub device: &'a dyn Device,
    /// Between them.
    pub way: &'a dyn Transport,
}

impl<'a> FaultyShadows<'a> {
    const fn shadows(&self) -> ShadowFixture<'a> {
        ShadowFixture {
            port: self.port,
            device: self.device,
        }
    }

    /// Reads until the shadow is read: a connection may have to be made anew.
    async fn read_again(&self) -> ShadowSnapshot {
        for _ in 0..100 {
            match self.port.read(&door(), token(90)).await {
                Ok(Some(found)) => return found,
                Ok(None) => panic!("the shadow exists"),
                Err(_) => self.way.pause(ANSWER_TIMEOUT / 10).await,
            }
        }
        panic!("the port does not come back");
    }
}

/// Whether the answer was lost before or after the update was applied cannot be known.
pub async fn a_lost_answer_is_unknown_and_the_update_may_stand(faulty: &FaultyShadows<'_>) {
    let version = faulty.shadows().create(&door()).await;
    faulty.way.set(TransportFault::AnswersLost).await;
    let answer = faulty.port.update(&door(), put(1, version, 1)).await;
    assert!(matches!(answer, Err(ShadowError::Unknown(_))), "{answer:?}");
    faulty.way.set(TransportFault::None).await;
    let found = faulty.read_again().await;
    assert_eq!(
        (found.version, found.entries),
        (version.next(), vec![WriteId::from_u128(1)])
    );
}

/// An answer that comes after its deadline, while another request waits for its own, is nobody's.
pub async fn a_late_answer_is_not_taken_for_the_fences(faulty: &FaultyShadows<'_>) {
    let version = faulty.shadows().create(&door()).await;
    faulty
        .way
        .set(TransportFault::AnswersLate(
            ANSWER_TIMEOUT + ANSWER_TIMEOUT / 4,
        ))
        .await;
    let answer = faulty.port.update(&door(), put(1, version, 1)).await;
    assert!(matches!(answer, Err(ShadowError::Unknown(_))), "{answer:?}");
    faulty.way.set(TransportFault::None).await;
    let now = faulty.read_again().await.version;
    // The first answer is due in the middle of this.
    faulty
        .way
        .set(TransportFault::AnswersLate(ANSWER_TIMEOUT / 2))
        .await;
    let fenced = faulty
        .port
        .update(&door(), ShadowChange::fence(now, token(2)))
        .await;
    faulty.way.set(TransportFault::None).await;
    assert_eq!(fenced, Ok(now.next()), "the fence's own answer");
    assert_eq!(faulty.read_again().await.version, now.next());
}

/// Answers that come twice and in another order find their requests.
pub async fn disordered_answers_find_their_requests(faulty: &FaultyShadows<'_>) {
    const THINGS: u64 = 5;
    let things: Vec<ThingName> = (1..=THINGS).map(|n| thing(lock_id(n))).collect();
    for (n, thing) in things.iter().enumerate() {
        // Each is at another version.
        for _ in 0..=n {
            faulty.shadows().create(thing).await;
        }
    }
    faulty.way.set(TransportFault::AnswersDisordered).await;
    for round in 0..3 {
        type Updated = (ShadowVersion, Result<ShadowVersion, ShadowError>);
        let updates = things.iter().zip(0_u32..).map(|(thing, n)| {
            let expected = ShadowVersion(u64::from(n) + 1 + u64::from(round));
            let change = ShadowChange::fence(expected, token(100 * (round + 1) + n));
            let port = faulty.port;
            Box::pin(async move { (expected, port.update(thing, change).await) })
                as Boxed<'_, Updated>
        });
        for (expected, answer) in all(updates.collect()).await {
            assert_eq!(answer, Ok(expected.next()));
        }
    }
    faulty.way.set(TransportFault::None).await;
}

/// A service that has too much to do does not take the update, and says so.
pub async fn a_throttled_update_is_refused(faulty: &FaultyShadows<'_>) {
    let version = faulty.shadows().create(&door()).await;
    faulty.way.set(TransportFault::Throttled).await;
    match faulty.port.update(&door(), put(1, version, 1)).await {
        Err(ShadowError::Refused { reason, .. }) => assert_eq!(reason, FailureReason::Throttled),
        other => panic!("it must be refused: {other:?}"),
    }
    faulty.way.set(TransportFault::None).await;
    let found = faulty.read_again().await;
    assert_eq!((found.version, found.entries), (version, vec![]));
}

/// A connection that breaks in the middle leaves the outcome unknown, and the port comes back by itself.
pub async fn a_broken_connection_is_unknown_and_made_anew(faulty: &FaultyShadows<'_>) {
    let version = faulty.shadows().create(&door()).await;
    faulty.way.set(TransportFault::Cut).await;
    let answer = faulty.port.update(&door(), put(1, version, 1)).await;
    assert!(matches!(answer, Err(ShadowError::Unknown(_))), "{answer:?}");
    faulty.way.set(TransportFault::None).await;
    let found = faulty.read_again().await;
    assert_eq!(
        (found.version, found.entries),
        (version.next(), vec![WriteId::from_u128(1)])
    );
    let fenced = faulty
        .port
        .update(&door(), ShadowChange::fence(found.version, token(2)))
        .await;
    assert_eq!(fenced, Ok(found.version.next()));
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The outputs of futures that run at the same time.
async fn all<T>(mut futures: Vec<Boxed<'_, T>>) -> Vec<T> {
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Stamps a test for each case: `faulty_transport_cases!(fresh)`, where `fresh().await` makes a `(port, device, way)`
/// of things that give `&dyn ShadowPort`, `&dyn Device` and `&dyn Transport`.
#[macro_export]
macro_rules! faulty_transport_cases {
    ($fresh:path) => {
        $crate::faulty_transport_cases! { $fresh:
            a_lost_answer_is_unknown_and_the_update_may_stand,
            a_late_answer_is_not_taken_for_the_fences, disordered_answers_find_their_requests,
            a_throttled_update_is_refused, a_broken_connection_is_unknown_and_made_anew
        }
    };
    ($fresh:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const FAULTY_TRANSPORT_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name.
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
            let (port, device, way) = $fresh().await;
            let faulty = $crate::faulty_transport::FaultyShadows {
                port: &*port,
                device: &*device,
                way: &*way,
            };
            $crate::faulty_transport::$case(&faulty).await;
        })+
    };
}

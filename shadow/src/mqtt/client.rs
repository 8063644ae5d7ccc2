//! A client of a shadow service on a broker.
//!
//! An answer belongs to the request with the same `clientToken`, thing and operation. Requests are published at QoS 0, so that a
//! broker does not keep them for a service that is not connected, and none arrives late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_mqtt::{Broker, Handler, Message, NotSent, QoS, Session, SessionOptions};
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::topic::{Operation, Topic};
use crate::name::ShadowName;

/// How many requests a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Requests without an answer at the same time.
    pub max_in_flight: usize,
    /// Requests per second; `None`: any number.
    pub max_per_second: Option<u32>,
}

impl ClientLimits {
    /// Within AWS IoT's limits: 10 requests in flight, and 100 messages per second in both directions. A write takes three messages (the
    /// request, its answer, and the lock's report).
    pub const AWS: Self = Self {
        max_in_flight: 10,
        max_per_second: Some(30),
    };
    /// For a self-hosted broker.
    pub const SELF_HOSTED: Self = Self {
        max_in_flight: 256,
        max_per_second: None,
    };
}

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request was certainly not sent.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The service rejected the request.
    #[error("{code} {message}")]
    Rejected {
        /// An HTTP status code.
        code: u16,
        /// The service's message, at most 200 characters of it.
        message: String,
    },
    /// The request may have been sent, and no answer came.
    #[error("{0}")]
    Unknown(String),
}

type Answer = Result<Value, RequestError>;

/// A request without its answer.
struct Waiter {
    /// The number of the connection on which the request is sent.
    connection: u64,
    thing: String,
    operation: Operation,
    tx: oneshot::Sender<Answer>,
}

/// The requests without their answers, by client token.
#[derive(Default)]
struct Waiters(Mutex<HashMap<String, Waiter>>);

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a waiter when its request ends or is dropped.
struct RemoveOnDrop<'a> {
    waiters: &'a Waiters,
    token: &'a str,
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        self.waiters.lock().remove(self.token);
    }
}

/// Sends requests for one named shadow of any thing over one connection. Clones share the connection and its limits.
#[derive(Clone)]
pub struct ShadowClient {
    session: Session,
    shadow: ShadowName,
    waiters: Arc<Waiters>,
    in_flight: Arc<Semaphore>,
    pacer: Arc<Pacer>,
    up: watch::Receiver<bool>,
}

impl ShadowClient {
    /// Starts to connect. The client id must be unique on the broker.
    pub fn start(
        broker: Broker,
        client_id: &str,
        shadow: ShadowName,
        limits: ClientLimits,
    ) -> Self {
        let filters = [
            "update/accepted",
            "update/rejected",
            "get/accepted",
            "get/rejected",
        ];
        let options = SessionOptions {
            client_id: client_id.to_owned(),
            filters: filters
                .map(|suffix| Topic::text("+", &shadow, suffix))
                .into(),
            persistent_session: false,
            manual_acks: false,
        };
        let waiters = Arc::new(Waiters::default());
        let (tx, up) = watch::channel(false);
        let handler = AnswerHandler {
            waiters: waiters.clone(),
            up: tx,
        };
        Self {
            session: Session::start(broker, options, handler),
            shadow,
            waiters,
            in_flight: Arc::new(Semaphore::new(limits.max_in_flight)),
            pacer: Arc::new(Pacer::new(limits.max_per_second)),
            up,
        }
    }

    /// Whether answers can be received, as a value that can be watched.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// Sends a request, whose body must have `token` as its `clientToken`, and waits for the answer, in all for at most `timeout`. A
    /// request that could not be sent in half of that time is not sent, because too little time is left for its answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(
        &self,
        operation: Operation,
        thing: &str,
        token: &str,
        body: &Value,
        timeout: Duration,
    ) -> Answer {
        let (send_by, deadline) = (Instant::now() + timeout / 2, Instant::now() + timeout);
        let too_late = || RequestError::NotSent("too many other requests are waiting".into());
        let _permit = tokio::time::timeout_at(send_by, self.in_flight.acquire())
            .await
            .map_err(|_| too_late())?
            .map_err(|_| too_late())?;
        self.pacer.wait(send_by).await.ok_or_else(too_late)?;
        let time_left = send_by.saturating_duration_since(Instant::now());
        let not_sent = |NotSent(reason)| RequestError::NotSent(reason);
        let connection = self
            .session
            .connection_within(time_left)
            .await
            .map_err(not_sent)?;
        let (tx, rx) = oneshot::channel();
        let waiter = Waiter {
            connection: connection.number(),
            thing: thing.to_owned(),
            operation,
            tx,
        };
        self.waiters.lock().insert(token.to_owned(), waiter);
        let _remove = RemoveOnDrop {
            waiters: &self.waiters,
            token,
        };
        let topic = Topic::text(thing, &self.shadow, operation.name());
        connection
            .try_publish(&topic, QoS::AtMostOnce, body.to_string().into_bytes())
            .map_err(not_sent)?;
        match tokio::time::timeout_at(deadline, rx).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RequestError::Unknown("the connection was lost".into())),
            Err(_) => Err(RequestError::Unknown(format!(
                "no answer within {timeout:?}"
            ))),
        }
    }
}

/// Passes answers to the requests that wait for them.
struct AnswerHandler {
    waiters: Arc<Waiters>,
    up: watch::Sender<bool>,
}

impl Handler for AnswerHandler {
    fn connected(&mut self, _: u64) {
        self.up.send_replace(true);
    }

    fn disconnected(&mut self, connection: u64, reason: &str) {
        self.up.send_replace(false);
        let lost = |_: &String, waiter: &mut Waiter| waiter.connection <= connection;
        let lost: Vec<Waiter> = self
            .waiters
            .lock()
            .extract_if(lost)
            .map(|(_, w)| w)
            .collect();
        for waiter in lost {
            let _ = waiter
                .tx
                .send(Err(RequestError::Unknown(reason.to_owned())));
        }
    }

    fn message_received(&mut self, message: Message) {
        if !message.retained()
            && let Some((waiter, answer)) = self.answer(&message)
        {
            // It fails if the request was dropped.
            let _ = waiter.tx.send(answer);
        }
    }
}

impl AnswerHandler {
    /// The answer in a message, and the request that waits for it. `None`: it answers a request of another client.
    fn answer(&self, message: &Message) -> Option<(Waiter, Answer)> {
        let topic = Topic::parse(message.topic())?;
        let body: Value = serde_json::from_slice(message.payload()).ok()?;
        let token = body.get("clientToken")?.as_str()?.to_owned();
        let answer = match topic.outcome? {
            "accepted" => Ok(body),
            "rejected" => {
                let code = body.get("code").and_then(Value::as_u64);
                let code = code
                    .and_then(|code| u16::try_from(code).ok())
                    .unwrap_or(500);
                let text = body.get("message").and_then(Value::as_str);
                let message = text.unwrap_or_default().chars().take(200).collect();
                Err(RequestError::Rejected { code, message })
            }
            _ => return None,
        };
        let mut waiters = self.waiters.lock();
        let waiter = waiters.get(&token)?;
        if waiter.thing != topic.thing || waiter.operation != topic.operation {
            return None;
        }
        Some((waiters.remove(&token)?, answer))
    }
}

/// Delays requests so that they are at least an interval apart, in the order in which they came.
struct Pacer {
    interval: Option<Duration>,
    next: Mutex<Instant>,
}

impl Pacer {
    fn new(max_per_second: Option<u32>) -> Self {
        Self {
            interval: max_per_second.map(|n| Duration::from_secs(1) / n.max(1)),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until the next request may be sent. `None`: that is at the deadline or later, and the request does not count.
    async fn wait(&self, deadline: Instant) -> Option<()> {
        let Some(interval) = self.interval else {
            return Some(());
        };
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            if at >= deadline {
                return None;
            }
            *next = at + interval;
            at
        };
        tokio::time::sleep_until(at).await;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paces_requests_until_the_deadline() {
        let pacer = Pacer::new(Some(10));
        let start = Instant::now();
        let soon = start + Duration::from_millis(250);
        for n in 0..3 {
            pacer.wait(soon).await.expect("in time");
            assert_eq!(start.elapsed(), Duration::from_millis(100 * n));
        }
        assert_eq!(
            pacer.wait(soon).await,
            None,
            "the next one would be at 300 ms"
        );
        assert_eq!(Pacer::new(None).wait(start).await, Some(()));
    }
}

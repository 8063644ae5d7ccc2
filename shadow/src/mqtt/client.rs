//! A client of a shadow service behind a broker: requests, and the answers that belong to them.
//!
//! An answer belongs to a request by its `clientToken`, on the topic of the same thing and operation. A request
//! is published at QoS 0: a broker keeps none of it for a service that is away, so nothing arrives late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_mqtt::{Broker, Handler, Message, NotSent, QoS, Session, SessionOptions};
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::topic::{Operation, Topic};
use crate::name::ShadowName;

/// What a service takes of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests without their answer.
    pub in_flight: usize,
    /// Requests a second.
    pub a_second: Option<u32>,
}

impl Limits {
    /// AWS IoT's: 10 requests in flight, and what 100 messages a second in both directions leave room for. A
    /// write is three of them (the request, its answer, and the lock's report).
    pub const AWS: Self = Self {
        in_flight: 10,
        a_second: Some(30),
    };
    /// A broker of one's own has its own.
    pub const OWN_BROKER: Self = Self {
        in_flight: 256,
        a_second: None,
    };
}

/// Why a request has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It certainly never left.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The service rejected it.
    #[error("{code} {message}")]
    Rejected {
        /// As an HTTP status.
        code: u16,
        /// The service's text.
        message: String,
    },
    /// It was sent, or may have been, and no answer came.
    #[error("{0}")]
    Unknown(String),
}

type Answer = Result<Value, RequestError>;

struct Waiter {
    connection: u64,
    thing: String,
    operation: Operation,
    tell: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Waiters(Mutex<HashMap<String, Waiter>>);

impl Waiters {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Waiter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a waiter away whose request was given up.
struct Waiting<'a>(&'a Waiters, &'a str);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.all().remove(self.1);
    }
}

/// One named shadow of every thing, over one connection. Clones share it.
#[derive(Clone)]
pub struct ShadowClient {
    session: Session,
    shadow: ShadowName,
    waiters: Arc<Waiters>,
    places: Arc<Semaphore>,
    pace: Arc<Pace>,
    up: watch::Receiver<bool>,
}

impl ShadowClient {
    /// Starts to connect. The client id must be unique on the broker.
    pub fn start(broker: Broker, client_id: &str, shadow: ShadowName, limits: Limits) -> Self {
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
            persistent: false,
            manual_acks: false,
        };
        let waiters = Arc::new(Waiters::default());
        let (tell, up) = watch::channel(false);
        let handler = Answers {
            waiters: waiters.clone(),
            up: tell,
        };
        Self {
            session: Session::start(broker, options, handler),
            shadow,
            waiters,
            places: Arc::new(Semaphore::new(limits.in_flight)),
            pace: Arc::new(Pace::new(limits.a_second)),
            up,
        }
    }

    /// Whether answers would be heard, and how that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// Sends a request whose body names `token` as its `clientToken`, and waits for its answer. It may take
    /// `patience` all in all; what has not left after half of that never does, because too little time would be
    /// left to hear of it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(
        &self,
        operation: Operation,
        thing: &str,
        token: &str,
        body: &Value,
        patience: Duration,
    ) -> Answer {
        let (send_by, deadline) = (Instant::now() + patience / 2, Instant::now() + patience);
        let late = || RequestError::NotSent("too many other requests are waiting".into());
        let _place = tokio::time::timeout_at(send_by, self.places.acquire())
            .await
            .map_err(|_| late())?
            .map_err(|_| late())?;
        self.pace.turn(send_by).await.ok_or_else(late)?;
        let left = send_by.saturating_duration_since(Instant::now());
        let not_sent = |NotSent(why)| RequestError::NotSent(why);
        let connection = self
            .session
            .connection_within(left)
            .await
            .map_err(not_sent)?;
        let (tell, told) = oneshot::channel();
        let waiter = Waiter {
            connection: connection.number(),
            thing: thing.to_owned(),
            operation,
            tell,
        };
        self.waiters.all().insert(token.to_owned(), waiter);
        let _waiting = Waiting(&self.waiters, token);
        let topic = Topic::text(thing, &self.shadow, operation.name());
        connection
            .try_publish(&topic, QoS::AtMostOnce, body.to_string().into_bytes())
            .map_err(not_sent)?;
        match tokio::time::timeout_at(deadline, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RequestError::Unknown("the connection was lost".into())),
            Err(_) => Err(RequestError::Unknown(format!(
                "no answer within {patience:?}"
            ))),
        }
    }
}

struct Answers {
    waiters: Arc<Waiters>,
    up: watch::Sender<bool>,
}

impl Handler for Answers {
    fn up(&mut self, _: u64) {
        self.up.send_replace(true);
    }

    fn down(&mut self, connection: u64, why: &str) {
        self.up.send_replace(false);
        let lost = |_: &String, waiter: &mut Waiter| waiter.connection <= connection;
        let lost: Vec<Waiter> = self
            .waiters
            .all()
            .extract_if(lost)
            .map(|(_, w)| w)
            .collect();
        for waiter in lost {
            let _ = waiter.tell.send(Err(RequestError::Unknown(why.to_owned())));
        }
    }

    fn message(&mut self, message: Message) {
        if !message.retained()
            && let Some((waiter, answer)) = self.answer(&message)
        {
            // Somebody who does not wait any more is no error.
            let _ = waiter.tell.send(answer);
        }
    }
}

impl Answers {
    /// Who waits for it, and the answer. Others write to the same shadows, and are answered on the same topics.
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
        let mut waiters = self.waiters.all();
        let waiter = waiters.get(&token)?;
        if waiter.thing != topic.thing || waiter.operation != topic.operation {
            return None;
        }
        Some((waiters.remove(&token)?, answer))
    }
}

/// Requests no closer to each other than they may be, in the order in which they came.
struct Pace {
    apart: Option<Duration>,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(a_second: Option<u32>) -> Self {
        Self {
            apart: a_second.map(|n| Duration::from_secs(1) / n.max(1)),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for a turn; `None`: there is none before the deadline, and none was taken.
    async fn turn(&self, deadline: Instant) -> Option<()> {
        let Some(apart) = self.apart else {
            return Some(());
        };
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            if at >= deadline {
                return None;
            }
            *next = at + apart;
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
    async fn turns_are_apart_and_end_at_the_deadline() {
        let pace = Pace::new(Some(10));
        let start = Instant::now();
        let soon = start + Duration::from_millis(250);
        for n in 0..3 {
            pace.turn(soon).await.expect("a turn");
            assert_eq!(start.elapsed(), Duration::from_millis(100 * n));
        }
        assert_eq!(
            pace.turn(soon).await,
            None,
            "the next one would be at 300 ms"
        );
        assert_eq!(Pace::new(None).turn(start).await, Some(()));
    }
}

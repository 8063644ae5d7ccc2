//! A persona's way to the service: what it asks, by which client, and what is noted of the answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::population::Population;
use crate::recorder::{Accepted, Recorder};

/// How often and how long a write is looked at until it is settled.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_FOR: Duration = Duration::from_secs(30);

/// With what somebody says who asks.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A token.
    Token(String),
    /// An API key.
    ApiKey(String),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What it is called in figures.
    pub name: &'static str,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Its path.
    pub path: String,
    /// Who asks.
    pub credential: Credential,
    /// What it is called by its client, for repeats.
    pub idempotency_key: Option<String>,
    /// A JSON body.
    pub body: Option<String>,
    /// The statuses that it may get.
    pub expected: &'static [u16],
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header `Location`.
    pub location: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Sends requests: Goose's client, or our own.
#[async_trait]
pub trait Caller: Send {
    /// `None`: the connection broke before the answer was there.
    async fn call(&mut self, ask: &Ask) -> Option<Answer>;

    /// Sends it and hangs up after this time, whether there was an answer or not.
    async fn call_and_hang_up(&mut self, ask: &Ask, after: Duration);
}

/// One persona at work.
pub struct Session<'a> {
    /// How it reaches the service.
    pub caller: &'a mut dyn Caller,
    /// Whom it is about.
    pub population: &'a Population,
    /// Where it is noted.
    pub recorder: &'a Arc<Recorder>,
    /// When its first request was meant to be sent, in an open loop.
    pub meant: Option<Instant>,
}

impl Session<'_> {
    /// Asks, and notes how it is answered.
    pub async fn ask(&mut self, ask: &Ask) -> Option<Answer> {
        let answer = self.caller.call(ask).await;
        let status = answer.as_ref().map(|answer| answer.status);
        self.recorder.answered(ask.name, status, ask.expected);
        answer
    }

    /// Writes a key, and notes how long that took. `Some`: where the write is, if it was accepted.
    pub async fn write(&mut self, ask: &Ask, place: u64, key: &str) -> Option<(String, Accepted)> {
        let start = self.meant.take().unwrap_or_else(Instant::now);
        let answer = self.ask(ask).await?;
        if answer.status != 200 {
            return None;
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let accepted = Accepted {
            place,
            key: key.to_owned(),
            version: body["event"]
                .is_object()
                .then(|| body["version"].as_u64())
                .flatten(),
        };
        self.recorder.accepted(accepted.clone(), start.elapsed());
        let Some(location) = answer.location else {
            let what = format!("{}: a 200 without Location", ask.name);
            self.recorder.unexpected(what);
            return None;
        };
        Some((location, accepted))
    }

    /// Looks at a write now and then until the lock has settled it.
    pub async fn follow(&mut self, location: &str, write: Accepted, credential: &Credential) {
        let start = Instant::now();
        let look = Ask {
            name: "read a write",
            method: "GET",
            path: location.to_owned(),
            credential: credential.clone(),
            idempotency_key: None,
            body: None,
            expected: &[200],
        };
        while start.elapsed() < LOOK_FOR {
            sleep(LOOK_EVERY).await;
            let Some(answer) = self.ask(&look).await else {
                continue;
            };
            let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if let Some(took) = settled_after(&status) {
                if status["late"] == true {
                    self.recorder.late();
                }
                match status["state"].as_str() {
                    Some("SUCCEEDED") => self.recorder.settled(write, true, took),
                    Some("FAILED") => self.recorder.settled(write, false, took),
                    // Somebody else has written to the same slot.
                    Some("SUPERSEDED") => {}
                    _ => self.recorder.unconfirmed(1),
                }
                return;
            }
        }
        self.recorder.unconfirmed(1);
    }
}

/// How long the service says that a write took from its request to its end.
fn settled_after(status: &Value) -> Option<Duration> {
    let moment = |name: &str| {
        let text = status[name].as_str()?;
        humantime::parse_rfc3339(text).ok()
    };
    let (requested, settled) = (moment("requestedAt")?, moment("settledAt")?);
    Some(settled.duration_since(requested).unwrap_or_default())
}

/// A request to write a key.
pub fn write_key(
    population: &Population,
    place: u64,
    (key, index): (&str, u64),
    credential: &Credential,
) -> Ask {
    Ask {
        name: "write a key",
        method: "POST",
        path: format!("/locks/{}/WriteKey", population.first_lock + place),
        credential: credential.clone(),
        idempotency_key: None,
        body: Some(format!(
            "{{\"keyUuid\":\"{key}\",\"keyIndexNumber\":{index}}}"
        )),
        expected: &[200],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers at once.
    struct Prompt;

    #[async_trait]
    impl Caller for Prompt {
        async fn call(&mut self, _: &Ask) -> Option<Answer> {
            Some(Answer {
                status: 200,
                location: Some("/locks/1/writes/w".into()),
                body: Bytes::from_static(b"{\"version\":7,\"event\":{}}"),
            })
        }

        async fn call_and_hang_up(&mut self, _: &Ask, _: Duration) {}
    }

    #[tokio::test]
    async fn a_write_that_was_sent_late_counts_from_when_it_was_meant_to_be_sent() {
        let population = Population {
            first_lock: 1,
            locks: 1,
            api_keys: vec!["key".into()],
            tokens: vec!["token".into()],
            forged_token: "forged".into(),
        };
        let (recorder, mut caller) = (Arc::new(Recorder::default()), Prompt);
        let late = Duration::from_millis(300);
        let mut session = Session {
            caller: &mut caller,
            population: &population,
            recorder: &recorder,
            meant: Instant::now().checked_sub(late),
        };
        let credential = Credential::ApiKey("key".into());
        let ask = write_key(&population, 0, ("k", 1), &credential);
        let (_, write) = session.write(&ask, 0, "k").await.expect("accepted");
        assert_eq!(write.version, Some(7));
        assert!(recorder.so_far().accept().at(1.0) >= late);
    }
}

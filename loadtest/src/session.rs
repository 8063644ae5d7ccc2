//! A persona's way to the service: what it asks, by which client, and what is noted of the answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::population::Population;
use crate::recorder::{Accepted, Answered, Endpoint, Recorder};

/// How often and how long a write is looked at until it is settled.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_FOR: Duration = Duration::from_secs(30);

const WRITE_KEY: Endpoint = Endpoint {
    method: "POST",
    route: "/locks/{id}/WriteKey",
};

const READ_WRITE: Endpoint = Endpoint {
    method: "GET",
    route: "/locks/{id}/writes/{writeId}",
};

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
    /// `GET` or `POST`, and the route that its path belongs to.
    pub endpoint: Endpoint,
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

    /// Sends them all at once. For each the answer, as there, and when it was there.
    async fn call_all(&mut self, asks: &[Ask]) -> Vec<(Option<Answer>, Instant)>;

    /// Sends it and hangs up after this time, whether there was an answer or not.
    async fn call_and_hang_up(&mut self, ask: &Ask, after: Duration);
}

/// A request to write a key that nobody has had.
pub struct KeyWrite {
    /// It.
    pub ask: Ask,
    /// The lock's place in the population.
    pub place: u64,
    /// The key.
    pub key: String,
}

/// A write that was accepted.
pub struct Sent {
    /// Where its status is.
    pub location: String,
    /// What is known of it.
    pub write: Accepted,
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
        let sent = Instant::now();
        let answer = self.caller.call(ask).await;
        self.note(ask, answer.as_ref(), sent.elapsed());
        answer
    }

    fn note(&self, ask: &Ask, answer: Option<&Answer>, took: Duration) {
        self.recorder.answered(Answered {
            name: ask.name,
            endpoint: ask.endpoint,
            status: answer.map(|answer| answer.status),
            expected: ask.expected,
            took,
        });
    }

    /// Writes a key, and notes how long that took. `Some`: it was accepted.
    pub async fn write(&mut self, write: &KeyWrite) -> Option<Sent> {
        let meant = self.meant.take().unwrap_or_else(Instant::now);
        let sent = Instant::now();
        let answer = self.caller.call(&write.ask).await;
        self.sent(write, (meant, sent), (answer, Instant::now()))
    }

    /// Writes keys to several locks at once. Those that were accepted.
    pub async fn write_all(&mut self, writes: &[KeyWrite]) -> Vec<Sent> {
        let meant = self.meant.take().unwrap_or_else(Instant::now);
        let asks: Vec<Ask> = writes.iter().map(|write| write.ask.clone()).collect();
        let sent = Instant::now();
        let answers = self.caller.call_all(&asks).await;
        let answered = writes.iter().zip(answers);
        answered
            .filter_map(|(write, answer)| self.sent(write, (meant, sent), answer))
            .collect()
    }

    fn sent(
        &self,
        write: &KeyWrite,
        (meant, sent): (Instant, Instant),
        (answer, answered): (Option<Answer>, Instant),
    ) -> Option<Sent> {
        let KeyWrite { ask, place, key } = write;
        self.note(ask, answer.as_ref(), answered - sent);
        let status = answer.as_ref().map(|answer| answer.status);
        if matches!(status, None | Some(504)) {
            self.recorder.undecided(key);
        }
        let answer = answer.filter(|answer| answer.status == 200)?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let version = body["event"].is_object().then(|| body["version"].as_u64());
        let write = Accepted {
            place: *place,
            key: key.clone(),
            version: version.flatten(),
            meant,
            answered,
        };
        self.recorder.accepted(write.clone());
        let Some(location) = answer.location else {
            let what = format!("{}: a 200 without Location", ask.name);
            self.recorder.unexpected(what);
            return None;
        };
        Some(Sent { location, write })
    }

    /// Looks at writes now and then until their locks have settled them.
    pub async fn follow(&mut self, mut open: Vec<Sent>, credential: &Credential) {
        while !open.is_empty() {
            sleep(LOOK_EVERY).await;
            for sent in std::mem::take(&mut open) {
                if self.is_over(&sent, credential).await {
                    continue;
                }
                match sent.write.answered.elapsed() < LOOK_FOR {
                    true => open.push(sent),
                    false => self.recorder.unconfirmed(1),
                }
            }
        }
    }

    async fn is_over(&mut self, sent: &Sent, credential: &Credential) -> bool {
        let Sent { location, write } = sent;
        let look = Ask {
            name: "read a write",
            endpoint: READ_WRITE,
            path: location.clone(),
            credential: credential.clone(),
            idempotency_key: None,
            body: None,
            expected: &[200],
        };
        let Some(answer) = self.ask(&look).await else {
            return false;
        };
        let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let Some(took) = settled_after(&status) else {
            return false;
        };
        if status["late"] == true {
            self.recorder.late();
        }
        match status["state"].as_str() {
            Some("SUCCEEDED") => self.recorder.settled(write.clone(), true, took),
            Some("FAILED") => self.recorder.settled(write.clone(), false, took),
            // Somebody else has written to the same slot.
            Some("SUPERSEDED") => {}
            _ => self.recorder.unconfirmed(1),
        }
        true
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
    (key, index): (String, u64),
    credential: &Credential,
) -> KeyWrite {
    let ask = Ask {
        name: "write a key",
        endpoint: WRITE_KEY,
        path: format!("/locks/{}/WriteKey", population.first_lock + place),
        credential: credential.clone(),
        idempotency_key: None,
        body: Some(format!(
            "{{\"keyUuid\":\"{key}\",\"keyIndexNumber\":{index}}}"
        )),
        expected: &[200],
    };
    KeyWrite { ask, place, key }
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

        async fn call_all(&mut self, asks: &[Ask]) -> Vec<(Option<Answer>, Instant)> {
            let mut answers = Vec::new();
            for ask in asks {
                answers.push((self.call(ask).await, Instant::now()));
            }
            answers
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
            expired_token: None,
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
        let write = || write_key(&population, 0, ("k".into(), 1), &credential);
        let sent = session.write(&write()).await.expect("accepted");
        assert_eq!(sent.write.version, Some(7));
        session.meant = Instant::now().checked_sub(late);
        assert_eq!(session.write_all(&[write(), write()]).await.len(), 2);
        let times = recorder.take().accept;
        assert_eq!(times.count(), 3);
        assert!(times.at(1.0) >= late, "{:?}", times.at(1.0));
        // They are kept to three digits.
        assert!(times.at(0.0) >= late * 99 / 100, "{:?}", times.at(0.0));
    }
}

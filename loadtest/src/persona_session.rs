//! Requests of a persona: sending them with a client, and recording the answers.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::population::Population;
use crate::recorder::{Accepted, Endpoint, Recorder};

/// The interval at which the status of a write is polled, and the longest time until it must be settled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
const POLL_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of key indexes of a virtual lock.
const KEY_CAPACITY: u64 = 100;

const WRITE_KEY: Endpoint = Endpoint {
    method: "POST",
    route: "/locks/{id}/WriteKey",
};

const READ_WRITE: Endpoint = Endpoint {
    method: "GET",
    route: "/locks/{id}/writes/{writeId}",
};

/// A credential: the name and the value of its header.
#[derive(Clone, Debug)]
pub struct Credential(&'static str, String);

impl Credential {
    /// A token.
    pub fn token(token: &str) -> Self {
        Self("Authorization", format!("Bearer {token}"))
    }

    /// An API key.
    pub fn api_key(key: &str) -> Self {
        Self("X-API-Key", key.to_owned())
    }
}

/// A request to the API.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// The name in reports.
    pub name: &'static str,
    /// The method, `GET` or `POST`, and the route of the path.
    pub endpoint: Endpoint,
    /// The path.
    pub path: String,
    /// The credential.
    pub credential: Credential,
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// A JSON body.
    pub body: Option<String>,
    /// The allowed statuses.
    pub expected: &'static [u16],
}

impl ApiRequest {
    /// The headers, except those of the connection.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Credential(name, credential) = &self.credential;
        let key = self.idempotency_key.as_deref();
        let key = key.map(|key| ("Idempotency-Key", key));
        let json = ("Content-Type", "application/json");
        let content = self.body.as_ref().map(|_| json);
        iter::once((*name, credential.as_str()))
            .chain(key)
            .chain(content)
    }
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

/// Sends requests, with Goose or with hyper.
#[async_trait]
pub trait Caller: Send {
    /// Sends a request. Returns `None` if the connection broke before the answer was complete.
    async fn call(&mut self, request: &ApiRequest) -> Option<Answer>;

    /// Sends requests concurrently. Returns each answer, as [`Caller::call`] does, with its time of arrival.
    async fn call_all(&mut self, requests: &[ApiRequest]) -> Vec<(Option<Answer>, Instant)>;

    /// Sends a request, and disconnects after this time even without an answer.
    async fn call_and_disconnect(&mut self, request: &ApiRequest, after: Duration);
}

/// A request to write a new key.
pub struct KeyWrite {
    /// The request.
    pub request: ApiRequest,
    /// The lock, as an offset to the first one of the population.
    pub offset: u64,
    /// The key.
    pub key: String,
}

/// An accepted write whose status can be polled.
pub struct OpenWrite {
    /// The path of its status.
    pub location: String,
    /// The write.
    pub write: Accepted,
}

/// One run of a persona.
pub struct Session<'a> {
    /// The client.
    pub caller: &'a mut dyn Caller,
    /// The locks and credentials.
    pub population: &'a Population,
    /// The recorder of the answers.
    pub recorder: &'a Arc<Recorder>,
    /// In an open loop, the intended time of the first request.
    pub intended_at: Option<Instant>,
}

impl Session<'_> {
    /// Sends a request and records the answer.
    pub async fn send(&mut self, request: &ApiRequest) -> Option<Answer> {
        let sent = Instant::now();
        let answer = self.caller.call(request).await;
        self.record(request, answer.as_ref(), sent.elapsed());
        answer
    }

    fn record(&self, request: &ApiRequest, answer: Option<&Answer>, took: Duration) {
        let (name, endpoint) = (request.name, request.endpoint);
        let status = answer.map(|answer| answer.status);
        self.recorder
            .answered(name, endpoint, request.expected, status, took);
    }

    /// Writes a key and records the latency. Returns the write if it was accepted.
    pub async fn write(&mut self, write: &KeyWrite) -> Option<OpenWrite> {
        let intended_at = self.intended_at.take().unwrap_or_else(Instant::now);
        let sent = Instant::now();
        let answer = self.caller.call(&write.request).await;
        self.accept(write, (intended_at, sent), (answer, Instant::now()))
    }

    /// Writes keys to several locks concurrently. Returns the accepted writes.
    pub async fn write_all(&mut self, writes: &[KeyWrite]) -> Vec<OpenWrite> {
        let intended_at = self.intended_at.take().unwrap_or_else(Instant::now);
        let requests: Vec<ApiRequest> = writes.iter().map(|write| write.request.clone()).collect();
        let sent = Instant::now();
        let answers = self.caller.call_all(&requests).await;
        let answered = writes.iter().zip(answers);
        answered
            .filter_map(|(write, answer)| self.accept(write, (intended_at, sent), answer))
            .collect()
    }

    fn accept(
        &self,
        write: &KeyWrite,
        (intended_at, sent): (Instant, Instant),
        (answer, answered_at): (Option<Answer>, Instant),
    ) -> Option<OpenWrite> {
        let KeyWrite {
            request,
            offset,
            key,
        } = write;
        self.record(request, answer.as_ref(), answered_at - sent);
        let status = answer.as_ref().map(|answer| answer.status);
        if matches!(status, None | Some(504)) {
            self.recorder.undecided(key);
        }
        let answer = answer.filter(|answer| answer.status == 200)?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let version = body["event"].is_object().then(|| body["version"].as_u64());
        let write = Accepted {
            offset: *offset,
            key: key.clone(),
            version: version.flatten(),
            intended_at,
            answered_at,
        };
        self.recorder.accepted(write.clone());
        let Some(location) = answer.location else {
            let what = format!("{}: a 200 without Location", request.name);
            self.recorder.unexpected(what);
            return None;
        };
        Some(OpenWrite { location, write })
    }

    /// Polls the status of writes until their locks have settled them.
    pub async fn follow(&mut self, mut open: Vec<OpenWrite>, credential: &Credential) {
        while !open.is_empty() {
            sleep(POLL_INTERVAL).await;
            for write in std::mem::take(&mut open) {
                if self.is_settled(&write, credential).await {
                    continue;
                }
                match write.write.answered_at.elapsed() < POLL_TIMEOUT {
                    true => open.push(write),
                    false => self.recorder.unconfirmed(1),
                }
            }
        }
    }

    async fn is_settled(&mut self, open: &OpenWrite, credential: &Credential) -> bool {
        let OpenWrite { location, write } = open;
        let request = ApiRequest {
            name: "read a write",
            endpoint: READ_WRITE,
            path: location.clone(),
            credential: credential.clone(),
            idempotency_key: None,
            body: None,
            expected: &[200],
        };
        let Some(answer) = self.send(&request).await else {
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
            // Another client has written to the same key index.
            Some("SUPERSEDED") => {}
            _ => self.recorder.unconfirmed(1),
        }
        true
    }
}

/// The time from the request of a write to its end, by the clock of the service.
fn settled_after(status: &Value) -> Option<Duration> {
    let time = |name: &str| {
        let text = status[name].as_str()?;
        humantime::parse_rfc3339(text).ok()
    };
    let (requested, settled) = (time("requestedAt")?, time("settledAt")?);
    Some(settled.duration_since(requested).unwrap_or_default())
}

/// A request to write a new key to a lock, at a random index, so that few writes supersede each other.
pub fn write_key(population: &Population, offset: u64, credential: &Credential) -> KeyWrite {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    let n = KEYS.fetch_add(1, Ordering::Relaxed);
    let key = format!("load-{:08x}-{n}", fastrand::u32(..));
    let index = fastrand::u64(0..KEY_CAPACITY);
    let request = ApiRequest {
        name: "write a key",
        endpoint: WRITE_KEY,
        path: format!("/locks/{}/WriteKey", population.first_lock + offset),
        credential: credential.clone(),
        idempotency_key: None,
        body: Some(format!(
            "{{\"keyUuid\":\"{key}\",\"keyIndexNumber\":{index}}}"
        )),
        expected: &[200],
    };
    KeyWrite {
        request,
        offset,
        key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A caller that answers at once.
    struct ImmediateCaller;

    #[async_trait]
    impl Caller for ImmediateCaller {
        async fn call(&mut self, _: &ApiRequest) -> Option<Answer> {
            Some(Answer {
                status: 200,
                location: Some("/locks/1/writes/w".into()),
                body: Bytes::from_static(b"{\"version\":7,\"event\":{}}"),
            })
        }

        async fn call_all(&mut self, requests: &[ApiRequest]) -> Vec<(Option<Answer>, Instant)> {
            let mut answers = Vec::new();
            for request in requests {
                answers.push((self.call(request).await, Instant::now()));
            }
            answers
        }

        async fn call_and_disconnect(&mut self, _: &ApiRequest, _: Duration) {}
    }

    #[tokio::test]
    async fn the_latency_of_a_late_write_counts_from_its_intended_time() {
        let population = Population {
            first_lock: 1,
            locks: 1,
            api_keys: vec!["key".into()],
            tokens: vec!["token".into()],
            forged_token: "forged".into(),
            expired_token: None,
        };
        let (recorder, mut caller) = (Arc::new(Recorder::default()), ImmediateCaller);
        let late = Duration::from_millis(300);
        let mut session = Session {
            caller: &mut caller,
            population: &population,
            recorder: &recorder,
            intended_at: Instant::now().checked_sub(late),
        };
        let credential = Credential::api_key("key");
        let write = || write_key(&population, 0, &credential);
        let sent = session.write(&write()).await.expect("accepted");
        assert_eq!(sent.write.version, Some(7));
        session.intended_at = Instant::now().checked_sub(late);
        assert_eq!(session.write_all(&[write(), write()]).await.len(), 2);
        let times = recorder.take().accept;
        assert_eq!(times.count(), 3);
        assert!(times.quantile(1.0) >= late, "{:?}", times.quantile(1.0));
        // Latencies have three significant digits.
        assert!(
            times.quantile(0.0) >= late * 99 / 100,
            "{:?}",
            times.quantile(0.0)
        );
    }
}

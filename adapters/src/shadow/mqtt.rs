//! Shadows over raw MQTT: AWS IoT Core's, or those of a shadow service behind a broker of one's own.

use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    ClientToken, FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName,
};
use keywright_domain::ports::{ShadowError, ShadowPort};
use keywright_mqtt::Broker;
use keywright_shadow::ShadowName;
use keywright_shadow::mqtt::{Limits, Operation, RequestError, ShadowClient};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::throttle_backoff::ThrottleBackoff;
use super::{document, outcome};

/// The thing whose shadow is asked for to see whether anybody answers.
const PROBE: &str = "keywright-probe";

/// One named shadow of every thing, or several among which the things are shared out: every connection hears
/// every answer of its shadow, and AWS drops what exceeds 100 messages a second and connection.
pub struct MqttShadow {
    shards: Vec<Shard>,
    timeout: Duration,
}

struct Shard {
    client: ShadowClient,
    throttle_backoff: ThrottleBackoff,
}

/// The names of the shadows among which things are shared out: `keys` alone, or `keys-0`, `keys-1` …
pub fn shard_names(name: &str, shards: usize) -> Vec<String> {
    match shards {
        0 | 1 => vec![name.to_owned()],
        many => (0..many).map(|n| format!("{name}-{n}")).collect(),
    }
}

/// Which of the shards is a thing's: 32 bits of FNV-1a over its name, modulo their number. Locks have to know it,
/// so it never changes.
fn shard_of(thing: &str, shards: usize) -> usize {
    let hash = thing.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash as usize % shards.max(1)
}

impl MqttShadow {
    /// Starts to connect, a connection a shard. `client_id` must be unique on the broker; with several shards each
    /// has its number behind it. Each call may take `timeout`, of which it waits for a connection as long as it
    /// has to.
    ///
    /// # Panics
    /// There is no shard.
    pub fn start(
        broker: &Broker,
        client_id: &str,
        shards: &[String],
        limits: Limits,
        timeout: Duration,
    ) -> Self {
        assert!(!shards.is_empty(), "a shadow has a name");
        let start = |(n, name): (usize, &String)| {
            let id = match n {
                0 => client_id.to_owned(),
                n => format!("{client_id}:{n}"),
            };
            let shadow = ShadowName::Named(name.clone());
            Shard {
                client: ShadowClient::start(broker.clone(), &id, shadow, limits),
                throttle_backoff: ThrottleBackoff::new(),
            }
        };
        Self {
            shards: shards.iter().enumerate().map(start).collect(),
            timeout,
        }
    }

    /// Whether each shard's answers would be heard, and how that changes.
    pub fn up(&self) -> Vec<watch::Receiver<bool>> {
        self.shards.iter().map(|shard| shard.client.up()).collect()
    }

    /// Whether somebody answers for the shadows of each shard: nobody does on a broker without a shadow service, or
    /// where its access list lets nothing pass. `None`: it could not be asked, because the connection is gone or has
    /// too much to do.
    pub async fn is_answered(&self) -> Option<bool> {
        for (n, shard) in self.shards.iter().enumerate() {
            let token = format!("probe.{n}.{:016x}", fastrand::u64(..));
            let body = json!({ "clientToken": token });
            let asked = shard
                .client
                .request(Operation::Get, PROBE, &token, &body, self.timeout);
            match asked.await {
                Ok(_) | Err(RequestError::Rejected { .. }) => {}
                Err(RequestError::NotSent(_)) => return None,
                Err(RequestError::Unknown(_)) => return Some(false),
            }
        }
        Some(true)
    }

    /// The outer error: it is held back for too long, because the service has refused others.
    async fn request(
        &self,
        operation: Operation,
        thing: &ThingName,
        token: &ClientToken,
        body: Value,
    ) -> Result<Result<Value, RequestError>, ShadowError> {
        let shard = &self.shards[shard_of(thing.as_str(), self.shards.len())];
        let start = Instant::now();
        if !shard.throttle_backoff.wait(self.timeout / 2).await {
            return Err(outcome::throttled());
        }
        let left = self.timeout.saturating_sub(start.elapsed());
        let (client, token) = (&shard.client, token.as_str());
        let answer = client
            .request(operation, thing.as_str(), token, &body, left)
            .await;
        match &answer {
            Ok(_) => shard.throttle_backoff.taken(),
            Err(RequestError::Rejected { code: 429, .. }) => {
                shard.throttle_backoff.throttled(thing.as_str(), None);
            }
            Err(_) => {}
        }
        Ok(answer)
    }
}

fn error(error: RequestError) -> ShadowError {
    match error {
        RequestError::NotSent(why) => outcome::not_sent(FailureReason::Unavailable, why),
        RequestError::Rejected { code, message } => {
            outcome::of_code(code, format!("{code} {message}"))
        }
        RequestError::Unknown(why) => ShadowError::Unknown(why),
    }
}

#[async_trait]
impl ShadowPort for MqttShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let body = document::update_body(&change);
        let answer = self.request(Operation::Update, thing, &change.token, body);
        let answer = answer.await?.map_err(error)?;
        document::version(&answer).ok_or_else(outcome::unreadable)
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let body = json!({ "clientToken": token.as_str() });
        match self.request(Operation::Get, thing, &token, body).await? {
            Ok(answer) => document::snapshot(&answer)
                .map(Some)
                .ok_or_else(outcome::unreadable),
            Err(RequestError::Rejected { code: 404, .. }) => Ok(None),
            Err(other) => Err(error(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_shared_out_for_ever_in_the_same_way() {
        assert_eq!(shard_names("keys", 1), ["keys"]);
        assert_eq!(shard_names("keys", 3), ["keys-0", "keys-1", "keys-2"]);
        // Checked against another program's FNV-1a: 32 bits of it are part of the device contract.
        let hashes = ["a", "door-1", "door-2", "demo-lock-123"].map(|t| shard_of(t, 1 << 31));
        let expected = [0x640c_292c, 1_040_729_543, 1_057_507_162, 1_604_509_559];
        assert_eq!(hashes, expected);
        let mut counts = [0; 8];
        for n in 0..8000 {
            counts[shard_of(&format!("door-{n}"), 8)] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }
}

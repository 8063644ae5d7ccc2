//! Shadows over MQTT: those of AWS IoT Core, or of a shadow service on another broker.

use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{
    ClientToken, FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName,
};
use keywright_domain::ports::{ShadowError, ShadowPort};
use keywright_mqtt::Broker;
use keywright_shadow::ShadowName;
use keywright_shadow::mqtt::{ClientLimits, Operation, RequestError, ShadowClient};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::throttle_backoff::ThrottleBackoff;
use super::{document_json, status_code};

/// The thing whose shadow is requested to check whether a shadow service answers.
const PROBE_THING: &str = "keywright-probe";

/// One named shadow of each thing, or one of several shards to which things are assigned: each connection receives all answers
/// of its shadow, and AWS drops messages above 100 per second and connection.
pub struct MqttShadow {
    shards: Vec<Shard>,
    timeout: Duration,
}

struct Shard {
    client: ShadowClient,
    throttle_backoff: ThrottleBackoff,
}

/// The names of the shards: `name` alone, or `name-0`, `name-1`, and so on.
pub fn shard_names(name: &str, shards: usize) -> Vec<String> {
    match shards {
        0 | 1 => vec![name.to_owned()],
        many => (0..many).map(|n| format!("{name}-{n}")).collect(),
    }
}

/// The shard of a thing: 32 bits of FNV-1a over its name, modulo the number of shards. It is part of the device contract.
fn shard_of(thing: &str, shards: usize) -> usize {
    let hash = thing.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash as usize % shards.max(1)
}

impl MqttShadow {
    /// Starts one connection for each shard. `client_id` must be unique on the broker; the client ids of the second and further
    /// connections have the number of the shard as a suffix. `timeout` bounds each call, with the wait for a connection.
    ///
    /// # Panics
    /// `shards` is empty.
    pub fn start(
        broker: &Broker,
        client_id: &str,
        shards: &[String],
        limits: ClientLimits,
        timeout: Duration,
    ) -> Self {
        assert!(!shards.is_empty(), "there is at least one shard");
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

    /// Whether each shard is connected and subscribed to its answers.
    pub fn up(&self) -> Vec<watch::Receiver<bool>> {
        self.shards.iter().map(|shard| shard.client.up()).collect()
    }

    /// Whether a shadow service answers for each shard. None does on a broker without one, or if the broker's access list
    /// denies the topics. `None`: a request could not be sent, because a connection is lost or busy.
    pub async fn is_answered(&self) -> Option<bool> {
        for (n, shard) in self.shards.iter().enumerate() {
            let token = format!("probe.{n}.{:016x}", fastrand::u64(..));
            let body = json!({ "clientToken": token });
            let answer =
                shard
                    .client
                    .request(Operation::Get, PROBE_THING, &token, &body, self.timeout);
            match answer.await {
                Ok(_) | Err(RequestError::Rejected { .. }) => {}
                Err(RequestError::NotSent(_)) => return None,
                Err(RequestError::Unknown(_)) => return Some(false),
            }
        }
        Some(true)
    }

    /// The outer error: the request was held back for too long, because the service has throttled others.
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
            return Err(status_code::throttled());
        }
        let remaining = self.timeout.saturating_sub(start.elapsed());
        let (client, token) = (&shard.client, token.as_str());
        let answer = client
            .request(operation, thing.as_str(), token, &body, remaining)
            .await;
        match &answer {
            Ok(_) => shard.throttle_backoff.accepted(),
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
        RequestError::NotSent(why) => status_code::not_sent(FailureReason::Unavailable, why),
        RequestError::Rejected { code, message } => {
            status_code::of_code(code, format!("{code} {message}"))
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
        let body = document_json::update_body(&change);
        let answer = self.request(Operation::Update, thing, &change.token, body);
        let answer = answer.await?.map_err(error)?;
        document_json::version(&answer).ok_or_else(status_code::unreadable)
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let body = json!({ "clientToken": token.as_str() });
        match self.request(Operation::Get, thing, &token, body).await? {
            Ok(answer) => document_json::snapshot(&answer)
                .map(Some)
                .ok_or_else(status_code::unreadable),
            Err(RequestError::Rejected { code: 404, .. }) => Ok(None),
            Err(other) => Err(error(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_a_thing_never_changes() {
        assert_eq!(shard_names("keys", 1), ["keys"]);
        assert_eq!(shard_names("keys", 3), ["keys-0", "keys-1", "keys-2"]);
        // Computed by another implementation of FNV-1a.
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

//! Requests for a shadow that does not exist, which show whether a service answers on a broker.

use std::time::Duration;

use keywright_mqtt::Broker;
use serde_json::json;
use tracing::warn;

use super::client::{ClientLimits, RequestError, ShadowClient};
use super::topic::Operation;
use crate::name::ShadowName;

/// The thing, and its named shadow, that probes ask for.
pub(super) const THING: &str = "keywright-probe";

/// How long another service may take to answer a probe.
const OTHER_SERVICE_TIMEOUT: Duration = Duration::from_millis(600);

/// How long this service may take to answer a probe.
const OWN_SERVICE_TIMEOUT: Duration = Duration::from_secs(4);

struct Probe {
    client: ShadowClient,
    id: String,
}

impl Probe {
    fn start(broker: Broker) -> Self {
        let id = format!("{THING}-{:016x}", fastrand::u64(..));
        let shadow = ShadowName::Named(THING.to_owned());
        let client = ShadowClient::start(broker, &id, shadow, ClientLimits::SELF_HOSTED);
        Self { client, id }
    }

    /// `Ok(true)`: a service answers. `Ok(false)`: none answers in time. An error means that the request could not be sent.
    async fn is_answered(&self, timeout: Duration) -> Result<bool, RequestError> {
        let body = json!({ "clientToken": self.id });
        let request = self
            .client
            .request(Operation::Get, THING, &self.id, &body, timeout);
        match request.await {
            Ok(_) | Err(RequestError::Rejected { .. }) => Ok(true),
            Err(RequestError::Unknown(_)) => Ok(false),
            Err(error @ RequestError::NotSent(_)) => Err(error),
        }
    }
}

/// Whether a service answers on the broker. Waits until the broker can be reached, and then for this many probes without an answer.
pub(super) async fn another_service_answers(broker: &Broker, max_unanswered: u32) -> bool {
    let probe = Probe::start(broker.clone());
    let mut up = probe.client.up();
    let mut unanswered = 0;
    while unanswered < max_unanswered {
        // The client never ends by itself, so there is no error.
        let _ = up.wait_for(|up| *up).await;
        match probe.is_answered(OTHER_SERVICE_TIMEOUT).await {
            Ok(true) => return true,
            Ok(false) if *up.borrow() => unanswered += 1,
            // The connection was lost in the meantime, so a missing answer means nothing.
            Ok(false) | Err(_) => {}
        }
    }
    false
}

/// Warns if a request of our own does not arrive: a broker may grant a subscription and still, by its access list, drop the messages.
pub(super) async fn check_access(broker: Broker) {
    let probe = Probe::start(broker);
    if let Ok(false) = probe.is_answered(OWN_SERVICE_TIMEOUT).await {
        warn!(
            "the service does not receive its own request; check that this user may publish and subscribe to $aws/things/# \
             on the broker"
        );
    }
}

//! Shadows on a broker, over two connections: one for requests, one for deltas.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keywright_mqtt::{Broker, Handler, Message, Session, SessionOptions};
use keywright_shadow::ShadowName;
use keywright_shadow::mqtt::{ClientLimits, Operation, RequestError, ShadowClient, Topic};
use serde_json::{Map, Value};
use tokio::sync::{Notify, mpsc};

use super::wake_signal::Signal;

/// How long a request of a lock may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Deltas that may be queued. Further ones wake all locks.
const MAX_QUEUED: usize = 4096;

/// Reads and updates shadows.
#[derive(Clone)]
pub(crate) struct Requests {
    client: ShadowClient,
    count: Arc<AtomicU64>,
}

/// Receives deltas.
pub(crate) struct Deltas {
    things: mpsc::Receiver<String>,
    /// Notified when deltas may have been missed.
    missed: Arc<Notify>,
    _session: Session,
}

pub(super) fn connect(broker: Broker, shadow: ShadowName) -> (Requests, Deltas) {
    let id = format!("virtual-locks-{:016x}", fastrand::u64(..));
    let (tx, things) = mpsc::channel(MAX_QUEUED);
    let options = SessionOptions {
        client_id: format!("{id}-deltas"),
        filters: vec![Topic::text("+", &shadow, "update/delta")],
        persistent_session: false,
        manual_acks: false,
    };
    let missed = Arc::new(Notify::new());
    let handler = DeltaHandler {
        things: tx,
        missed: missed.clone(),
    };
    let deltas = Deltas {
        things,
        missed,
        _session: Session::start(broker.clone(), options, handler),
    };
    let requests = Requests {
        client: ShadowClient::start(broker, &id, shadow, ClientLimits::SELF_HOSTED),
        count: Arc::default(),
    };
    (requests, deltas)
}

impl Requests {
    pub(super) async fn desired(&self, thing: &str) -> Result<Map<String, Value>, RequestError> {
        match self.request(Operation::Get, thing, Map::new()).await {
            Ok(answer) => {
                let desired = answer.pointer("/state/desired").and_then(Value::as_object);
                Ok(desired.cloned().unwrap_or_default())
            }
            Err(RequestError::Rejected { code: 404, .. }) => Ok(Map::new()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn update(&self, thing: &str, body: &Value) -> Result<(), RequestError> {
        let body = body.as_object().cloned().unwrap_or_default();
        self.request(Operation::Update, thing, body).await.map(drop)
    }

    async fn request(
        &self,
        operation: Operation,
        thing: &str,
        mut body: Map<String, Value>,
    ) -> Result<Value, RequestError> {
        // Unique within this client, and at most 64 bytes long.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let token = format!("{thing:.40}.{count}");
        body.insert("clientToken".into(), token.as_str().into());
        let client = &self.client;
        client
            .request(operation, thing, &token, &body.into(), REQUEST_TIMEOUT)
            .await
    }
}

impl Deltas {
    pub(super) async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            biased;
            () = self.missed.notified() => Some(Signal::All),
            thing = self.things.recv() => thing.map(Signal::One),
        }
    }
}

struct DeltaHandler {
    things: mpsc::Sender<String>,
    missed: Arc<Notify>,
}

impl Handler for DeltaHandler {
    fn connected(&mut self, _: u64) {
        // Deltas before the subscription were not received.
        self.missed.notify_one();
    }

    fn disconnected(&mut self, _: u64, _: &str) {}

    fn message_received(&mut self, message: Message) {
        if let Some(topic) = Topic::parse(message.topic())
            && self.things.try_send(topic.thing.to_owned()).is_err()
        {
            self.missed.notify_one();
        }
    }
}

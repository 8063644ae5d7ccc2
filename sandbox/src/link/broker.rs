//! Shadows behind a broker, on two connections: one for requests, one for deltas.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keywright_mqtt::{Broker, Handler, Message, Session, SessionOptions};
use keywright_shadow::ShadowName;
use keywright_shadow::mqtt::{Limits, Operation, RequestError, ShadowClient, Topic};
use serde_json::{Map, Value};
use tokio::sync::{Notify, mpsc};

use super::News;

/// How long a lock waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Deltas that may wait to be looked at.
const WAITING: usize = 4096;

/// Asks for shadows and changes them.
#[derive(Clone)]
pub(crate) struct Requests {
    client: ShadowClient,
    count: Arc<AtomicU64>,
}

pub(crate) struct Deltas {
    news: mpsc::Receiver<String>,
    /// Deltas may have been missed.
    missed: Arc<Notify>,
    _session: Session,
}

pub(super) fn connect(broker: Broker, shadow: ShadowName) -> (Requests, Deltas) {
    let id = format!("virtual-locks-{:016x}", fastrand::u64(..));
    let (tell, news) = mpsc::channel(WAITING);
    let options = SessionOptions {
        client_id: format!("{id}-deltas"),
        filters: vec![Topic::text("+", &shadow, "update/delta")],
        persistent: false,
        manual_acks: false,
    };
    let missed = Arc::new(Notify::new());
    let listener = Listener {
        tell,
        missed: missed.clone(),
    };
    let deltas = Deltas {
        news,
        missed,
        _session: Session::start(broker.clone(), options, listener),
    };
    let requests = Requests {
        client: ShadowClient::start(broker, &id, shadow, Limits::OWN_BROKER),
        count: Arc::default(),
    };
    (requests, deltas)
}

impl Requests {
    pub(super) async fn desired(&self, thing: &str) -> Result<Map<String, Value>, String> {
        match self.request(Operation::Get, thing, Map::new()).await {
            Ok(answer) => {
                let desired = answer.pointer("/state/desired").and_then(Value::as_object);
                Ok(desired.cloned().unwrap_or_default())
            }
            Err(RequestError::Rejected { code: 404, .. }) => Ok(Map::new()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) async fn update(&self, thing: &str, body: &Value) -> Result<(), String> {
        let body = body.as_object().cloned().unwrap_or_default();
        let answer = self.request(Operation::Update, thing, body).await;
        answer.map(drop).map_err(|error| error.to_string())
    }

    async fn request(
        &self,
        operation: Operation,
        thing: &str,
        mut body: Map<String, Value>,
    ) -> Result<Value, RequestError> {
        // Unique among all that ever wait here, and at most 64 bytes.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let token = format!("{thing:.40}.{count}");
        body.insert("clientToken".into(), token.as_str().into());
        let client = &self.client;
        client
            .request(operation, thing, &token, &body.into(), PATIENCE)
            .await
    }
}

impl Deltas {
    pub(super) async fn next(&mut self) -> Option<News> {
        tokio::select! {
            biased;
            () = self.missed.notified() => Some(News::OfAll),
            thing = self.news.recv() => thing.map(News::Of),
        }
    }
}

struct Listener {
    tell: mpsc::Sender<String>,
    missed: Arc<Notify>,
}

impl Handler for Listener {
    fn up(&mut self, _: u64) {
        self.missed.notify_one();
    }

    fn down(&mut self, _: u64, _: &str) {}

    fn message(&mut self, message: Message) {
        let topic = Topic::parse(message.topic());
        let told = topic.map(|topic| self.tell.try_send(topic.thing.to_owned()));
        if matches!(told, Some(Err(_))) {
            self.missed.notify_one();
        }
    }
}

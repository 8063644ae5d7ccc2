//! The service on a broker: serves the requests that arrive there, and publishes every change of a shadow, also those that were
//! made in another way.

use std::sync::Arc;
use std::time::Duration;

use keywright_mqtt::{Broker, Session, SessionOptions};
use tokio::sync::broadcast::Receiver;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::info;

use super::message_faults::Disorder;
use super::probe;
use super::publisher::Publisher;
use super::requests::RequestHandler;
use super::topic::{Operation, Topic};
use crate::message::Announcement;
use crate::name::ShadowName;
use crate::service::ShadowService;

/// Finished requests that may wait to be published and acknowledged.
const MAX_FINISHED: usize = 4096;

/// How many probes another service may leave unanswered before this one attaches: at the start, and after a lost connection.
const PROBES_AT_START: u32 = 3;
const PROBES_AFTER_LOSS: u32 = 1;

/// Options of a service on a broker.
#[derive(Clone, Default)]
pub struct Options {
    /// Delays, repeats or drops messages of the service. `None`: they are published as they come.
    pub disorder: Option<Disorder>,
}

/// Why the service is no longer on its broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// Two services on one broker would answer each request twice, from different stores.
    #[error("another shadow service answers on this broker; there can be only one")]
    AnotherService,
    /// The frontend's task ended without a reason, for example because it panicked.
    #[error("the service is no longer attached to the broker: its task has ended")]
    Ended,
}

/// Serves shadows on a broker until it is dropped.
pub struct MqttFrontend {
    up: watch::Receiver<bool>,
    tasks: JoinSet<FrontendError>,
}

impl MqttFrontend {
    /// The MQTT client id of the service. The broker keeps messages for it while the service is not connected.
    pub const CLIENT_ID: &str = "keywright-shadow";

    /// Starts to connect, and connects again after each lost connection.
    pub fn start(service: ShadowService, broker: Broker, options: Options) -> Self {
        let (tx, up) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(run(service, broker, options, tx));
        Self { up, tasks }
    }

    /// Whether the service receives requests, as a value that can be watched.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// Waits until the service receives requests.
    ///
    /// # Errors
    /// The frontend has ended.
    pub async fn wait_until_up(&mut self) -> Result<(), FrontendError> {
        let mut up = self.up();
        tokio::select! {
            Ok(_) = up.wait_for(|up| *up) => Ok(()),
            error = self.ended() => Err(error),
        }
    }

    /// Waits until the frontend ends, and returns why.
    pub async fn ended(&mut self) -> FrontendError {
        match self.tasks.join_next().await {
            Some(Ok(error)) => error,
            _ => FrontendError::Ended,
        }
    }
}

async fn run(
    service: ShadowService,
    broker: Broker,
    options: Options,
    up: watch::Sender<bool>,
) -> FrontendError {
    // Subscribed once for all connections: changes without a connection are published on the next one.
    let mut announcements = service.subscribe_all();
    let mut probes = PROBES_AT_START;
    loop {
        // Repeated before each connection: another service may have taken over during an outage.
        if probe::another_service_answers(&broker, probes).await {
            return FrontendError::AnotherService;
        }
        probes = PROBES_AFTER_LOSS;
        serve(&service, &broker, &options, &mut announcements, &up).await;
        up.send_replace(false);
    }
}

/// Serves on one connection until it is lost.
async fn serve(
    service: &ShadowService,
    broker: &Broker,
    options: &Options,
    announcements: &mut Receiver<Arc<Announcement>>,
    up: &watch::Sender<bool>,
) {
    let (finished_tx, finished) = mpsc::channel(MAX_FINISHED);
    let mut tasks = JoinSet::new();
    let (connected_tx, mut connected) = watch::channel(false);
    let (lost_tx, mut lost) = watch::channel(false);
    let handler = RequestHandler::start(service, finished_tx, connected_tx, lost_tx, &mut tasks);
    let session = Session::start(broker.clone(), session_options(), handler);
    tokio::select! {
        _ = connected.wait_for(|connected| *connected) => {}
        _ = lost.wait_for(|lost| *lost) => return,
    }
    let Ok(connection) = session.connection_within(Duration::from_secs(1)).await else {
        return;
    };
    info!("shadows are served on the broker");
    tasks.spawn(probe::check_access(broker.clone()));
    let publisher = Publisher::new(connection, options.disorder.clone());
    let publish = async {
        let deltas_to_repeat = publisher.catch_up(service, announcements).await?;
        // Only now: the deltas of later changes are published once, with their client tokens.
        up.send_replace(true);
        publisher
            .run(service, announcements, finished, deltas_to_repeat)
            .await
    };
    tokio::select! {
        // It ends when the connection is over.
        _ = publish => {}
        _ = lost.wait_for(|lost| *lost) => {}
    }
}

/// Subscribes to the requests for all shadows.
fn session_options() -> SessionOptions {
    let operations = [Operation::Update, Operation::Get, Operation::Delete].map(Operation::name);
    let shadows = [ShadowName::Classic, ShadowName::Named("+".to_owned())];
    let filters = shadows
        .iter()
        .flat_map(|shadow| operations.map(|operation| Topic::text("+", shadow, operation)));
    SessionOptions {
        client_id: MqttFrontend::CLIENT_ID.to_owned(),
        filters: filters.collect(),
        persistent_session: true,
        manual_acks: true,
    }
}

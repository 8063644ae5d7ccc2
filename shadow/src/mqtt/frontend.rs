//! The service attached to a broker: requests that arrive there are done, and everyone hears of it there, also
//! of what was changed another way.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use keywright_mqtt::{Broker, Handler, MAX_PAYLOAD_BYTES, Message, Session, SessionOptions};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::client::{Limits, RequestError, ShadowClient};
use super::disorder::Disorder;
use super::intake::{Decision, Intake, Waiting};
use super::publisher::{Done, Publisher};
use super::topic::{Operation, Topic};
use crate::engine::Rejected;
use crate::message::Announcement;
use crate::name::ShadowName;
use crate::service::ShadowService;

/// Requests of different things are done at once, those of one thing one after the other.
const WORKERS: usize = 64;

/// Requests that may wait for one worker.
const QUEUE: usize = 256;

/// Answers that may wait to be published.
const ANSWERS: usize = 4096;

/// How long another service may take to show that it is there, and how often it is asked before this one first takes
/// its place.
const ANOTHER: Duration = Duration::from_millis(600);
const FIRST_TRIES: u32 = 3;

/// How long an answer of our own may take.
const ANSWER: Duration = Duration::from_secs(4);

/// The shadow that is asked for to find another service.
const PROBE: &str = "keywright-probe";

/// How the service behaves on its broker.
#[derive(Clone, Default)]
pub struct Options {
    /// What becomes of its messages; `None`: they are published as they come.
    pub disorder: Option<Disorder>,
}

/// Why the service is not attached any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// Two services on one broker would answer each request twice, from different books.
    #[error("another shadow service answers on this broker; there can be only one")]
    AnotherService,
    /// A task of it has ended, which it never should.
    #[error("the attachment to the broker has ended")]
    Ended,
}

/// A service on its broker, until this is dropped.
pub struct MqttFrontend {
    up: watch::Receiver<bool>,
    tasks: JoinSet<FrontendError>,
}

impl MqttFrontend {
    /// The id by which a broker knows the service: what arrives while it is away is kept for it.
    pub const CLIENT_ID: &str = "keywright-shadow";

    /// Attaches the service, now or as soon as the broker can be reached, and again after each connection.
    pub fn start(service: ShadowService, broker: Broker, options: Options) -> Self {
        let (tell, up) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(attach(service, broker, options, tell));
        Self { up, tasks }
    }

    /// Whether requests are heard, and how that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// Waits until the service is attached.
    ///
    /// # Errors
    /// It never will be.
    pub async fn wait_until_up(&mut self) -> Result<(), FrontendError> {
        let mut up = self.up();
        tokio::select! {
            Ok(_) = up.wait_for(|up| *up) => Ok(()),
            why = self.ended() => Err(why),
        }
    }

    /// Waits for its end: why it is not attached any more.
    pub async fn ended(&mut self) -> FrontendError {
        match self.tasks.join_next().await {
            Some(Ok(why)) => why,
            _ => FrontendError::Ended,
        }
    }
}

async fn attach(
    service: ShadowService,
    broker: Broker,
    options: Options,
    up: watch::Sender<bool>,
) -> FrontendError {
    // What is changed while there is no connection is published on the next one.
    let mut announcements = service.subscribe_all();
    let mut tries = FIRST_TRIES;
    loop {
        // Before each connection: whoever took this one's place while it was away stays.
        if another_answers(&broker, tries).await {
            return FrontendError::AnotherService;
        }
        tries = 1;
        serve(&service, &broker, &options, &mut announcements, &up).await;
        up.send_replace(false);
    }
}

/// Whether somebody answers for shadows on the broker, as soon as that can be reached.
async fn another_answers(broker: &Broker, tries: u32) -> bool {
    let id = format!("{PROBE}-{:016x}", fastrand::u64(..));
    let shadow = ShadowName::Named(PROBE.to_owned());
    let client = ShadowClient::start(broker.clone(), &id, shadow, Limits::OWN_BROKER);
    let mut up = client.up();
    let mut silent = 0;
    while silent < tries {
        // The client never ends by itself.
        let _ = up.wait_for(|up| *up).await;
        let body = json!({ "clientToken": id });
        match client
            .request(Operation::Get, PROBE, &id, &body, ANOTHER)
            .await
        {
            Ok(_) | Err(RequestError::Rejected { .. }) => return true,
            Err(RequestError::Unknown(_)) if *up.borrow() => silent += 1,
            // The connection was lost meanwhile: the silence says nothing.
            Err(_) => {}
        }
    }
    false
}

/// A broker that grants a subscription may all the same pass nothing on, where its access list does not allow it.
async fn hear_oneself(broker: Broker) {
    let id = format!("{PROBE}-{:016x}", fastrand::u64(..));
    let shadow = ShadowName::Named(PROBE.to_owned());
    let client = ShadowClient::start(broker, &id, shadow, Limits::OWN_BROKER);
    let body = json!({ "clientToken": id });
    let asked = client.request(Operation::Get, PROBE, &id, &body, ANSWER);
    if let Err(RequestError::Unknown(_)) = asked.await {
        warn!(
            "a request of our own did not arrive: may this user publish and subscribe to $aws/things/# \
             on the broker?"
        );
    }
}

/// One connection, until it is lost.
async fn serve(
    service: &ShadowService,
    broker: &Broker,
    options: &Options,
    announcements: &mut Receiver<Arc<Announcement>>,
    up: &watch::Sender<bool>,
) {
    let operations = [Operation::Update, Operation::Get, Operation::Delete].map(Operation::name);
    let shadows = [ShadowName::Classic, ShadowName::Named("+".to_owned())];
    let filters = shadows
        .iter()
        .flat_map(|shadow| operations.map(|operation| Topic::text("+", shadow, operation)));
    let session = SessionOptions {
        client_id: MqttFrontend::CLIENT_ID.to_owned(),
        filters: filters.collect(),
        persistent: true,
        manual_acks: true,
    };
    let (answers, to_publish) = mpsc::channel(ANSWERS);
    let mut tasks = JoinSet::new();
    let workers = (0..WORKERS).map(|_| {
        let (requests, queue) = mpsc::channel(QUEUE);
        tasks.spawn(work(service.clone(), queue, answers.clone()));
        requests
    });
    let (lost, mut over) = watch::channel(false);
    let (connected, mut connection_up) = watch::channel(false);
    let handler = Requests {
        workers: workers.collect(),
        hash: RandomState::new(),
        intakes: [Intake::new(), Intake::new()],
        answers: answers.clone(),
        lost,
        connected,
    };
    let session = Session::start(broker.clone(), session, handler);
    tokio::select! {
        _ = connection_up.wait_for(|up| *up) => {}
        _ = over.wait_for(|over| *over) => return,
    }
    let Ok(connection) = session.connection_within(Duration::from_secs(1)).await else {
        return;
    };
    info!("shadows are served on the broker");
    tasks.spawn(hear_oneself(broker.clone()));
    let publisher = Publisher::new(connection, options.disorder.clone());
    up.send_replace(true);
    tokio::select! {
        () = publisher.run(service, announcements, to_publish) => {}
        _ = over.wait_for(|over| *over) => {}
    }
}

/// A request that is to be done.
struct Accepted {
    request: Message,
    waiting: Waiting,
}

/// Hands requests to the workers, as many as each thing may have.
struct Requests {
    workers: Vec<mpsc::Sender<Accepted>>,
    hash: RandomState,
    /// What is published at QoS 0, and at QoS 1, is counted apart. Devices publish at QoS 1, and servers of ours at QoS 0,
    /// so that a server can take off what makes a device send without end.
    intakes: [Intake; 2],
    answers: mpsc::Sender<Done>,
    lost: watch::Sender<bool>,
    connected: watch::Sender<bool>,
}

impl Handler for Requests {
    fn up(&mut self, _: u64) {
        self.connected.send_replace(true);
    }

    fn down(&mut self, _: u64, _: &str) {
        self.lost.send_replace(true);
    }

    fn message(&mut self, message: Message) {
        let topic = Topic::parse(message.topic()).filter(|topic| topic.outcome.is_none());
        let Some(topic) = topic else {
            message.acknowledge();
            return;
        };
        let intake = self.intake(&message);
        let (request, decision) = match intake.decide(topic.thing) {
            Decision::Accept(waiting) => {
                let worker = self.hash.hash_one(topic.thing) % WORKERS as u64;
                let request = message;
                // One of 64, which fits.
                match self.workers[worker as usize].try_send(Accepted { request, waiting }) {
                    Ok(()) => return,
                    Err(full) => {
                        let request = full.into_inner().request;
                        let decision = self.refuse(&request);
                        (request, decision)
                    }
                }
            }
            refused => (message, refused),
        };
        // It is acknowledged in any case. A broker that gave it again would give it again for ever.
        let answer = match decision {
            Decision::Reject => rejected_as_too_many(&request),
            _ => None,
        };
        match answer {
            None => request.acknowledge(),
            Some(answer) => {
                let answer = Some(answer);
                if let Err(full) = self.answers.try_send(Done { request, answer }) {
                    full.into_inner().request.acknowledge();
                }
            }
        }
    }
}

impl Requests {
    fn intake(&mut self, request: &Message) -> &mut Intake {
        &mut self.intakes[usize::from(request.at_least_once())]
    }

    /// Decides about a request for which a worker has no room.
    fn refuse(&mut self, request: &Message) -> Decision {
        let topic = Topic::parse(request.topic());
        let intake = self.intake(request);
        topic.map_or(Decision::Ignore, |topic| intake.refuse(topic.thing))
    }
}

/// The answer to a request that is one too many.
fn rejected_as_too_many(request: &Message) -> Option<(String, Value)> {
    let topic = Topic::parse(request.topic())?;
    let body: Option<Value> = serde_json::from_slice(request.payload()).ok();
    let token = body.as_ref().and_then(|body| body.get("clientToken"));
    let token = token.and_then(Value::as_str).map(str::to_owned);
    let rejected = Rejected::new(429, "TOO_MANY_REQUESTS", token).body();
    let suffix = format!("{}/rejected", topic.operation.name());
    Some((Topic::text(topic.thing, &topic.shadow, &suffix), rejected))
}

async fn work(
    service: ShadowService,
    mut queue: mpsc::Receiver<Accepted>,
    answers: mpsc::Sender<Done>,
) {
    while let Some(Accepted { request, waiting }) = queue.recv().await {
        let answer = answer(&service, &request).await;
        drop(waiting);
        if answers.send(Done { request, answer }).await.is_err() {
            return;
        }
    }
}

async fn answer(service: &ShadowService, request: &Message) -> Option<(String, Value)> {
    // A request that a broker remembered is from long ago; AWS IoT allows none.
    if request.retained() {
        return None;
    }
    let Topic {
        thing,
        shadow,
        operation,
        ..
    } = Topic::parse(request.topic())?;
    let body = request.payload();
    if body.len() > MAX_PAYLOAD_BYTES {
        let text = "The payload exceeds the maximum size allowed";
        let rejected = Rejected::new(413, text, None).body();
        let suffix = format!("{}/rejected", operation.name());
        return Some((Topic::text(thing, &shadow, &suffix), rejected));
    }
    let done = match operation {
        Operation::Update => service.update(thing, &shadow, body).await,
        Operation::Get => service.get(thing, &shadow, body).await,
        Operation::Delete => service.delete(thing, &shadow, body).await,
    };
    let name = operation.name();
    let (suffix, body) = match done {
        Ok(read) if operation == Operation::Get => {
            debug!(thing, version = read.version, "{name} accepted");
            (format!("{name}/accepted"), read.body())
        }
        Ok(done) => {
            debug!(thing, version = done.version, "{name} accepted");
            return None;
        }
        Err(rejected) => {
            // What a firmware author looks for first.
            let (code, why) = (rejected.code, &rejected.message);
            if thing != PROBE {
                info!(thing, code, why, "{name} rejected");
            }
            (format!("{name}/rejected"), rejected.body())
        }
    };
    Some((Topic::text(thing, &shadow, &suffix), body))
}

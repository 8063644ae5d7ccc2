//! Requests that arrive over MQTT: how many are accepted, and how they are done.

use std::hash::{BuildHasher, RandomState};

use keywright_mqtt::{Handler, MAX_PAYLOAD_BYTES, Message};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info};

use super::probe;
use super::publisher::{Answer, FinishedRequest};
use super::request_limiter::{Decision, PendingRequest, RequestLimiter};
use super::topic::{Operation, Topic};
use crate::engine::Rejected;
use crate::service::ShadowService;

/// Workers, each of which does the requests of some things one after the other.
const WORKERS: usize = 64;

/// Requests that may wait for one worker.
const MAX_QUEUED: usize = 256;

/// A request for which a worker is responsible.
struct AcceptedRequest {
    request: Message,
    pending: PendingRequest,
}

/// Passes requests to the workers, within the limits of each thing.
pub(super) struct RequestHandler {
    workers: Vec<mpsc::Sender<AcceptedRequest>>,
    hash: RandomState,
    /// Requests at QoS 0 and at QoS 1 have separate limits. Devices publish at QoS 1 and our servers at QoS 0, so that a server can
    /// still remove an entry that makes a device send without end.
    limiters: [RequestLimiter; 2],
    finished: mpsc::Sender<FinishedRequest>,
    connected: watch::Sender<bool>,
    lost: watch::Sender<bool>,
}

impl RequestHandler {
    /// Starts the workers among `tasks`. `connected` and `lost` become true when the connection is up, and when it is lost.
    pub(super) fn start(
        service: &ShadowService,
        finished: mpsc::Sender<FinishedRequest>,
        connected: watch::Sender<bool>,
        lost: watch::Sender<bool>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let workers = (0..WORKERS).map(|_| {
            let (requests, queue) = mpsc::channel(MAX_QUEUED);
            tasks.spawn(work(service.clone(), queue, finished.clone()));
            requests
        });
        Self {
            workers: workers.collect(),
            hash: RandomState::new(),
            limiters: [RequestLimiter::new(), RequestLimiter::new()],
            finished,
            connected,
            lost,
        }
    }

    fn limiter(&mut self, request: &Message) -> &mut RequestLimiter {
        &mut self.limiters[usize::from(request.at_least_once())]
    }

    /// Queues an accepted request. `Err`: the queue of its worker is full.
    fn enqueue(
        &self,
        thing: &str,
        request: Message,
        pending: PendingRequest,
    ) -> Result<(), Message> {
        let worker = self.hash.hash_one(thing) % WORKERS as u64;
        // The index is below 64.
        let queue = &self.workers[worker as usize];
        queue
            .try_send(AcceptedRequest { request, pending })
            .map_err(|full| full.into_inner().request)
    }

    /// Answers a request that was not accepted with 429 if `reject` is set. The request is acknowledged in any case, or the broker would
    /// deliver it again for ever.
    fn decline(&self, request: Message, reject: bool) {
        let answer = match reject {
            true => too_many_requests(&request),
            false => None,
        };
        let finished = FinishedRequest { request, answer };
        if finished.answer.is_none() {
            finished.request.acknowledge();
        } else if let Err(full) = self.finished.try_send(finished) {
            full.into_inner().request.acknowledge();
        }
    }
}

impl Handler for RequestHandler {
    fn connected(&mut self, _: u64) {
        self.connected.send_replace(true);
    }

    fn disconnected(&mut self, _: u64, _: &str) {
        self.lost.send_replace(true);
    }

    fn message_received(&mut self, message: Message) {
        let topic = Topic::parse(message.topic()).filter(|topic| topic.outcome.is_none());
        let Some(thing) = topic.map(|topic| topic.thing.to_owned()) else {
            message.acknowledge();
            return;
        };
        match self.limiter(&message).decide(&thing) {
            Decision::Accept(pending) => {
                if let Err(request) = self.enqueue(&thing, message, pending) {
                    let decision = self.limiter(&request).decline(&thing);
                    self.decline(request, matches!(decision, Decision::Reject));
                }
            }
            Decision::Reject => self.decline(message, true),
            Decision::Ignore => self.decline(message, false),
        }
    }
}

/// The rejection of a request beyond the limits.
fn too_many_requests(request: &Message) -> Option<Answer> {
    let topic = Topic::parse(request.topic())?;
    let body: Option<Value> = serde_json::from_slice(request.payload()).ok();
    let token = body.as_ref().and_then(|body| body.get("clientToken"));
    let token = token.and_then(Value::as_str).map(str::to_owned);
    Some(rejection(
        &topic,
        &Rejected::new(429, "TOO_MANY_REQUESTS", token),
    ))
}

fn rejection(topic: &Topic<'_>, rejected: &Rejected) -> Answer {
    let suffix = format!("{}/rejected", topic.operation.name());
    Answer {
        topic: Topic::text(topic.thing, &topic.shadow, &suffix),
        body: rejected.body(),
    }
}

async fn work(
    service: ShadowService,
    mut queue: mpsc::Receiver<AcceptedRequest>,
    finished: mpsc::Sender<FinishedRequest>,
) {
    while let Some(AcceptedRequest { request, pending }) = queue.recv().await {
        let answer = serve(&service, &request).await;
        drop(pending);
        let done = FinishedRequest { request, answer };
        if finished.send(done).await.is_err() {
            return;
        }
    }
}

/// Does a request. The answer to an accepted update or deletion is published as an announcement, not returned.
async fn serve(service: &ShadowService, request: &Message) -> Option<Answer> {
    // A retained message may be old. AWS IoT does not allow retained requests.
    if request.retained() {
        return None;
    }
    let topic = Topic::parse(request.topic())?;
    let (thing, shadow, body) = (topic.thing, &topic.shadow, request.payload());
    if body.len() > MAX_PAYLOAD_BYTES {
        let text = "The payload exceeds the maximum size allowed";
        return Some(rejection(&topic, &Rejected::new(413, text, None)));
    }
    let name = topic.operation.name();
    let outcome = match topic.operation {
        Operation::Update => service.update(thing, shadow, body).await,
        Operation::Get => service.get(thing, shadow, body).await,
        Operation::Delete => service.delete(thing, shadow, body).await,
    };
    match outcome {
        Ok(accepted) => {
            debug!(thing, version = accepted.version, "{name} accepted");
            let is_read = topic.operation == Operation::Get;
            is_read.then(|| Answer {
                topic: Topic::text(thing, shadow, "get/accepted"),
                body: accepted.body(),
            })
        }
        Err(rejected) => {
            // At level info, because a firmware author looks for it first.
            let (code, why) = (rejected.code, &rejected.message);
            if thing != probe::THING {
                info!(thing, code, why, "{name} rejected");
            }
            Some(rejection(&topic, &rejected))
        }
    }
}

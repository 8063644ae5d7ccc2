//! Load with one kind of request: in a closed loop, or in an open loop at a constant rate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::arrivals::arrivals;
use crate::population::FIRST_LOCK;
use crate::statistics::AnswerCounts;
use keywright_client::{Client, ClientError};

/// A request that is sent later than this counts as late.
const LATE: Duration = Duration::from_millis(10);

/// Creates the n-th request.
pub type RequestFactory = Arc<dyn Fn(u64) -> Request<Full<Bytes>> + Send + Sync>;

/// Writes of new keys to index 0 of random locks. Each supersedes the lock's previous write, so that a lock never has more than
/// one open write.
pub fn writes(token: &str, locks: u64) -> RequestFactory {
    let authorization = format!("Bearer {token}");
    Arc::new(move |n| write(&authorization, locks, n))
}

/// As [`writes`], to all locks in turn.
pub fn writes_in_turn(token: &str, locks: u64) -> RequestFactory {
    let authorization = format!("Bearer {token}");
    Arc::new(move |n| write_to(&authorization, FIRST_LOCK + n % locks, n))
}

/// The n-th of these writes, with this `Authorization`.
pub fn write(authorization: &str, locks: u64, n: u64) -> Request<Full<Bytes>> {
    write_to(authorization, FIRST_LOCK + fastrand::u64(0..locks), n)
}

fn write_to(authorization: &str, lock: u64, n: u64) -> Request<Full<Bytes>> {
    let body = format!("{{\"keyUuid\":\"load-{n}\",\"keyIndexNumber\":0}}");
    Request::post(format!("/locks/{lock}/WriteKey"))
        .header("Host", "keywright")
        .header("Authorization", authorization)
        .header("Content-Type", "application/json")
        .body(Full::from(body))
        .expect("a valid request")
}

/// The outcome of a period of load.
pub struct LoadResult {
    pub answers: AnswerCounts,
    /// From the first request to the last counted answer.
    pub span: Duration,
    /// Requests that were sent more than 10 ms after their intended time, because no connection was free or this program was
    /// busy.
    pub late: u64,
}

impl LoadResult {
    /// Combines several periods.
    pub fn merge(parts: Vec<Self>) -> Self {
        let (span, late) = (
            parts.iter().map(|part| part.span).sum(),
            parts.iter().map(|part| part.late).sum(),
        );
        Self {
            answers: sum(parts.into_iter().map(|part| part.answers)),
            span,
            late,
        }
    }

    /// The number of requests.
    pub fn sent(&self) -> u64 {
        self.answers.statuses.values().sum::<u64>() + self.answers.broken
    }

    /// A count of answers as a rate for each second.
    pub fn per_second(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = count as f64;
        count / self.span.as_secs_f64()
    }

    /// The number of 200s for each second.
    pub fn goodput(&self) -> f64 {
        self.per_second(self.answers.count(200))
    }
}

/// Keeps one thread of the runtime busy until the result is dropped. On one machine, waking a sleeping client is work for the
/// server's core, which clients on other machines would not cause.
pub fn keep_awake() -> JoinSet<Infallible> {
    let mut task = JoinSet::new();
    task.spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    task
}

/// Closed loop: each connection sends its next request when the previous one is answered.
pub async fn closed(
    server: SocketAddr,
    factory: &RequestFactory,
    next: &Arc<AtomicU64>,
    connections: usize,
    span: Duration,
) -> LoadResult {
    let start = Instant::now();
    let end = start + span;
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (factory, next) = (factory.clone(), next.clone());
        clients.spawn(async move {
            let (mut client, mut answers) = (Client::new(server), AnswerCounts::default());
            while Instant::now() < end {
                let request = factory(next.fetch_add(1, Ordering::Relaxed));
                let sent = Instant::now();
                let answer = client.send(request).await.ok();
                // An answer after the end is not counted.
                if Instant::now() <= end {
                    answers.add(answer.map(|a| a.status().as_u16()), sent.elapsed());
                }
            }
            answers
        });
    }
    LoadResult {
        answers: sum(clients.join_all().await),
        span,
        late: 0,
    }
}

/// Clients that are all connected before the first request.
pub struct Clients(Vec<Client>);

impl Clients {
    /// Connects this many clients.
    ///
    /// # Errors
    /// The server does not accept a connection.
    pub async fn connect(server: SocketAddr, count: usize) -> Result<Self, ClientError> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            let mut client = Client::new(server);
            client.connect().await?;
            clients.push(client);
        }
        Ok(Self(clients))
    }

    /// Open loop: requests are sent at a constant rate, also when earlier ones are not answered. Latencies count from the intended
    /// time of a request, so that they include the delays of a stalled server.
    pub async fn open(
        &mut self,
        factory: &RequestFactory,
        next: &Arc<AtomicU64>,
        rate: f64,
        span: Duration,
    ) -> LoadResult {
        let (tx, rx) = async_channel::unbounded::<Instant>();
        let late = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for mut client in self.0.drain(..) {
            let (rx, factory, next) = (rx.clone(), factory.clone(), next.clone());
            let late = late.clone();
            tasks.spawn(async move {
                let mut answers = AnswerCounts::default();
                while let Ok(intended_at) = rx.recv().await {
                    if intended_at.elapsed() > LATE {
                        late.fetch_add(1, Ordering::Relaxed);
                    }
                    let request = factory(next.fetch_add(1, Ordering::Relaxed));
                    let answer = client.send(request).await.ok();
                    answers.add(answer.map(|a| a.status().as_u16()), intended_at.elapsed());
                }
                (client, answers)
            });
        }
        let start = Instant::now();
        arrivals(rate, span, |intended_at| {
            // The receivers live as long as the sender.
            let _ = tx.try_send(intended_at);
        })
        .await;
        drop((tx, rx));
        let mut parts = Vec::new();
        for (client, answers) in tasks.join_all().await {
            self.0.push(client);
            parts.push(answers);
        }
        LoadResult {
            answers: sum(parts),
            span: start.elapsed(),
            late: late.load(Ordering::Relaxed),
        }
    }
}

fn sum(parts: impl IntoIterator<Item = AnswerCounts>) -> AnswerCounts {
    let mut all = AnswerCounts::default();
    for part in parts {
        all.merge(&part);
    }
    all
}

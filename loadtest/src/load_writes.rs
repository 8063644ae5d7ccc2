//! Plain pressure with one kind of request: as fast as answers come, or at a rate that waits for nobody.

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
use crate::figures::Answers;
use crate::http::Client;
use crate::population::FIRST_LOCK;

/// From when on a request is sent late.
const LATE: Duration = Duration::from_millis(10);

/// Makes the n-th request.
pub type Make = Arc<dyn Fn(u64) -> Request<Full<Bytes>> + Send + Sync>;

/// Writes of new keys to the first slot of any of so many locks: each supersedes the one before, so that a lock never has
/// more than one.
pub fn writes(token: &str, locks: u64) -> Make {
    let authorization = format!("Bearer {token}");
    Arc::new(move |n| write(&authorization, locks, n))
}

/// The same to one lock after the other, and round again.
pub fn writes_in_turn(token: &str, locks: u64) -> Make {
    let authorization = format!("Bearer {token}");
    Arc::new(move |n| write_to(&authorization, FIRST_LOCK + n % locks, n))
}

/// One of those writes, the n-th.
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
        .expect("all of it is text")
}

/// What came of a span of pressure.
pub struct Pressed {
    pub answers: Answers,
    /// From the first request to the last answer that counts.
    pub span: Duration,
    /// Requests that were sent more than 10 ms after the moment that they were meant for: this program had no connection
    /// free, or no time.
    pub waited: u64,
}

impl Pressed {
    /// Several spans as one.
    pub fn all(parts: Vec<Self>) -> Self {
        let (span, waited) = (
            parts.iter().map(|part| part.span).sum(),
            parts.iter().map(|part| part.waited).sum(),
        );
        Self {
            answers: sum(parts.into_iter().map(|part| part.answers)),
            span,
            waited,
        }
    }

    /// Requests that were sent.
    pub fn sent(&self) -> u64 {
        self.answers.statuses.values().sum::<u64>() + self.answers.broken
    }

    /// So many of its answers in a second.
    pub fn a_second(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = count as f64;
        count / self.span.as_secs_f64()
    }

    /// Answers of 200 in a second.
    pub fn goodput(&self) -> f64 {
        self.a_second(self.answers.of(200))
    }
}

/// Keeps one thread of the runtime awake until it is dropped: it looks for answers again and again instead of sleeping until one
/// comes. On one machine, waking who sleeps is work of the server's core, which clients elsewhere would not ask of it.
pub fn awake() -> JoinSet<Infallible> {
    let mut awake = JoinSet::new();
    awake.spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    awake
}

/// Closed loop: each of so many connections sends its next request when the last one is answered.
pub async fn closed(
    server: SocketAddr,
    make: &Make,
    next: &Arc<AtomicU64>,
    connections: usize,
    span: Duration,
) -> Pressed {
    let start = Instant::now();
    let end = start + span;
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (make, next) = (make.clone(), next.clone());
        clients.spawn(async move {
            let (mut client, mut answers) = (Client::new(server), Answers::default());
            while Instant::now() < end {
                let request = make(next.fetch_add(1, Ordering::Relaxed));
                let sent = Instant::now();
                let answer = client.send(request).await.ok();
                // One that comes after the end belongs to no second of it.
                if Instant::now() <= end {
                    answers.add(answer.map(|a| a.status().as_u16()), sent.elapsed());
                }
            }
            answers
        });
    }
    Pressed {
        answers: sum(clients.join_all().await),
        span,
        waited: 0,
    }
}

/// Clients that are connected before the first of them asks for something.
pub struct Clients(Vec<Client>);

impl Clients {
    /// # Errors
    /// The server takes no connection.
    pub async fn connect(server: SocketAddr, how_many: usize) -> Result<Self, String> {
        let mut clients = Vec::with_capacity(how_many);
        for _ in 0..how_many {
            let mut client = Client::new(server);
            client.connect().await?;
            clients.push(client);
        }
        Ok(Self(clients))
    }

    /// Open loop: requests are sent at a rate, whatever became of those before; times count from the moment that a request
    /// was meant for, so that a server which stands still is not spared.
    pub async fn open(
        &mut self,
        make: &Make,
        next: &Arc<AtomicU64>,
        rate: f64,
        span: Duration,
    ) -> Pressed {
        let (arrive, arrived) = async_channel::unbounded::<Instant>();
        let late = Arc::new(AtomicU64::new(0));
        let mut asking = JoinSet::new();
        for mut client in self.0.drain(..) {
            let (arrived, make, next) = (arrived.clone(), make.clone(), next.clone());
            let late = late.clone();
            asking.spawn(async move {
                let mut answers = Answers::default();
                while let Ok(meant) = arrived.recv().await {
                    if meant.elapsed() > LATE {
                        late.fetch_add(1, Ordering::Relaxed);
                    }
                    let request = make(next.fetch_add(1, Ordering::Relaxed));
                    let answer = client.send(request).await.ok();
                    answers.add(answer.map(|a| a.status().as_u16()), meant.elapsed());
                }
                (client, answers)
            });
        }
        let start = Instant::now();
        arrivals(rate, span, |meant| {
            // The receivers live as long as the sender.
            let _ = arrive.try_send(meant);
        })
        .await;
        drop((arrive, arrived));
        let mut parts = Vec::new();
        for (client, answers) in asking.join_all().await {
            self.0.push(client);
            parts.push(answers);
        }
        Pressed {
            answers: sum(parts),
            span: start.elapsed(),
            waited: late.load(Ordering::Relaxed),
        }
    }
}

fn sum(parts: impl IntoIterator<Item = Answers>) -> Answers {
    let mut all = Answers::default();
    for part in parts {
        all.merge(&part);
    }
    all
}

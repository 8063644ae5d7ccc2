//! The open loop: personas arrive at a constant rate. Latencies count from the intended arrival, so that they include the delays
//! of a stalled server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::arrivals::arrivals;
use crate::hyper_caller::HyperCaller;
use crate::persona_session::Session;
use crate::personas::Persona;
use crate::population::Population;
use crate::recorder::Recorder;

/// The maximum number of active personas. Arrivals above it are counted and skipped.
const MAX_ACTIVE: usize = 10_000;

/// The longest time to wait for active personas at the end.
const END_TIMEOUT: Duration = Duration::from_secs(35);

/// Starts `rate` personas a second for this time. Returns the number of skipped arrivals.
pub async fn open_loop(
    server: SocketAddr,
    rate: f64,
    span: Duration,
    population: &Arc<Population>,
    recorder: &Arc<Recorder>,
) -> u64 {
    let free: Arc<Mutex<Vec<HyperCaller>>> = Arc::default();
    let (mut active, mut skipped) = (JoinSet::new(), 0);
    arrivals(rate, span, |intended_at| {
        while active.try_join_next().is_some() {}
        if active.len() >= MAX_ACTIVE {
            skipped += 1;
            return;
        }
        let (population, recorder, free) = (population.clone(), recorder.clone(), free.clone());
        active.spawn(async move {
            let pool = || free.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = pool().pop();
            let mut client = idle.unwrap_or_else(|| HyperCaller::new(server));
            let mut session = Session {
                caller: &mut client,
                population: &population,
                recorder: &recorder,
                intended_at: Some(intended_at),
            };
            Persona::any().run(&mut session).await;
            pool().push(client);
        });
    })
    .await;
    let end = Instant::now() + END_TIMEOUT;
    while let Ok(Some(_)) = timeout_at(end, active.join_next()).await {}
    recorder.unconfirmed(u64::try_from(active.len()).unwrap_or(u64::MAX));
    skipped
}

//! The open loop: personas arrive at a rate and wait for nobody, and their times count from the moment they were meant
//! for, so that a server which stands still for a while is not spared.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::arrivals::arrivals;
use crate::own_client::OwnClient;
use crate::personas::Persona;
use crate::population::Population;
use crate::recorder::Recorder;
use crate::session::Session;

/// So many are served at once at most; who comes then is counted, and does nothing.
const MOST: usize = 10_000;

/// How long those who are there at the end are waited for.
const GRACE: Duration = Duration::from_secs(35);

/// Lets personas arrive at this rate, each second, for this time. Answers how many had no place.
pub async fn open_loop(
    server: SocketAddr,
    rate: f64,
    span: Duration,
    population: &Arc<Population>,
    recorder: &Arc<Recorder>,
) -> u64 {
    let free: Arc<Mutex<Vec<OwnClient>>> = Arc::default();
    let (mut lives, mut no_permit) = (JoinSet::new(), 0);
    arrivals(rate, span, |meant| {
        while lives.try_join_next().is_some() {}
        if lives.len() >= MOST {
            no_permit += 1;
            return;
        }
        let (population, recorder, free) = (population.clone(), recorder.clone(), free.clone());
        lives.spawn(async move {
            let pool = || free.lock().unwrap_or_else(PoisonError::into_inner);
            let known = pool().pop();
            let mut client = known.unwrap_or_else(|| OwnClient::new(server));
            let mut session = Session {
                caller: &mut client,
                population: &population,
                recorder: &recorder,
                meant: Some(meant),
            };
            Persona::any().live(&mut session).await;
            pool().push(client);
        });
    })
    .await;
    let end = Instant::now() + GRACE;
    while let Ok(Some(_)) = timeout_at(end, lives.join_next()).await {}
    recorder.unconfirmed(u64::try_from(lives.len()).unwrap_or(u64::MAX));
    no_permit
}

use crate::persona_session::{Credential, KeyWrite, Session, write_key};

/// The number of locks of a building.
const BUILDING: u64 = 10;

pub(super) async fn run(session: &mut Session<'_>) {
    let population = session.population;
    let first = population.any_lock();
    // Consecutive locks belong to different organizations in turn.
    let step = u64::try_from(population.api_keys.len()).unwrap_or(1).max(1);
    let credential = Credential::api_key(population.api_key_of(first));
    let offsets = (0..BUILDING).map(|n| first + n * step);
    let offsets = offsets.take_while(|offset| *offset < population.locks);
    let write = |offset| write_key(population, offset, &credential);
    let writes: Vec<KeyWrite> = offsets.map(write).collect();
    let accepted = session.write_all(&writes).await;
    session.follow(accepted, &credential).await;
}

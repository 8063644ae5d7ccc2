use super::{any_slot, new_key};
use crate::session::{Credential, KeyWrite, Session, write_key};

/// The locks of a building.
const BUILDING: u64 = 10;

pub(super) async fn live(session: &mut Session<'_>) {
    let population = session.population;
    let first = population.any_lock();
    // Locks of one organization are as far apart as there are organizations.
    let apart = u64::try_from(population.api_keys.len()).unwrap_or(1).max(1);
    let credential = Credential::ApiKey(population.api_key_of(first).to_owned());
    let places = (0..BUILDING).map(|n| first + n * apart);
    let places = places.take_while(|place| *place < population.locks);
    let write = |place| write_key(population, place, (new_key(), any_slot()), &credential);
    let writes: Vec<KeyWrite> = places.map(write).collect();
    let sent = session.write_all(&writes).await;
    session.follow(sent, &credential).await;
}

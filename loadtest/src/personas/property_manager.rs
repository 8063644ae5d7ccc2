use super::{any_slot, new_key};
use crate::session::{Credential, Session, write_key};

/// The locks of a building.
const BUILDING: u64 = 10;

pub(super) async fn live(session: &mut Session<'_>) {
    let population = session.population;
    let first = population.any_lock();
    // Locks of one organization are as far apart as there are organizations.
    let apart = u64::try_from(population.api_keys.len()).unwrap_or(1).max(1);
    let credential = Credential::ApiKey(population.api_key_of(first).to_owned());
    let mut written = Vec::new();
    for n in 0..BUILDING {
        let place = first + n * apart;
        if place >= population.locks {
            break;
        }
        let key = new_key();
        let ask = write_key(population, place, (&key, any_slot()), &credential);
        written.extend(session.write(&ask, place, &key).await);
    }
    for (location, write) in written {
        session.follow(&location, write, &credential).await;
    }
}

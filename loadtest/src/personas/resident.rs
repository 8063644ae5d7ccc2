use super::{any_slot, new_key};
use crate::session::{Credential, Session, write_key};

pub(super) async fn live(session: &mut Session<'_>) {
    let place = session.population.any_lock();
    let credential = Credential::Token(session.population.token_of(place).to_owned());
    let key = new_key();
    let ask = write_key(session.population, place, (&key, any_slot()), &credential);
    if let Some((location, write)) = session.write(&ask, place, &key).await {
        session.follow(&location, write, &credential).await;
    }
}

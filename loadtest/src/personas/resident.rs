use super::{any_slot, new_key};
use crate::session::{Credential, Session, write_key};

pub(super) async fn live(session: &mut Session<'_>) {
    let place = session.population.any_lock();
    let credential = Credential::Token(session.population.token_of(place).to_owned());
    let write = write_key(
        session.population,
        place,
        (new_key(), any_slot()),
        &credential,
    );
    let sent = session.write(&write).await;
    session
        .follow(sent.into_iter().collect(), &credential)
        .await;
}

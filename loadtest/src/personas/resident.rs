use super::keys::{any_key_index, new_key};
use crate::persona_session::{Credential, Session, write_key};

pub(super) async fn run(session: &mut Session<'_>) {
    let offset = session.population.any_lock();
    let credential = Credential::Token(session.population.token_of(offset).to_owned());
    let write = write_key(
        session.population,
        offset,
        (new_key(), any_key_index()),
        &credential,
    );
    let accepted = session.write(&write).await;
    session
        .follow(accepted.into_iter().collect(), &credential)
        .await;
}

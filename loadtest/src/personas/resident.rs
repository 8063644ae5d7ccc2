use crate::persona_session::{Credential, Session, write_key};

pub(super) async fn run(session: &mut Session<'_>) {
    let offset = session.population.any_lock();
    let credential = Credential::token(session.population.token_of(offset));
    let write = write_key(session.population, offset, &credential);
    let accepted = session.write(&write).await;
    session
        .follow(accepted.into_iter().collect(), &credential)
        .await;
}

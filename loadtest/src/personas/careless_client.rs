use super::{any_slot, new_key};
use crate::session::{Ask, Credential, Session, write_key};

pub(super) async fn live(session: &mut Session<'_>) {
    let population = session.population;
    let place = population.any_lock();
    let credential = Credential::Token(population.token_of(place).to_owned());
    let right = write_key(population, place, (new_key(), any_slot()), &credential).ask;
    let not_json = Ask {
        name: "a body that is no JSON",
        body: Some("{\"keyUuid\":".into()),
        expected: &[400],
        ..right.clone()
    };
    let no_lock = Ask {
        name: "a lock that is not there",
        path: "/locks/999999999/WriteKey".into(),
        expected: &[404],
        ..right.clone()
    };
    let no_number = Ask {
        name: "a lock that is no number",
        path: "/locks/front-door/WriteKey".into(),
        expected: &[400],
        ..right.clone()
    };
    let too_large = Ask {
        name: "a body that is too large",
        body: Some(format!(
            "{{\"keyUuid\":\"k\",\"more\":\"{}\"}}",
            "x".repeat(5000)
        )),
        expected: &[413],
        ..right.clone()
    };
    let forged = Ask {
        name: "a token that nobody has signed",
        credential: Credential::Token(population.forged_token.clone()),
        expected: &[401],
        ..right.clone()
    };
    let mut wrong = vec![not_json, no_lock, no_number, too_large, forged];
    wrong.extend(population.expired_token.clone().map(|token| Ask {
        name: "a token that is no longer good",
        credential: Credential::Token(token),
        expected: &[401],
        ..right.clone()
    }));
    if population.tokens.len() > 1 {
        wrong.push(Ask {
            name: "somebody else's lock",
            credential: Credential::Token(population.token_of(place + 1).to_owned()),
            expected: &[403],
            ..right
        });
    }
    fastrand::shuffle(&mut wrong);
    for ask in wrong.iter().take(2) {
        session.ask(ask).await;
    }
}

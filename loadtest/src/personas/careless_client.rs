use crate::persona_session::{ApiRequest, Credential, Session, write_key};

pub(super) async fn run(session: &mut Session<'_>) {
    let population = session.population;
    let offset = population.any_lock();
    let credential = Credential::token(population.token_of(offset));
    let valid = write_key(population, offset, &credential).request;
    let not_json = ApiRequest {
        name: "a body that is not JSON",
        body: Some("{\"keyUuid\":".into()),
        expected: &[400],
        ..valid.clone()
    };
    let no_lock = ApiRequest {
        name: "an unknown lock",
        path: "/locks/999999999/WriteKey".into(),
        expected: &[404],
        ..valid.clone()
    };
    let no_number = ApiRequest {
        name: "a lock id that is not a number",
        path: "/locks/front-door/WriteKey".into(),
        expected: &[400],
        ..valid.clone()
    };
    let too_large = ApiRequest {
        name: "a body that is too large",
        body: Some(format!(
            "{{\"keyUuid\":\"k\",\"more\":\"{}\"}}",
            "x".repeat(5000)
        )),
        expected: &[413],
        ..valid.clone()
    };
    let forged = ApiRequest {
        name: "a forged token",
        credential: Credential::token(&population.forged_token),
        expected: &[401],
        ..valid.clone()
    };
    let mut invalid = vec![not_json, no_lock, no_number, too_large, forged];
    invalid.extend(population.expired_token.as_deref().map(|token| ApiRequest {
        name: "an expired token",
        credential: Credential::token(token),
        expected: &[401],
        ..valid.clone()
    }));
    if population.tokens.len() > 1 {
        invalid.push(ApiRequest {
            name: "a foreign lock",
            credential: Credential::token(population.token_of(offset + 1)),
            expected: &[403],
            ..valid
        });
    }
    fastrand::shuffle(&mut invalid);
    for request in invalid.iter().take(2) {
        session.send(request).await;
    }
}

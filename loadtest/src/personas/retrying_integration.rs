use std::time::Duration;

use serde_json::Value;

use crate::persona_session::{ApiRequest, Credential, Session, write_key};

/// The maximum number of attempts.
const MAX_ATTEMPTS: u32 = 8;

pub(super) async fn run(session: &mut Session<'_>) {
    let offset = session.population.any_lock();
    let credential = Credential::api_key(session.population.api_key_of(offset));
    let mut write = write_key(session.population, offset, &credential);
    write.request.idempotency_key = Some(format!("retry-{}", write.key));
    // 409: the first attempt is still in progress.
    write.request.expected = &[200, 409];
    if fastrand::bool() {
        let after = Duration::from_micros(fastrand::u64(0..20_000));
        session
            .caller
            .call_and_disconnect(&write.request, after)
            .await;
        session.recorder.undecided(&write.key);
        // The delay is the client's own and not a latency of the service.
        session.intended_at = None;
    }
    for n in 0..MAX_ATTEMPTS {
        if let Some(accepted) = session.write(&write).await {
            repeat(session, &write.request, &accepted.write.version).await;
            session.follow(vec![accepted], &credential).await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(100 << n.min(5))).await;
    }
}

/// Repeats an accepted request, and records a different answer.
async fn repeat(session: &mut Session<'_>, request: &ApiRequest, version: &Option<u64>) {
    let Some(again) = session.send(request).await else {
        return;
    };
    let body: Value = serde_json::from_slice(&again.body).unwrap_or_default();
    let recorded = body["event"].is_object().then(|| body["version"].as_u64());
    let same = match again.status {
        200 => recorded.flatten() == *version,
        // The request has been answered with 200, so that it is not in progress.
        409 => false,
        _ => true,
    };
    if !same {
        session.recorder.differing_repeat();
    }
}

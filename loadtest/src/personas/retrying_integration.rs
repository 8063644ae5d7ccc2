use std::time::Duration;

use serde_json::Value;

use super::{any_slot, new_key};
use crate::session::{Ask, Credential, Session, write_key};

/// How often it tries before it gives up.
const TRIES: u32 = 8;

pub(super) async fn live(session: &mut Session<'_>) {
    let place = session.population.any_lock();
    let credential = Credential::ApiKey(session.population.api_key_of(place).to_owned());
    let mut write = write_key(
        session.population,
        place,
        (new_key(), any_slot()),
        &credential,
    );
    write.ask.idempotency_key = Some(format!("retry-{}", write.key));
    // 409: the first try is still running.
    write.ask.expected = &[200, 409];
    if fastrand::bool() {
        let after = Duration::from_micros(fastrand::u64(0..20_000));
        session.caller.call_and_hang_up(&write.ask, after).await;
        session.recorder.undecided(&write.key);
        // What it has waited for is its own doing.
        session.meant = None;
    }
    for n in 0..TRIES {
        if let Some(sent) = session.write(&write).await {
            repeat(session, &write.ask, &sent.write.version).await;
            session.follow(vec![sent], &credential).await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(100 << n.min(5))).await;
    }
}

/// The same again is answered the same again.
async fn repeat(session: &mut Session<'_>, ask: &Ask, version: &Option<u64>) {
    let Some(again) = session.ask(ask).await else {
        return;
    };
    let body: Value = serde_json::from_slice(&again.body).unwrap_or_default();
    let recorded = body["event"].is_object().then(|| body["version"].as_u64());
    let same = match again.status {
        200 => recorded.flatten() == *version,
        // It was answered 200: it is not running any more.
        409 => false,
        _ => true,
    };
    if !same {
        session.recorder.differing_repeat();
    }
}

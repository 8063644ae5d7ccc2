//! Someone writes a key and looks every now and then until the lock has confirmed it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use goose::prelude::*;
use serde_json::{Value, json};

use crate::target::Target;

/// How often and how long to look.
const PAUSE: Duration = Duration::from_millis(100);
const LOOKS: u32 = 100;

/// One write after the other, on locks and slots that differ as long as there are enough of them: writes to
/// one lock wait for each other.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// How many slots of each lock are written to.
const SLOTS: u64 = 100;

pub(crate) fn scenario() -> Scenario {
    scenario!("write until confirmed")
        .register_transaction(transaction!(prepare).set_name("start").set_on_start())
        .register_transaction(
            transaction!(write_and_follow).set_name("a write and its confirmation"),
        )
}

async fn prepare(user: &mut GooseUser) -> TransactionResult {
    match Target::from_environment() {
        Ok(target) => {
            user.set_session_data(target);
            Ok(())
        }
        Err(why) => Err(Box::new(TransactionError::Custom(why))),
    }
}

async fn write_and_follow(user: &mut GooseUser) -> TransactionResult {
    let Some(target) = user.get_session_data::<Target>() else {
        return Ok(());
    };
    let (api_key, locks) = (target.api_key.clone(), target.locks.clone());
    let n = WRITES.fetch_add(1, Ordering::Relaxed);
    let many = locks.end() - locks.start() + 1;
    let (lock, slot) = (locks.start() + n % many, n / many % SLOTS);
    let body = json!({ "keyUuid": format!("loadtest-{n}"), "keyIndexNumber": slot });
    let path = format!("/locks/{lock}/WriteKey");
    let request = user
        .get_request_builder(&GooseMethod::Post, &path)?
        .header("X-API-Key", &api_key)
        .json(&body);
    let sent = GooseRequest::builder()
        .name("WriteKey")
        .set_request_builder(request)
        .build();
    let Ok(answer) = user.request(sent).await?.response else {
        return Ok(());
    };
    let Some(location) = answer
        .headers()
        .get("location")
        .and_then(|l| l.to_str().ok())
    else {
        return Ok(());
    };
    let location = location.to_owned();
    for _ in 0..LOOKS {
        tokio::time::sleep(PAUSE).await;
        let request = user
            .get_request_builder(&GooseMethod::Get, &location)?
            .header("X-API-Key", &api_key);
        let look = GooseRequest::builder()
            .name("the write")
            .set_request_builder(request)
            .build();
        let Ok(answer) = user.request(look).await?.response else {
            return Ok(());
        };
        let status: Value = answer.json().await.unwrap_or_default();
        if status["settledAt"].is_string() {
            return Ok(());
        }
    }
    Err(Box::new(TransactionError::Custom(format!(
        "{location} was not settled"
    ))))
}

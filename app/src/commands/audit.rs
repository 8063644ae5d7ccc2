//! `keywright audit`.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::values::LockId;
use keywright_domain::{AuditError, Audited, KeyWrites};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::say;
use crate::bootstrap::{Auditing, Error, open_for_audit};
use crate::settings::Settings;

/// How many locks are audited at once, and how long after each other they begin: AWS IoT takes 400 requests a second
/// of an account in a small region, and a lock in order is one reading.
const AT_ONCE: usize = 16;
const APART: Duration = Duration::from_millis(5);

/// How many locks are listed at once.
const PAGE: usize = 256;

#[derive(Default)]
struct Tally {
    locks: u64,
    findings: u64,
    repaired: u64,
    failed: u64,
}

/// Compares the shadows of all locks with their writes; what is found is said, and with `repair` put right.
///
/// # Errors
/// Something is left that differs, or a lock could not be audited.
pub(crate) fn run(settings: &Settings, repair: bool, json: bool) -> Result<(), Error> {
    crate::logging::start(settings.log, tracing::Level::ERROR);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(audit_all(settings, repair, json))
}

async fn audit_all(settings: &Settings, repair: bool, json: bool) -> Result<(), Error> {
    let Auditing {
        writes,
        history,
        watching,
    } = open_for_audit(settings).await?;
    if let Some(watching) = watching {
        tokio::spawn(watching);
    }
    let (start, mut told) = (Instant::now(), Instant::now());
    let every = Duration::from_secs(if std::io::stderr().is_terminal() {
        1
    } else {
        10
    });
    let mut pace = tokio::time::interval(APART);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tally, mut going_on, mut after) = (Tally::default(), JoinSet::new(), None);
    loop {
        let page = history.locks(after, PAGE).await?;
        for lock in &page {
            while going_on.len() >= AT_ONCE {
                take_in(&mut tally, going_on.join_next().await, json);
            }
            pace.tick().await;
            going_on.spawn(audit_one(writes.clone(), lock.id, repair));
            if told.elapsed() >= every {
                told = Instant::now();
                eprintln!("{} locks audited …", tally.locks);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.id),
            _ => break,
        }
    }
    while let Some(audited) = going_on.join_next().await {
        take_in(&mut tally, Some(audited), json);
    }
    conclude(&tally, start.elapsed(), json)
}

type Outcome = (LockId, Result<Audited, AuditError>);

async fn audit_one(writes: Arc<KeyWrites>, lock: LockId, repair: bool) -> Outcome {
    (lock, writes.audit(lock, repair).await)
}

fn take_in(
    tally: &mut Tally,
    audited: Option<Result<Outcome, tokio::task::JoinError>>,
    json: bool,
) {
    let Some(audited) = audited else { return };
    tally.locks += 1;
    let (lock, audited) = match audited {
        Ok((lock, Ok(audited))) => (lock, audited),
        Ok((lock, Err(error))) => {
            tally.failed += 1;
            eprintln!("keywright: lock {lock} could not be audited: {error}");
            return;
        }
        Err(error) => {
            tally.failed += 1;
            eprintln!("keywright: a lock could not be audited: {error}");
            return;
        }
    };
    for finding in &audited.findings {
        tally.findings += 1;
        tally.repaired += u64::from(audited.repaired);
        let (name, write) = (finding.name(), finding.write().to_string());
        if json {
            let repaired = audited.repaired;
            say!(
                "{}",
                json!({ "lockId": lock.get(), "finding": name, "write": write, "repaired": repaired })
            );
        } else {
            let end = if audited.repaired { "  repaired" } else { "" };
            say!("lock {lock}  {name}  {write}{end}");
        }
    }
}

fn conclude(tally: &Tally, took: Duration, json: bool) -> Result<(), Error> {
    let Tally {
        locks,
        findings,
        repaired,
        failed,
    } = tally;
    if json {
        let summary =
            json!({ "locks": locks, "findings": findings, "repaired": repaired, "failed": failed });
        say!("{summary}");
    } else {
        let seconds = took.as_secs_f64();
        say!("{locks} locks audited in {seconds:.1} s: {findings} findings, {repaired} repaired");
    }
    if *failed > 0 {
        return Err(format!("{failed} locks could not be audited").into());
    }
    if findings > repaired {
        return Err("shadows and writes differ; `keywright audit --repair` puts them right".into());
    }
    Ok(())
}

//! `keywright audit`.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use keywright_domain::model::{LockId, OrganizationId};
use keywright_domain::ports::{LockHistory, RepoError};
use keywright_domain::{AuditError, AuditReport, KeyWrites};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use super::say;
use crate::bootstrap::{Auditing, Error, open_for_audit};
use crate::logging::COMMAND;
use crate::settings::{Settings, ShadowChoice};

/// AWS IoT takes 400 requests a second of an account in a small region, and a lock in order is one reading.
#[cfg(feature = "aws")]
const AWS_RATE: u32 = 200;

/// AWS IoT takes 30 requests a second of one connection of a client.
#[cfg(feature = "mqtt")]
const AWS_CONNECTION_RATE: usize = 25;

/// How many locks are audited at once: as many as are begun in a tenth of a second, within these bounds.
const MIN_AT_ONCE: usize = 16;
const MAX_AT_ONCE: usize = 256;

/// How many at once without a rate.
const UNLIMITED_AT_ONCE: usize = 64;

/// How far a pace may lag behind its schedule and catch up.
const CATCH_UP: Duration = Duration::from_millis(100);

/// How often the progress is reported on standard error.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// How many locks are listed at once.
const PAGE: usize = 256;

/// Which locks are audited, how fast, and what becomes of what is found.
#[derive(Args, Clone, Debug)]
pub(crate) struct AuditOptions {
    /// Put right what differs: take off what should not be there, put back what was lost, settle what nobody heard.
    #[arg(long)]
    repair: bool,
    /// How many locks are begun a second at most [default: 200 with shadows in AWS, 25 for each connection to AWS's broker,
    /// no bound otherwise].
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Audit this lock only; may be given several times.
    #[arg(long, value_name = "ID", conflicts_with = "organization")]
    lock: Vec<LockId>,
    /// Audit the locks of this organization only.
    #[arg(long, value_name = "NAME")]
    organization: Option<OrganizationId>,
}

#[derive(Default)]
struct Tally {
    locks: u64,
    findings: u64,
    repaired: u64,
    failed: u64,
}

/// Compares the shadows of locks with their writes; what is found is reported, and with `--repair` put right.
///
/// # Errors
/// Something is left that differs, or a lock could not be audited.
pub(crate) fn run(settings: &Settings, options: AuditOptions, json: bool) -> Result<(), Error> {
    let _logging = crate::logging::start_for_command(settings.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(audit_all(settings, options, json))
}

async fn audit_all(settings: &Settings, options: AuditOptions, json: bool) -> Result<(), Error> {
    let Auditing {
        writes,
        locks,
        history,
        watching,
    } = open_for_audit(settings).await?;
    if let Some(watching) = watching {
        tokio::spawn(watching);
    }
    for lock in &options.lock {
        let known = locks.load(*lock).await?;
        known.ok_or_else(|| format!("there is no lock {lock}"))?;
    }
    let rate = options.rate.or_else(|| default_rate(settings));
    let (start, mut reported) = (Instant::now(), Instant::now());
    let (at_once, mut pace) = (at_once(rate), RateLimiter::new(rate));
    let (mut tally, mut going_on) = (Tally::default(), JoinSet::new());
    let mut chosen = Locks::new(history, options.lock, options.organization);
    while let Some(lock) = chosen.next().await? {
        while going_on.len() >= at_once {
            take_in(&mut tally, going_on.join_next().await, json);
        }
        while let Some(audited) = going_on.try_join_next() {
            take_in(&mut tally, Some(audited), json);
        }
        pace.wait().await;
        going_on.spawn(audit_one(writes.clone(), lock, options.repair));
        if reported.elapsed() >= PROGRESS_EVERY {
            reported = Instant::now();
            report_progress(&tally, start.elapsed());
        }
    }
    while let Some(audited) = going_on.join_next().await {
        take_in(&mut tally, Some(audited), json);
    }
    conclude(&tally, start.elapsed(), json)
}

fn default_rate(settings: &Settings) -> Option<NonZeroU32> {
    match &settings.shadow {
        ShadowChoice::InProcess { .. } => None,
        #[cfg(feature = "aws")]
        ShadowChoice::Aws(_) => NonZeroU32::new(AWS_RATE),
        #[cfg(feature = "mqtt")]
        ShadowChoice::Mqtt(mqtt) if mqtt.aws_limits => {
            let rate = u32::try_from(mqtt.shards * AWS_CONNECTION_RATE);
            rate.ok().and_then(NonZeroU32::new)
        }
        #[cfg(feature = "mqtt")]
        ShadowChoice::Mqtt(_) => None,
    }
}

fn at_once(rate: Option<NonZeroU32>) -> usize {
    let tenth = |rate: NonZeroU32| usize::try_from(rate.get() / 10).unwrap_or(MAX_AT_ONCE);
    rate.map_or(UNLIMITED_AT_ONCE, |rate| {
        tenth(rate).clamp(MIN_AT_ONCE, MAX_AT_ONCE)
    })
}

/// Keeps beginnings apart, so that no more than a rate are in a second.
struct RateLimiter {
    apart: Duration,
    next: Instant,
}

impl RateLimiter {
    fn new(rate: Option<NonZeroU32>) -> Self {
        Self {
            apart: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.get()),
            next: Instant::now(),
        }
    }

    async fn wait(&mut self) {
        if self.apart.is_zero() {
            return;
        }
        sleep_until(self.next).await;
        // Timers are as coarse as a millisecond: what is late by little catches up.
        let earliest = Instant::now().checked_sub(CATCH_UP);
        self.next = earliest.map_or(self.next, |earliest| self.next.max(earliest)) + self.apart;
    }
}

/// The locks that are audited, page by page.
struct Locks {
    history: Arc<dyn LockHistory>,
    organization: Option<OrganizationId>,
    waiting: VecDeque<LockId>,
    /// The lock that the next page comes after; `None`: there is no further page.
    after: Option<Option<LockId>>,
}

impl Locks {
    /// `named`: those and no others, or all where there is none.
    fn new(
        history: Arc<dyn LockHistory>,
        named: Vec<LockId>,
        organization: Option<OrganizationId>,
    ) -> Self {
        Self {
            history,
            organization,
            after: named.is_empty().then_some(None),
            waiting: named.into(),
        }
    }

    async fn next(&mut self) -> Result<Option<LockId>, RepoError> {
        while self.waiting.is_empty()
            && let Some(after) = self.after
        {
            let page = self.history.locks(after, PAGE).await?;
            let is_full = page.len() == PAGE;
            self.after = page.last().filter(|_| is_full).map(|last| Some(last.id));
            let wanted = page.into_iter().filter(|lock| {
                self.organization.is_none() || lock.organization == self.organization
            });
            self.waiting.extend(wanted.map(|lock| lock.id));
        }
        Ok(self.waiting.pop_front())
    }
}

fn report_progress(tally: &Tally, took: Duration) {
    let Tally {
        locks,
        findings,
        failed,
        ..
    } = tally;
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    info!(target: COMMAND, locks, findings, failed, duration_ms, "audit in progress");
}

type Outcome = (LockId, Result<AuditReport, AuditError>);

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
            error!(target: COMMAND, %lock, %error, "a lock could not be audited");
            return;
        }
        Err(error) => {
            tally.failed += 1;
            error!(target: COMMAND, %error, "a lock could not be audited");
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

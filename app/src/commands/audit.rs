//! `keywright audit`.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use keywright_domain::model::{LockId, OrganizationId};
use keywright_domain::ports::{LockHistory, RepoError};
use keywright_domain::{AuditError, AuditReport, KeyWrites};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use super::output::print_line;
use super::runtime::block_on_all_cores;
use crate::bootstrap::audit::open_for_audit;
use crate::log_output::COMMAND;
use crate::settings::{Settings, ShadowChoice};

/// Locks a second with shadows in AWS. AWS IoT accepts 400 requests a second from an account in a small region, and an audit of a
/// lock without differences is one of them.
const AWS_RATE: u32 = 200;

/// Locks a second for each connection to the broker of AWS, which accepts 30 requests a second on one connection.
const AWS_CONNECTION_RATE: u32 = 25;

/// How many locks are audited at once: as many as are started in a tenth of a second, within these bounds.
const MIN_AT_ONCE: usize = 16;
const MAX_AT_ONCE: usize = 256;

/// How many locks are audited at once without a rate.
const UNLIMITED_AT_ONCE: usize = 64;

/// How far the rate limiter may be behind its schedule and still catch up.
const CATCH_UP: Duration = Duration::from_millis(100);

/// How often the progress is reported on standard error.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// How many locks one page of the store has.
const PAGE: usize = 256;

#[derive(Args, Clone, Debug)]
pub(crate) struct AuditOptions {
    /// Repair the differences: remove entries that should not be on a shadow, restore lost entries, and settle results that are
    /// not recorded.
    #[arg(long)]
    repair: bool,
    #[arg(long, value_name = "N", help = rate_help())]
    rate: Option<NonZeroU32>,
    /// Audit this lock only. May be given several times.
    #[arg(long, value_name = "ID", conflicts_with = "organization")]
    lock: Vec<LockId>,
    /// Audit the locks of this organization only.
    #[arg(long, value_name = "NAME")]
    organization: Option<OrganizationId>,
}

fn rate_help() -> String {
    format!(
        "The highest number of locks to start in a second [default: {AWS_RATE} with shadows in AWS, {AWS_CONNECTION_RATE} for \
         each connection to the broker of AWS, no limit otherwise]"
    )
}

/// Counts of an audit.
#[derive(Default)]
struct Tally {
    locks: u64,
    findings: u64,
    repaired: u64,
    failed: u64,
}

/// Compares the shadows of locks with their writes, prints the differences, and repairs them if `--repair` is set.
///
/// # Errors
/// A difference is left, or a lock could not be audited.
pub(crate) fn run(settings: &Settings, options: AuditOptions, json: bool) -> anyhow::Result<()> {
    let _logging = crate::log_output::start_for_command(settings.log);
    block_on_all_cores(audit_all(settings, options, json))
}

async fn audit_all(settings: &Settings, options: AuditOptions, json: bool) -> anyhow::Result<()> {
    let (writes, ports) = open_for_audit(settings).await?;
    for lock in &options.lock {
        let known = ports.locks.load(*lock).await?;
        known.with_context(|| format!("there is no lock {lock}"))?;
    }
    let rate = options.rate.or_else(|| default_rate(settings));
    let (start, mut reported_at) = (Instant::now(), Instant::now());
    let (at_once, mut rate_limiter) = (at_once(rate), RateLimiter::new(rate));
    let (mut tally, mut audits) = (Tally::default(), JoinSet::new());
    let mut chosen = Locks::new(ports.history, options.lock, options.organization);
    while let Some(lock) = chosen.next().await? {
        while audits.len() >= at_once {
            count_and_print(&mut tally, audits.join_next().await, json);
        }
        while let Some(audited) = audits.try_join_next() {
            count_and_print(&mut tally, Some(audited), json);
        }
        rate_limiter.wait().await;
        audits.spawn(audit_one(writes.clone(), lock, options.repair));
        if reported_at.elapsed() >= PROGRESS_EVERY {
            reported_at = Instant::now();
            report_progress(&tally, start.elapsed());
        }
    }
    while let Some(audited) = audits.join_next().await {
        count_and_print(&mut tally, Some(audited), json);
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
            let shards = u32::try_from(mqtt.shards).unwrap_or(1);
            NonZeroU32::new(shards.saturating_mul(AWS_CONNECTION_RATE))
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

/// Spaces the starts of audits evenly, so that a rate a second is not exceeded.
struct RateLimiter {
    interval: Duration,
    next: Instant,
}

impl RateLimiter {
    fn new(rate: Option<NonZeroU32>) -> Self {
        Self {
            interval: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.get()),
            next: Instant::now(),
        }
    }

    async fn wait(&mut self) {
        if self.interval.is_zero() {
            return;
        }
        sleep_until(self.next).await;
        // Timers have a resolution of a millisecond. Short delays are caught up.
        let earliest = Instant::now().checked_sub(CATCH_UP);
        self.next = earliest.map_or(self.next, |earliest| self.next.max(earliest)) + self.interval;
    }
}

/// The locks that are audited, page by page.
struct Locks {
    history: Arc<dyn LockHistory>,
    organization: Option<OrganizationId>,
    waiting: VecDeque<LockId>,
    /// The lock before the next page. `None`: there is no further page.
    after: Option<Option<LockId>>,
}

impl Locks {
    /// `named`: only these locks. If it is empty, all locks.
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
    let (locks, findings, failed) = (tally.locks, tally.findings, tally.failed);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    info!(target: COMMAND, locks, findings, failed, duration_ms, "audit in progress");
}

type Outcome = (LockId, Result<AuditReport, AuditError>);

async fn audit_one(writes: Arc<KeyWrites>, lock: LockId, repair: bool) -> Outcome {
    (lock, writes.audit(lock, repair).await)
}

fn count_and_print(
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
            print_line!(
                "{}",
                json!({ "lockId": lock.get(), "finding": name, "write": write, "repaired": repaired })
            );
        } else {
            let end = if audited.repaired { "  repaired" } else { "" };
            print_line!("lock {lock}  {name}  {write}{end}");
        }
    }
}

fn conclude(tally: &Tally, took: Duration, json: bool) -> anyhow::Result<()> {
    let (locks, findings) = (tally.locks, tally.findings);
    let (repaired, failed) = (tally.repaired, tally.failed);
    if json {
        let summary =
            json!({ "locks": locks, "findings": findings, "repaired": repaired, "failed": failed });
        print_line!("{summary}");
    } else {
        let seconds = took.as_secs_f64();
        print_line!(
            "{locks} locks audited in {seconds:.1} s: {findings} findings, {repaired} repaired"
        );
    }
    ensure!(failed == 0, "{failed} locks could not be audited");
    ensure!(
        findings <= repaired,
        "shadows and writes differ; `keywright audit --repair` repairs them"
    );
    Ok(())
}

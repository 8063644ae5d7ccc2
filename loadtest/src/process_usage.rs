//! CPU and memory of a process of this machine, sampled from `/proc` (proc(5)).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::summary::{ServerUsage, UsageSample};

/// How often a process is sampled.
const EVERY: Duration = Duration::from_secs(1);

/// Clock ticks in a second, as `/proc` counts CPU time on every Linux architecture that Rust's standard library supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc` says of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessUsage {
    /// CPU time since its start, in user and in kernel mode.
    pub cpu_seconds: f64,
    /// Memory that is in RAM.
    pub resident_bytes: u64,
    /// When it started, in clock ticks since the machine's start. Another process that gets the same id later has another.
    started: u64,
}

impl ProcessUsage {
    /// Reads it.
    ///
    /// # Errors
    /// There is no process of this id, or this machine has no `/proc`.
    pub fn read(pid: u32) -> Result<Self, String> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        Self::parse(&stat, &status).ok_or_else(|| format!("/proc/{pid} has an unknown format"))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The program's name may contain spaces and brackets; the fields after its last bracket do not.
        let (_, fields) = stat.rsplit_once(')')?;
        let field = |n: usize| fields.split_whitespace().nth(n);
        let ticks = |n: usize| field(n)?.parse::<f64>().ok();
        // A process that has ended but is not yet waited for has no memory.
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.map_or(Some(0), |text| {
            text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })?;
        Some(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            resident_bytes: resident * 1024,
            started: field(19)?.parse().ok()?,
        })
    }
}

/// Samples a process once a second until it is stopped or the process ends.
pub struct UsageSampler {
    usage: Arc<Mutex<ServerUsage>>,
    task: JoinHandle<()>,
}

impl UsageSampler {
    /// Starts to sample. Seconds count from `start`.
    ///
    /// # Errors
    /// The process cannot be sampled.
    pub fn start(pid: u32, start: Instant) -> Result<Self, String> {
        let first = ProcessUsage::read(pid)?;
        let usage = Arc::new(Mutex::new(ServerUsage {
            pid,
            max_resident_bytes: first.resident_bytes,
            ..ServerUsage::default()
        }));
        let task = tokio::spawn(sample(pid, start, first, usage.clone()));
        Ok(Self { usage, task })
    }

    /// Stops, and returns what was sampled.
    pub fn stop(self) -> ServerUsage {
        self.task.abort();
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.clone()
    }
}

async fn sample(pid: u32, start: Instant, first: ProcessUsage, usage: Arc<Mutex<ServerUsage>>) {
    let mut ticks = interval_at(start + EVERY, EVERY);
    // A late sample covers a longer time; a burst of them afterwards would cover none.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut before, mut before_at) = (first, Instant::now());
    loop {
        ticks.tick().await;
        let Ok(now) = ProcessUsage::read(pid) else {
            return;
        };
        if now.started != first.started || now.resident_bytes == 0 {
            return;
        }
        let at = Instant::now();
        let took = (at - before_at).as_secs_f64().max(f64::EPSILON);
        let sample = UsageSample {
            second: second_before(at - start),
            cpu_cores: (now.cpu_seconds - before.cpu_seconds) / took,
            resident_bytes: now.resident_bytes,
        };
        (before, before_at) = (now, at);
        let mut usage = usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.cpu_seconds = now.cpu_seconds - first.cpu_seconds;
        usage.max_resident_bytes = usage.max_resident_bytes.max(now.resident_bytes);
        usage.samples.push(sample);
    }
}

/// The whole second that ends about now.
fn second_before(elapsed: Duration) -> u64 {
    let rounded = elapsed + EVERY / 2;
    rounded.as_secs().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_spaces_is_skipped() {
        let stat = "7 (a ) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 123456 0 0";
        let usage = ProcessUsage::parse(stat, "Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t4\n");
        let usage = usage.expect("it is understood");
        assert!((usage.cpu_seconds - 3.0).abs() < 1e-9, "{usage:?}");
        assert_eq!(
            (usage.resident_bytes, usage.started),
            (2048 * 1024, 123_456)
        );
        assert_eq!(ProcessUsage::parse("7 (a) S 1 2", ""), None);
    }

    #[test]
    fn samples_belong_to_the_second_before_them() {
        for (millis, second) in [(1000, 0), (1400, 0), (2010, 1), (10_999, 10)] {
            assert_eq!(second_before(Duration::from_millis(millis)), second);
        }
    }

    #[tokio::test]
    async fn a_busy_process_shows_cpu_and_memory() {
        let sampler = UsageSampler::start(std::process::id(), Instant::now());
        let sampler = sampler.expect("this process is there");
        let mut sum = 0_u64;
        let usage = loop {
            // Busy in slices, so that the sampler gets its turn.
            for n in 0..1_000_000_u64 {
                sum = std::hint::black_box(sum.wrapping_add(n));
            }
            tokio::task::yield_now().await;
            let usage = sampler.usage.lock().expect("no panic").clone();
            if usage.samples.len() >= 2 {
                break usage;
            }
        };
        assert!(usage.cpu_seconds > 0.0, "{usage:?}");
        assert!(usage.samples.iter().any(|sample| sample.cpu_cores > 0.0));
        assert!(usage.max_resident_bytes > 1024 * 1024, "{usage:?}");
        assert_eq!(sampler.stop().pid, std::process::id());
    }

    #[tokio::test]
    async fn a_process_that_is_not_there_is_an_error_that_names_its_file() {
        // Process ids end at 2^22 on Linux.
        let error = UsageSampler::start(u32::MAX, Instant::now()).err();
        let error = error.expect("no such process");
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }
}

//! CPU time and memory of a process on this machine, read from `/proc` (proc(5)).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::error::Error;
use crate::summary::{ServerUsage, UsageSample};

/// The interval between samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// `/proc` counts CPU time in clock ticks. On all Linux architectures that Rust supports, a second has 100.
const TICKS_PER_SECOND: f64 = 100.0;

/// The resources of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessUsage {
    /// CPU time since its start, in user and in kernel mode.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// The start time in clock ticks since boot. It differs for a later process with the same id.
    started: u64,
}

impl ProcessUsage {
    /// Reads the resources of a process.
    ///
    /// # Errors
    /// There is no such process, or no `/proc`.
    pub fn read(pid: u32) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::read_to_string(&path).map_err(Error::file(Path::new(&path)))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        Self::parse(&stat, &status)
            .ok_or_else(|| Error::Service(format!("/proc/{pid} has an unknown format")))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The program name may contain spaces and brackets; the other fields follow its last bracket.
        let (_, fields) = stat.rsplit_once(')')?;
        let field = |n: usize| fields.split_whitespace().nth(n);
        let ticks = |n: usize| field(n)?.parse::<f64>().ok();
        // A zombie process has no memory.
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
    /// Starts sampling. Seconds count from `start`.
    ///
    /// # Errors
    /// The process cannot be sampled.
    pub fn start(pid: u32, start: Instant) -> Result<Self, Error> {
        let first = ProcessUsage::read(pid)?;
        let usage = Arc::new(Mutex::new(ServerUsage {
            pid,
            max_resident_bytes: first.resident_bytes,
            ..ServerUsage::default()
        }));
        let task = tokio::spawn(sample(pid, start, first, usage.clone()));
        Ok(Self { usage, task })
    }

    /// Stops sampling, and returns the samples.
    pub fn stop(self) -> ServerUsage {
        self.task.abort();
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.clone()
    }
}

async fn sample(pid: u32, start: Instant, first: ProcessUsage, usage: Arc<Mutex<ServerUsage>>) {
    let mut ticks = interval_at(start + SAMPLE_INTERVAL, SAMPLE_INTERVAL);
    // After a delay there is one sample for the whole missed time, instead of a burst of samples for almost no time each.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut last, mut last_at) = (first, Instant::now());
    loop {
        ticks.tick().await;
        let Ok(now) = ProcessUsage::read(pid) else {
            return;
        };
        if now.started != first.started || now.resident_bytes == 0 {
            return;
        }
        let at = Instant::now();
        let elapsed = (at - last_at).as_secs_f64().max(f64::EPSILON);
        let sample = UsageSample {
            second: ended_second(at - start),
            cpu_cores: (now.cpu_seconds - last.cpu_seconds) / elapsed,
            resident_bytes: now.resident_bytes,
        };
        (last, last_at) = (now, at);
        let mut usage = usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.cpu_seconds = now.cpu_seconds - first.cpu_seconds;
        usage.max_resident_bytes = usage.max_resident_bytes.max(now.resident_bytes);
        usage.samples.push(sample);
    }
}

/// The second whose end is nearest to this moment.
fn ended_second(elapsed: Duration) -> u64 {
    let rounded = elapsed + SAMPLE_INTERVAL / 2;
    rounded.as_secs().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_spaces_is_skipped() {
        let stat = "7 (a ) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 123456 0 0";
        let usage = ProcessUsage::parse(stat, "Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t4\n");
        let usage = usage.expect("a valid format");
        assert!((usage.cpu_seconds - 3.0).abs() < 1e-9, "{usage:?}");
        assert_eq!(
            (usage.resident_bytes, usage.started),
            (2048 * 1024, 123_456)
        );
        assert_eq!(ProcessUsage::parse("7 (a) S 1 2", ""), None);
    }

    #[test]
    fn samples_belong_to_the_second_that_has_ended() {
        for (millis, second) in [(1000, 0), (1400, 0), (2010, 1), (10_999, 10)] {
            assert_eq!(ended_second(Duration::from_millis(millis)), second);
        }
    }

    #[tokio::test]
    async fn a_busy_process_shows_cpu_and_memory() {
        let sampler = UsageSampler::start(std::process::id(), Instant::now());
        let sampler = sampler.expect("this process exists");
        let mut sum = 0_u64;
        let usage = loop {
            // Yields between slices of work, so that the sampler runs.
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
    async fn a_missing_process_is_an_error_that_names_its_file() {
        // On Linux, process ids are at most 2^22.
        let error = UsageSampler::start(u32::MAX, Instant::now()).err();
        let error = error.expect("no such process").to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }
}

//! Power cuts: what a server has written but not synced may be lost, in any order and in parts.
//!
//! A server under load runs under strace (`recorder`). From its writes and syncs (`trace`) follow the states of its files that a power
//! cut could leave (`image`). Each is checked against the answers that had been sent until then (`check`). docs/proof.md describes the
//! model.

mod check;
mod image;
mod recorder;
mod scenario;
mod strace;
mod trace;

use std::fmt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::task::{JoinError, JoinSet};

pub use image::Counts;
use image::{Image, ImageBuilder};
use trace::{LoggedAnswer, Trace};

/// How many images are built from one recording.
const IMAGES_OF_RECORDING: u64 = 500;

/// How often a recording is tried: a process may be killed within a call whose effect is not known.
const ATTEMPTS: usize = 3;

/// What to check.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub program: String,
    /// The number of images.
    pub images: u64,
    /// Determines the images of a recording, and the load.
    pub seed: u64,
    /// The program is started on one image of so many. All are opened with the store.
    pub start_every: u64,
    /// A folder for data folders and images, preferably in memory.
    pub work: PathBuf,
}

/// What was checked without a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many servers were recorded, each through three processes.
    pub recordings: u64,
    /// How many images were opened.
    pub images: u64,
    /// On how many of them the program was started.
    pub starts: u64,
    /// How many answers the recorded servers sent.
    pub answers: usize,
    /// How many answers with 200 were looked for in images, in total.
    pub checked_200: usize,
    /// How many answers with 502 were checked in images, in total.
    pub checked_502: usize,
    /// What became of unsynced changes.
    pub changes: Counts,
}

/// Why a run has ended early.
#[derive(Debug)]
pub enum Failure {
    /// A violation.
    Finding(Finding),
    /// Nothing could be checked.
    Unusable(String),
}

/// An image in which something is wrong.
#[derive(Debug)]
pub struct Finding {
    /// What is wrong.
    pub what: String,
    /// The number of the image.
    pub image: u64,
    /// A folder with the traces, and the files in its folder `image`.
    pub folder: PathBuf,
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// Records servers, and checks images. `progress` receives a line after each recording and its images.
///
/// # Errors
/// The first finding, or why there is nothing to check.
pub async fn run(options: &Options, progress: impl Fn(&str)) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    let mut first = 0;
    while first < options.images {
        let seed = options.seed.wrapping_add(first);
        let recording = record(options, seed).await?;
        let numbers = first..options.images.min(first + IMAGES_OF_RECORDING);
        first = numbers.end;
        summary.recordings += 1;
        summary.answers += recording.trace.answers().len();
        if summary.recordings == 1 {
            progress(recording.stores.trim());
        }
        let numbers: Vec<u64> = numbers.collect();
        let traces = recording.folder.path();
        check_images(options, &recording.trace, traces, numbers, &mut summary).await?;
        progress(&summary.to_string());
    }
    Ok(summary)
}

/// Builds and checks one image of an earlier recording again.
///
/// # Errors
/// What is wrong with it, or why it cannot be built.
pub async fn repeat(options: &Options, traces: &Path, image: u64) -> Result<Summary, Failure> {
    let trace = recorder::read(traces).map_err(Failure::Unusable)?;
    let mut summary = Summary::default();
    check_images(options, &trace, traces, vec![image], &mut summary).await?;
    Ok(summary)
}

async fn record(options: &Options, seed: u64) -> Result<recorder::Recording, Failure> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let (program, work) = (options.program.clone(), options.work.clone());
        // A server that does not start panics.
        let recording =
            tokio::spawn(async move { recorder::record(&program, &work, seed).await }).await;
        match recording.unwrap_or_else(|panic| Err(panic_text(panic))) {
            Ok(recording) => return Ok(recording),
            Err(why) => last = why,
        }
    }
    Err(Failure::Unusable(last))
}

/// Checks these images of a recording, several at once.
async fn check_images(
    options: &Options,
    trace: &Trace,
    traces: &Path,
    mut numbers: Vec<u64>,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let mut builder = ImageBuilder::new(trace, options.seed);
    // The builder adds what is durable from cut to cut.
    numbers.sort_by_key(|number| builder.cut(*number));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut numbers = numbers.into_iter();
    let mut checks: JoinSet<(u64, Result<(), String>)> = JoinSet::new();
    loop {
        while checks.len() < processors
            && let Some(number) = numbers.next()
        {
            let image = builder.build(number);
            let answers = trace.answers().iter().filter(|sent| sent.at <= image.cut);
            let answers: Vec<LoggedAnswer> = answers.cloned().collect();
            let starts = number.is_multiple_of(options.start_every);
            summary.add(&image, &answers, starts);
            let (program, work) = (options.program.clone(), options.work.clone());
            checks.spawn(async move {
                let program = starts.then_some(program);
                // A store that cannot be opened, or a program that does not start, panics.
                let check = tokio::spawn(check_image(image, answers, program, work));
                let outcome = check.await;
                (
                    number,
                    outcome.unwrap_or_else(|panic| Err(panic_text(panic))),
                )
            });
        }
        match checks.join_next().await {
            None => return Ok(()),
            Some(Ok((_, Ok(())))) => {}
            Some(Ok((number, Err(what)))) => {
                let image = ImageBuilder::new(trace, options.seed).build(number);
                return Err(keep(&image, traces, number, what)?);
            }
            Some(Err(panic)) => return Err(Failure::Unusable(panic_text(panic))),
        }
    }
}

async fn check_image(
    image: Image,
    answers: Vec<LoggedAnswer>,
    program: Option<String>,
    work: PathBuf,
) -> Result<(), String> {
    let write = || -> std::io::Result<TempDir> {
        let folder = TempDir::new_in(&work)?;
        image.write_to(folder.path())?;
        Ok(folder)
    };
    let folder = write().map_err(|e| e.to_string())?;
    check::check_stores(folder, &answers).await?;
    if let Some(program) = program {
        let folder = write().map_err(|e| e.to_string())?;
        let started = check::check_start(&program, folder.path(), &answers).await;
        started.map_err(|what| format!("after a start: {what}"))?;
    }
    Ok(())
}

/// Keeps the traces and the files of an image.
fn keep(image: &Image, traces: &Path, number: u64, what: String) -> std::io::Result<Failure> {
    let folder = TempDir::with_prefix("powercut-")?.keep();
    for entry in std::fs::read_dir(traces)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    let files = folder.join("image");
    std::fs::create_dir(&files)?;
    image.write_to(&files)?;
    Ok(Failure::Finding(Finding {
        what: format!("power cut after line {}: {what}", image.cut),
        image: number,
        folder,
    }))
}

fn panic_text(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "a check was cancelled".into();
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a check has panicked".into())
}

impl Summary {
    fn add(&mut self, image: &Image, answers: &[LoggedAnswer], starts: bool) {
        let count = |status| answers.iter().filter(|sent| sent.status == status).count();
        self.images += 1;
        self.starts += u64::from(starts);
        self.checked_200 += count(200);
        self.checked_502 += count(502);
        self.changes.add(image.counts);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = &self.changes;
        write!(
            f,
            "{} images of {} recordings with {} answers, {} starts; {} times a 200 and {} times a 502 checked; \
             unsynced changes: {} kept, {} dropped, {} torn, {} of names lost",
            self.images,
            self.recordings,
            self.answers,
            self.starts,
            self.checked_200,
            self.checked_502,
            changes.kept,
            changes.dropped,
            changes.torn,
            changes.lost_names,
        )
    }
}

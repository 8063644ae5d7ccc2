//! Checks what power cuts can leave of a server's files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use keywright_tests::powercut::{Failure, Finding, Options, repeat, run};

const USAGE: &str =
    "usage: scripts/powercut [--images N] [--seed S] [--start-every N] [--program PATH]
       scripts/powercut --trace FOLDER --seed S --image N [--program PATH]";

/// A folder in memory, where syncs are fast. strace records them all the same.
const MEMORY: &str = "/dev/shm";

struct Arguments {
    options: Options,
    /// The folder with the traces and the number of an image to be checked again.
    repeated: Option<(PathBuf, u64)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let options = &arguments.options;
    println!("seed {}", options.seed);
    let outcome = match &arguments.repeated {
        Some((traces, image)) => repeat(options, traces, *image).await,
        None => run(options, |line| println!("{line}")).await,
    };
    match outcome {
        Ok(summary) => {
            println!("no finding in {summary}");
            ExitCode::SUCCESS
        }
        Err(Failure::Finding(Finding {
            what,
            image,
            folder,
        })) => {
            let (folder, seed) = (folder.display(), options.seed);
            println!("finding: {what}");
            println!("the files are in {folder}/image; repeat it with:");
            println!("scripts/powercut --trace {folder} --seed {seed} --image {image}");
            ExitCode::FAILURE
        }
        Err(Failure::Unusable(why)) => {
            eprintln!("nothing was found out: {why}");
            ExitCode::from(2)
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let work = match Path::new(MEMORY).is_dir() {
        true => PathBuf::from(MEMORY),
        false => std::env::temp_dir(),
    };
    let mut options = Options {
        program: String::new(),
        images: 1000,
        seed: fastrand::u64(..1_000_000),
        start_every: 50,
        work,
    };
    let (mut traces, mut image) = (None, None);
    while let Some(name) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        let number = || {
            let number = value.parse::<u64>();
            number.map_err(|_| format!("{name} needs a number"))
        };
        match &*name {
            "--images" => options.images = number()?,
            "--seed" => options.seed = number()?,
            "--start-every" => options.start_every = number()?.max(1),
            "--program" => options.program = value,
            "--trace" => traces = Some(PathBuf::from(value)),
            "--image" => image = Some(number()?),
            _ => return Err(format!("{name} is unknown")),
        }
    }
    if options.program.is_empty() {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let program = own.with_file_name("keywright-under-test");
        options.program = program.to_string_lossy().into_owned();
    }
    let repeated = match (traces, image) {
        (Some(traces), Some(image)) => {
            // The image may be one on which the program did not start.
            options.start_every = 1;
            Some((traces, image))
        }
        (None, None) => None,
        _ => return Err("--trace and --image belong together".into()),
    };
    Ok(Arguments { options, repeated })
}

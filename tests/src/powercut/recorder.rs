//! Runs a server under load and strace.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tempfile::TempDir;

use super::scenario::{ARGUMENTS, LOCKS};
use super::strace::{CallReader, descriptor, split, strings};
use super::trace::Trace;
use crate::client::{Connection, Request};
use crate::program::Program;

/// The calls that change files, and those that send answers. Calls that the trace's model does not have are here so that they are noticed.
const CALLS: &str = "openat,open,openat2,creat,dup,dup2,dup3,lseek,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendfile,\
    copy_file_range,splice,truncate,ftruncate,fallocate,mmap,msync,fsync,fdatasync,sync_file_range,syncfs,unlink,unlinkat,rename,\
    renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat";

const CLIENTS: u64 = 8;

/// How a process ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    Stopped,
}

/// The processes of a recording. The second one finds a log that was not applied, and the third one stores that were closed.
const ENDS: [End; 3] = [End::Killed, End::Stopped, End::Killed];

/// A recording, whose files are kept until it is dropped.
pub(super) struct Recording {
    pub(super) trace: Trace,
    /// Contains the traces.
    pub(super) folder: TempDir,
    /// What the program printed about its stores.
    pub(super) stores: String,
}

/// Records a server on a new data folder inside of `work`.
///
/// # Errors
/// The recording cannot be used.
///
/// # Panics
/// The server does not start.
pub(super) async fn record(program: &str, work: &Path, seed: u64) -> Result<Recording, String> {
    let text = |e: std::io::Error| e.to_string();
    let folder = TempDir::new().map_err(text)?;
    let work = TempDir::new_in(work).map_err(text)?;
    let data = work.path().canonicalize().map_err(text)?.join("data");
    let data_name = data.to_str().ok_or("the folder's name is not UTF-8")?;
    std::fs::write(folder.path().join(FOLDER_FILE), data_name).map_err(text)?;
    let mut trace = Trace::new(data_name);
    let mut rng = Rng::with_seed(seed);
    let (mut stores, mut received) = (String::new(), Vec::new());
    for (number, end) in ENDS.into_iter().enumerate() {
        let path = folder.path().join(trace_name(number));
        let wrapper = folder.path().join("traced");
        write_wrapper(&wrapper, program, &path).map_err(text)?;
        let wrapper = wrapper.to_str().ok_or("the folder's name is not UTF-8")?;
        // Slow and refused updates lead to open intents and to 502s.
        let faults = format!("update~0.1=delay:15ms,put~0.05=refuse,seed={}", rng.u16(..));
        let mut arguments = ARGUMENTS.to_vec();
        arguments.extend(["--faults", &faults]);
        let program = Program::start(wrapper, &data, &arguments);
        let id = program.id().to_string();
        let banner = program.banner.lines();
        stores = banner
            .filter(|line| line.contains("journal_mode"))
            .collect();
        let load = Load::start(&program, number, &mut rng);
        load.wait_for(rng.usize(40..100)).await?;
        match end {
            End::Killed => program.kill(),
            End::Stopped => drop(program.stop()),
        }
        received.extend(load.stop().await);
        let text = complete_trace(&path, &id, &data).await?;
        trace.add(&text)?;
        compare(&trace, &data)?;
    }
    let logged: HashSet<(u64, &str, u16)> = trace
        .answers()
        .iter()
        .map(|answer| (answer.lock, &*answer.key, answer.status))
        .collect();
    let is_missing =
        |(lock, key, status): &&(u64, String, u16)| !logged.contains(&(*lock, key, *status));
    if let Some(missing) = received.iter().find(is_missing) {
        return Err(format!("the trace does not have the answer {missing:?}"));
    }
    Ok(Recording {
        trace,
        folder,
        stores,
    })
}

/// Reads the traces of an earlier recording.
///
/// # Errors
/// The folder does not have them.
pub(super) fn read(folder: &Path) -> Result<Trace, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let mut trace = Trace::new(&read(FOLDER_FILE)?);
    for number in 0..ENDS.len() {
        trace.add(&read(&trace_name(number))?)?;
    }
    Ok(trace)
}

/// The name of the recorded data folder.
const FOLDER_FILE: &str = "data-folder";

fn trace_name(number: usize) -> String {
    format!("{number}.strace")
}

/// Writes a script that runs the program under strace. With `-D`, the process of the script becomes the program's. Syncs take 1 ms
/// longer, so that more happens during each, as on a slower device.
fn write_wrapper(path: &Path, program: &str, trace: &Path) -> std::io::Result<()> {
    let script = format!(
        "#!/bin/sh\nexec strace -D -f --seccomp-bpf -y -xx -s 1000000 -o '{}' -e trace={CALLS} \
         -e inject=fsync,fdatasync:delay_enter=1000 -- '{program}' \"$@\"\n",
        trace.display()
    );
    std::fs::write(path, script)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Waits until strace has ended. Decides whether calls that were interrupted by SIGKILL have had an effect, and adds that to the trace.
async fn complete_trace(path: &PathBuf, id: &str, data: &Path) -> Result<String, String> {
    let is_end = |line: &str| line.contains("+++") && line.split(' ').next() == Some(id);
    for _ in 0..1000 {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        if text.ends_with('\n') && text.lines().last().is_some_and(is_end) {
            let completed = complete(&text, data)?;
            std::fs::write(path, &completed).map_err(|e| e.to_string())?;
            return Ok(completed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("strace has not ended".into())
}

/// How strace marks a call that has not returned.
const UNFINISHED: &str = "<unfinished ...>";

fn complete(text: &str, data: &Path) -> Result<String, String> {
    let (mut completed, mut reader) = (String::new(), CallReader::default());
    for (at, line) in text.lines().enumerate() {
        let line: Cow<'_, str> = match line.strip_suffix("= ?").map(str::trim_end) {
            None => line.into(),
            Some(call) if call.contains("<... ") => continue,
            Some(call) => {
                let call = call.strip_suffix(')').unwrap_or(call);
                match call.ends_with(UNFINISHED) {
                    true => call.into(),
                    false => format!("{call} {UNFINISHED}").into(),
                }
            }
        };
        reader.read(&line, at)?;
        completed.push_str(&line);
        completed.push('\n');
    }
    for (thread, name, arguments) in reader.unfinished() {
        let result = result_of_interrupted(name, arguments, data);
        completed.push_str(&format!("{thread} <... {name} resumed>) = {result}\n"));
    }
    Ok(completed)
}

fn result_of_interrupted(name: &str, arguments: &str, data: &Path) -> i64 {
    let arguments = split(arguments);
    let number = |at: usize| arguments.get(at).and_then(|number| number.parse().ok());
    let path = arguments.first().copied().and_then(descriptor);
    let path = path.map(|(_, path)| path).unwrap_or_default();
    let Some(content) = Path::new(&path)
        .starts_with(data)
        .then(|| std::fs::read(&path).ok())
        .flatten()
    else {
        return -1;
    };
    match name {
        "pwrite64" => {
            let written = strings(arguments.get(1).copied().unwrap_or_default());
            let offset: usize = number(3).unwrap_or(usize::MAX);
            let found = content.get(offset..offset.saturating_add(written.len()));
            match found == Some(&*written) {
                true => i64::try_from(written.len()).unwrap_or(-1),
                false => -1,
            }
        }
        "ftruncate" if number(1) == Some(content.len()) => 0,
        _ => -1,
    }
}

/// Compares the files with those that follow from the trace.
fn compare(trace: &Trace, data: &Path) -> Result<(), String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(data).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.ends_with("-shm") {
            let content = std::fs::read(&path).map_err(|e| e.to_string())?;
            found.insert(name.into_owned(), content);
        }
    }
    let traced = trace.final_files();
    if found == traced {
        return Ok(());
    }
    let names = found.keys().chain(traced.keys());
    let different: HashSet<&String> = names.filter(|n| found.get(*n) != traced.get(*n)).collect();
    Err(format!(
        "the trace leads to other contents of {different:?}"
    ))
}

/// Clients that write one key after the other until they are stopped or their connections break.
struct Load {
    shared: Arc<LoadState>,
    clients: Vec<tokio::task::JoinHandle<Vec<(u64, String, u16)>>>,
}

#[derive(Default)]
struct LoadState {
    stop: AtomicBool,
    accepted: AtomicUsize,
}

impl Load {
    fn start(program: &Program, session: usize, rng: &mut Rng) -> Self {
        let shared = Arc::<LoadState>::default();
        let clients = (0..CLIENTS).map(|client| {
            let name = format!("s{session}-c{client}");
            let target = (program.address, program.api_key.clone());
            tokio::spawn(write_keys(target, name, rng.fork(), shared.clone()))
        });
        Self {
            clients: clients.collect(),
            shared,
        }
    }

    async fn wait_for(&self, writes: usize) -> Result<(), String> {
        for _ in 0..6000 {
            if self.shared.accepted.load(Ordering::Relaxed) >= writes {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("{writes} writes were not accepted within a minute"))
    }

    /// Returns the lock, the key and the status of each answer.
    async fn stop(self) -> Vec<(u64, String, u16)> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for client in self.clients {
            answers.extend(client.await.expect("a client does not panic"));
        }
        answers
    }
}

async fn write_keys(
    (address, api_key): (SocketAddr, String),
    name: String,
    mut rng: Rng,
    shared: Arc<LoadState>,
) -> Vec<(u64, String, u16)> {
    let mut answers = Vec::new();
    let Ok(mut connection) = Connection::open(address).await else {
        return answers;
    };
    for n in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let (lock, key) = (rng.u64(LOCKS), format!("{name}-{n}"));
        let body = json!({ "keyUuid": key, "keyIndexNumber": rng.u64(0..8) });
        let request = Request::new(address, "POST", &format!("/locks/{lock}/WriteKey"))
            .header("X-API-Key", &api_key)
            .header("X-Request-Id", &format!("{lock}.{key}"))
            .json(&body);
        let Ok(answer) = connection.send(request).await else {
            break;
        };
        let accepted = usize::from(answer.status == 200);
        shared.accepted.fetch_add(accepted, Ordering::Relaxed);
        answers.push((lock, key, answer.status));
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_a_kill_has_interrupted_had_no_effect_unless_the_file_shows_it() {
        let trace = "7 ftruncate(3</nowhere>, 5) = ?\n7 +++ killed by SIGKILL +++\n";
        let completed = complete(trace, Path::new("/data")).expect("a known form");
        let mut reader = CallReader::default();
        let calls = completed.lines().enumerate();
        let calls: Vec<_> = calls
            .map(|(at, line)| reader.read(line, at).expect("read"))
            .collect();
        let results: Vec<_> = calls
            .into_iter()
            .flatten()
            .map(|call| (call.name, call.result))
            .collect();
        assert_eq!(results, [("ftruncate".to_owned(), Some(-1))]);
    }
}

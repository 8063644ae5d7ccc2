//! A service of the load test's own: the server, its locks and what is between them.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::population::{FIRST_LOCK, HeldKeys, Keywright, Population, Size, forged, of_sandbox};
use crate::server::Server;

/// How long a broker may take to listen.
const LISTENING: Duration = Duration::from_secs(10);

/// What the AWS SDK signs requests with; the sandbox does not look at signatures.
const NOBODYS_CREDENTIALS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "nobody"),
    ("AWS_SECRET_ACCESS_KEY", "nothing"),
];

/// The folder of locks that run beside the server.
const SANDBOX: &str = "sandbox";

/// A prime, by whose multiples locks with faults are spread.
const SPREAD: u64 = 1_000_003;

/// Where locks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// In memory: the sandbox's locks, and its credentials.
    Memory,
    /// In an SQLite file.
    Sqlite,
    /// In the PostgreSQL database of --postgres.
    Postgres,
}

/// Where shadows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shadow {
    /// In the server, and gone with it.
    Volatile,
    /// In the server, durable.
    Memory,
    /// Behind AWS's REST, served by `keywright sandbox`.
    Rest,
    /// Behind mosquitto, served by `keywright sandbox`.
    Mqtt,
}

/// What to start.
#[derive(Args, Clone, Debug)]
pub struct Spawn {
    /// Start a server, with locks that answer.
    #[arg(long)]
    pub spawn: bool,
    /// The server's program [default: keywright beside this one].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Where it keeps locks.
    #[arg(long, value_enum, default_value = "sqlite")]
    pub store: Store,
    /// The database, for --store postgres.
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// Where the shadows are.
    #[arg(long, value_enum, default_value = "mqtt")]
    pub shadow: Shadow,
    /// What the locks do besides working: offline=5%:20s (that share of them, until then), latency=300ms (of all),
    /// late=5%:20s (they report so much later), twice=10% (they report twice), silent=1% (never), card=2%:3s (they need a
    /// card), fail=1%:NoSpace.
    #[arg(long, value_name = "LIST", default_value = "latency=100ms", value_parser = fleet)]
    pub fleet: Fleet,
}

/// The script of faults of the locks.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// As it was written.
    pub text: String,
    parts: Vec<(f64, String)>,
}

/// Reads it.
///
/// # Errors
/// A part is none; the text says which.
pub fn fleet(text: &str) -> Result<Fleet, String> {
    let mut fleet = Fleet {
        text: text.to_owned(),
        parts: Vec::new(),
    };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let bad = || format!("`{part}`: write it as latency=300ms, twice=10% or offline=5%:20s");
        let (name, value) = part.split_once('=').ok_or_else(bad)?;
        if name == "latency" {
            fleet.parts.push((1.0, format!("latency={value}")));
            continue;
        }
        let (share, value) = match value.split_once(':') {
            Some((share, value)) => (share, Some(value)),
            None => (value, None),
        };
        let share: f64 = share
            .strip_suffix('%')
            .ok_or_else(bad)?
            .parse()
            .map_err(|_| bad())?;
        if !(0.0..=100.0).contains(&share) {
            return Err(bad());
        }
        let behaviour = match (name, value) {
            ("twice" | "silent", None) => name.to_owned(),
            // Of two latencies in a lock's list the last one counts.
            ("late", Some(value)) => format!("latency={value}"),
            ("offline" | "card" | "fail", Some(value)) => format!("{name}={value}"),
            _ => return Err(bad()),
        };
        fleet.parts.push((share / 100.0, behaviour));
    }
    Ok(fleet)
}

impl Fleet {
    /// What is said to the program that runs the locks.
    fn arguments(&self, locks: u64) -> Vec<String> {
        let of_all = |(share, _): &&(f64, String)| *share >= 1.0;
        let all: Vec<&str> = self
            .parts
            .iter()
            .filter(of_all)
            .map(|(_, b)| &**b)
            .collect();
        let all = if all.is_empty() {
            vec!["latency=100ms"]
        } else {
            all
        };
        let mut arguments = vec!["--behaviour".to_owned(), format!("all:{}", all.join(","))];
        let mut next = 0;
        for (share, behaviour) in self.parts.iter().filter(|part| !of_all(part)) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a share of at most a million locks"
            )]
            let count = (locks as f64 * share).round() as u64;
            for n in next..(next + count).min(locks) {
                // Spread over all, popular or not.
                let lock = FIRST_LOCK + n * SPREAD % locks;
                let list = [all.join(","), behaviour.clone()].join(",");
                arguments.extend(["--behaviour".to_owned(), format!("{lock}:{list}")]);
            }
            next += count;
        }
        arguments
    }
}

/// All that was started, ended when it is dropped.
pub struct Spawned {
    /// The server.
    pub server: Server,
    /// Who loads it.
    pub population: Population,
    binary: PathBuf,
    /// Where the locks keep what they hold.
    memories: PathBuf,
    _helpers: Vec<Helper>,
    _folder: TempDir,
}

struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Spawned {
    /// Makes the population and starts everything.
    ///
    /// # Errors
    /// Something does not start; the text says what.
    pub fn start(spawn: &Spawn, size: Size) -> Result<Self, String> {
        let binary = match &spawn.binary {
            Some(binary) => binary.clone(),
            None => beside_this_one()?,
        };
        let folder = TempDir::new().map_err(|e| e.to_string())?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data).map_err(|e| e.to_string())?;
        let store = match (spawn.store, &spawn.postgres) {
            (Store::Postgres, None) => return Err("--store postgres needs --postgres URL".into()),
            (Store::Postgres, Some(url)) => Some(url.as_str()),
            _ => None,
        };
        let keywright = Keywright {
            binary: &binary,
            data: &data,
            store,
        };
        if spawn.store != Store::Memory {
            keywright.add_locks(size)?;
        }
        let fleet = spawn.fleet.arguments(size.locks);
        let locks = size.locks.to_string();
        let mut arguments: Vec<String> = ["--locks", &locks].map(str::to_owned).into();
        let mut helpers = Vec::new();
        match spawn.shadow {
            Shadow::Volatile => arguments.extend(["--shadow", "volatile"].map(str::to_owned)),
            Shadow::Memory => {}
            Shadow::Rest => {
                let address = free_address()?;
                let more = ["--rest", &address.to_string()];
                helpers.push(sandbox(&binary, folder.path(), &more, &locks, &fleet)?);
                wait_for(address, "keywright sandbox")?;
                let endpoint = format!("http://{address}");
                let more = [
                    "--shadow",
                    "aws",
                    "--aws-endpoint",
                    &endpoint,
                    "--aws-region",
                    "eu-west-1",
                ];
                arguments.extend(more.map(str::to_owned));
                arguments.extend(["--reports", "poll", "--poll-every", "1s"].map(str::to_owned));
            }
            Shadow::Mqtt => {
                let address = free_address()?;
                helpers.push(mosquitto(folder.path(), address)?);
                wait_for(address, "mosquitto")?;
                let url = format!("mqtt://{address}");
                helpers.push(sandbox(
                    &binary,
                    folder.path(),
                    &["--broker", &url],
                    &locks,
                    &fleet,
                )?);
                arguments.extend(["--shadow", "mqtt", "--mqtt-broker", &url].map(str::to_owned));
            }
        }
        if matches!(spawn.shadow, Shadow::Volatile | Shadow::Memory) {
            arguments.extend(fleet);
        }
        let kept = match spawn.store {
            Store::Memory => Some("memory"),
            Store::Sqlite => None,
            Store::Postgres => store,
        };
        arguments.extend(
            kept.iter()
                .flat_map(|kept| ["--store".to_owned(), (*kept).to_owned()]),
        );
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let variables: &[_] = match spawn.shadow {
            Shadow::Rest => &NOBODYS_CREDENTIALS,
            _ => &[],
        };
        let server = Server::start_with(&binary, &data, None, &arguments, variables)?;
        server.wait_for("/readyz", "Accept: */*", &[200])?;
        let population = match spawn.store {
            Store::Memory => of_the_sandbox(&data, size)?,
            _ => keywright.make_credentials(size)?,
        };
        // The server takes keys over that were issued beside it, the last one last.
        let last = population.api_keys.last().cloned().unwrap_or_default();
        let path = format!("/locks/{FIRST_LOCK}/details");
        server.wait_for(&path, &format!("X-API-Key: {last}"), &[200, 403])?;
        let memories = match helpers.is_empty() {
            true => data.clone(),
            false => folder.path().join(SANDBOX),
        };
        Ok(Self {
            server,
            population,
            binary: binary.clone(),
            memories,
            _helpers: helpers,
            _folder: folder,
        })
    }
}

impl Spawned {
    /// What the locks hold, by their own memories.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn held_keys(&self) -> Result<HeldKeys, String> {
        let keywright = Keywright {
            binary: &self.binary,
            data: &self.memories,
            store: None,
        };
        keywright.held_keys()
    }
}

fn beside_this_one() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let beside = this.with_file_name("keywright");
    match beside.is_file() {
        true => Ok(beside),
        false => Err(format!(
            "there is no {}; name it with --binary",
            beside.display()
        )),
    }
}

/// All locks are the demo user's and the demo organization's.
fn of_the_sandbox(data: &Path, size: Size) -> Result<Population, String> {
    let token = of_sandbox(data, "KEYWRIGHT_TOKEN")?;
    Ok(Population {
        first_lock: FIRST_LOCK,
        locks: size.locks,
        api_keys: vec![of_sandbox(data, "KEYWRIGHT_API_KEY")?],
        forged_token: forged(&token),
        tokens: vec![token],
    })
}

fn sandbox(
    binary: &Path,
    folder: &Path,
    way: &[&str],
    locks: &str,
    fleet: &[String],
) -> Result<Helper, String> {
    let mut command = Command::new(binary);
    command.arg("sandbox").args(way);
    command
        .args(["--locks", locks, "--log-level", "error"])
        .args(fleet);
    command.arg("--data").arg(folder.join(SANDBOX));
    helper(command, "keywright sandbox")
}

fn mosquitto(folder: &Path, address: SocketAddr) -> Result<Helper, String> {
    let path = folder.join("mosquitto.conf");
    let mut file = std::fs::File::create(&path).map_err(|e| e.to_string())?;
    let settings = format!(
        "listener {} {}\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 0\n",
        address.port(),
        address.ip()
    );
    file.write_all(settings.as_bytes())
        .map_err(|e| e.to_string())?;
    let known = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    let found = known.into_iter().find(|path| Path::new(path).is_file());
    let mut command = Command::new(found.unwrap_or("mosquitto"));
    command.arg("-c").arg(&path);
    helper(command, "mosquitto (Debian's package of that name)")
}

fn helper(mut command: Command, what: &str) -> Result<Helper, String> {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = quiet
        .spawn()
        .map_err(|e| format!("cannot run {what}: {e}"))?;
    Ok(Helper(child))
}

fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    listener.local_addr().map_err(|e| e.to_string())
}

fn wait_for(address: SocketAddr, what: &str) -> Result<(), String> {
    let pause = Duration::from_millis(50);
    for _ in 0..LISTENING.as_millis() / pause.as_millis() {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(pause);
    }
    Err(format!("{what} does not listen at {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_fleet_differs_in_one_thing() {
        let fleet = fleet("latency=100ms,late=2%:20s").expect("a fleet");
        let arguments = fleet.arguments(100);
        let lists: Vec<&str> = arguments.iter().skip(1).step_by(2).map(|a| &**a).collect();
        assert_eq!(lists.len(), 3);
        assert_eq!(lists[0], "all:latency=100ms");
        for list in &lists[1..] {
            assert!(list.ends_with(":latency=100ms,latency=20s"), "{list}");
        }
    }

    #[test]
    fn what_is_no_part_of_a_fleet_is_refused() {
        for text in [
            "late=2%",
            "late=2:20s",
            "silent=1%:20s",
            "late=200%:1s",
            "sleepy=1%",
        ] {
            let refused = super::fleet(text).expect_err("refused");
            assert!(!refused.is_empty(), "{text}");
        }
    }
}

//! A service of the load test's own: the server, its locks and what is between them.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::fleet;
use crate::fleet::Fleet;
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
    /// The database, for --store postgres: an empty one, for the locks of an earlier run are gone.
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// Where the shadows are.
    #[arg(long, value_enum, default_value = "mqtt")]
    pub shadow: Shadow,
    /// What the locks do besides working: latency=300ms (of all), late=5%:20s (that share of them reports so much later),
    /// twice=10% (they report twice), silent=1% (never), card=2%:3s (they need a card), fail=1%:NoSpace; and for a while,
    /// counted from the first write: offline=10%@20s-30s, or any other, as latency=2s@40s-45s. offline=5%:20s is
    /// offline=5%@0s-20s.
    #[arg(long, value_name = "LIST", default_value = "latency=100ms", value_parser = fleet::read)]
    pub fleet: Fleet,
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
            keywright.add_locks(size).map_err(|why| match spawn.store {
                Store::Postgres => format!("{why}; --postgres must name an empty database"),
                _ => why,
            })?;
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
            Store::Memory => of_the_sandbox(&keywright, size)?,
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
fn of_the_sandbox(keywright: &Keywright<'_>, size: Size) -> Result<Population, String> {
    let data = keywright.data;
    let token = of_sandbox(data, "KEYWRIGHT_TOKEN")?;
    Ok(Population {
        first_lock: FIRST_LOCK,
        locks: size.locks,
        api_keys: vec![of_sandbox(data, "KEYWRIGHT_API_KEY")?],
        forged_token: forged(&token),
        expired_token: Some(keywright.expired_token()?),
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

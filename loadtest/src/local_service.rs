//! A service that the load test starts: the server, the virtual locks, and a broker if one is needed.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::child_process::ChildProcess;
use crate::error::Error;
use crate::fleet;
use crate::fleet::Fleet;
use crate::population::{
    FIRST_LOCK, HeldKeys, Keywright, Population, Size, forged, sandbox_variable,
};
use crate::server::{Server, wait_until};

/// Credentials for the AWS SDK. The sandbox does not check signatures.
const UNCHECKED_CREDENTIALS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "nobody"),
    ("AWS_SECRET_ACCESS_KEY", "nothing"),
];

/// The data folder of virtual locks that run beside the server.
const SANDBOX: &str = "sandbox";

/// The store of the locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// In memory, with the locks and credentials of the sandbox.
    Memory,
    /// In an SQLite file.
    Sqlite,
    /// In the PostgreSQL database of --postgres.
    Postgres,
}

/// The kind of shadows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shadow {
    /// In the server's memory.
    Volatile,
    /// In the server, in a file.
    Memory,
    /// Over the REST API of AWS IoT, served by `keywright sandbox`.
    Rest,
    /// Over MQTT through mosquitto, served by `keywright sandbox`.
    Mqtt,
}

/// Options of a service that the load test starts.
#[derive(Args, Clone, Debug)]
pub struct Spawn {
    /// Start a server with virtual locks.
    #[arg(long)]
    pub spawn: bool,
    /// The program `keywright` [default: the one in the folder of this program].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// The store of the locks.
    #[arg(long, value_enum, default_value = "sqlite")]
    pub store: Store,
    /// An empty database, for --store postgres.
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// The kind of shadows.
    #[arg(long, value_enum, default_value = "mqtt")]
    pub shadow: Shadow,
    /// Behaviours of the locks: latency=300ms (all locks), late=5%:20s (5 % of the locks report 20 s later), twice=10% (report
    /// twice), silent=1% (never report), card=2%:3s (wait for a card), fail=1%:NoSpace (refuse with a reason). Each may have a time
    /// window, counted from the first write: offline=10%@20s-30s, latency=2s@40s-45s. offline=5%:20s is offline=5%@0s-20s.
    #[arg(long, value_name = "LIST", default_value = "latency=100ms", value_parser = fleet::parse)]
    pub fleet: Fleet,
}

/// The processes of a service, ended when it is dropped.
pub struct LocalService {
    /// The server.
    pub server: Server,
    /// The population.
    pub population: Population,
    binary: PathBuf,
    /// The data folder with the memories of the locks.
    memories: PathBuf,
    _helpers: Vec<ChildProcess>,
    _folder: TempDir,
}

impl LocalService {
    /// Creates the population and starts all processes.
    ///
    /// # Errors
    /// A process does not start; the text names it.
    pub fn start(spawn: &Spawn, size: Size) -> Result<Self, Error> {
        let binary = match &spawn.binary {
            Some(binary) => binary.clone(),
            None => default_binary()?,
        };
        let folder = TempDir::new()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let store = match (spawn.store, &spawn.postgres) {
            (Store::Memory, _) => "memory",
            (Store::Sqlite, _) => "sqlite",
            (Store::Postgres, Some(url)) => url,
            (Store::Postgres, None) => {
                let text = "--store postgres needs --postgres URL";
                return Err(Error::Options(text.into()));
            }
        };
        let keywright = Keywright {
            binary: &binary,
            data: &data,
            store: Some(store),
        };
        if spawn.store != Store::Memory {
            keywright.add_locks(size).map_err(|why| match spawn.store {
                Store::Postgres => {
                    Error::Service(format!("{why}; --postgres must name an empty database"))
                }
                _ => why,
            })?;
        }
        let fleet = spawn.fleet.arguments(size.locks);
        let locks = size.locks.to_string();
        let sandbox = |front: &str| {
            let mut command = Command::new(&binary);
            command.args(["sandbox", "--locks", &locks, "--log-level", "error"]);
            command.args(front.split(' ')).args(&fleet);
            command.arg("--data").arg(folder.path().join(SANDBOX));
            ChildProcess::start(&mut command)
        };
        let mut helpers = Vec::new();
        let shadow = match spawn.shadow {
            Shadow::Volatile => "--shadow volatile".to_owned(),
            Shadow::Memory => "--shadow memory".to_owned(),
            Shadow::Rest => {
                let address = free_address()?;
                helpers.push(sandbox(&format!("--rest {address}"))?);
                wait_for(address, "keywright sandbox")?;
                format!(
                    "--shadow aws --aws-endpoint http://{address} --aws-region eu-west-1 --reports poll --poll-every 1s"
                )
            }
            Shadow::Mqtt => {
                let address = free_address()?;
                helpers.push(mosquitto(folder.path(), address)?);
                wait_for(address, "mosquitto")?;
                helpers.push(sandbox(&format!("--broker mqtt://{address}"))?);
                format!("--shadow mqtt --mqtt-broker mqtt://{address}")
            }
        };
        let mut arguments = vec!["--locks", &locks, "--store", store];
        arguments.extend(shadow.split(' '));
        if helpers.is_empty() {
            arguments.extend(fleet.iter().map(String::as_str));
        }
        let server = Server::start(&binary, &data, None, &arguments, &UNCHECKED_CREDENTIALS)?;
        server.wait_for("/readyz", "Accept: */*", &[200])?;
        let population = match spawn.store {
            Store::Memory => sandbox_population(&keywright, size)?,
            _ => keywright.make_credentials(size)?,
        };
        // The server loads keys that were issued beside it; wait for the last one.
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

    /// The keys in the memories of the locks.
    ///
    /// # Errors
    /// The memories cannot be read.
    pub fn held_keys(&self) -> Result<HeldKeys, Error> {
        let keywright = Keywright {
            binary: &self.binary,
            data: &self.memories,
            store: None,
        };
        keywright.held_keys()
    }
}

fn default_binary() -> Result<PathBuf, Error> {
    let this = std::env::current_exe()?;
    let binary = this.with_file_name("keywright");
    match binary.is_file() {
        true => Ok(binary),
        false => Err(Error::Options(format!(
            "there is no {}; use --binary",
            binary.display()
        ))),
    }
}

/// The population of the sandbox: all locks belong to the demo user and the demo organization.
fn sandbox_population(keywright: &Keywright<'_>, size: Size) -> Result<Population, Error> {
    let data = keywright.data;
    let token = sandbox_variable(data, "KEYWRIGHT_TOKEN")?;
    Ok(Population {
        first_lock: FIRST_LOCK,
        locks: size.locks,
        api_keys: vec![sandbox_variable(data, "KEYWRIGHT_API_KEY")?],
        forged_token: forged(&token),
        expired_token: Some(keywright.expired_token()?),
        tokens: vec![token],
    })
}

fn mosquitto(folder: &Path, address: SocketAddr) -> Result<ChildProcess, Error> {
    let path = folder.join("mosquitto.conf");
    let mut file = std::fs::File::create(&path)?;
    let settings = format!(
        "listener {} {}\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 0\n",
        address.port(),
        address.ip()
    );
    file.write_all(settings.as_bytes())?;
    let paths = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    let found = paths.into_iter().find(|path| Path::new(path).is_file());
    let mut command = Command::new(found.unwrap_or("mosquitto"));
    command.arg("-c").arg(&path);
    ChildProcess::start(&mut command)
        .map_err(|e| Error::Service(format!("{e}; install the Debian package mosquitto")))
}

fn free_address() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?)
}

fn wait_for(address: SocketAddr, what: &str) -> Result<(), Error> {
    let failure = format_args!("{what} does not listen at {address}");
    wait_until(failure, || TcpStream::connect(address).is_ok())
}

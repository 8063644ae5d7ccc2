//! PostgreSQL servers and PgBouncer for tests, each on a free port of loopback and with a temporary data directory.
//!
//! The programs must be installed. A test that runs as root runs them as the user `postgres` or `nobody`.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot start its database fails"
)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tempfile::TempDir;

/// A PostgreSQL server. Dropping it stops the server and deletes its data.
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    /// Settings besides [`SETTINGS`] and the port.
    settings: String,
    /// Additional environment variables.
    variables: Vec<(String, String)>,
    databases: AtomicU32,
    child: Mutex<Option<Child>>,
}

/// The settings of all servers.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 32MB
log_min_messages = fatal
";

/// The server does not wait for the disk. A crash of the server loses no committed transaction; a crash of the machine can.
const FAST: &str = "fsync = off\n";

static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());

impl PostgresServer {
    /// The server that the tests of this process share. It runs as long as one of them holds it.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    /// Starts a server. It does not wait for the disk.
    pub fn start() -> Self {
        Self::start_fresh(FAST, Vec::new())
    }

    /// Starts a server with additional environment variables. It does not wait for the disk.
    pub fn start_with(variables: Vec<(String, String)>) -> Self {
        Self::start_fresh(FAST, variables)
    }

    /// Starts a server that waits for the disk, as in production. For measurements.
    pub fn start_durable() -> Self {
        Self::start_fresh("", Vec::new())
    }

    fn start_fresh(settings: &str, variables: Vec<(String, String)>) -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        chown_to_user(folder.path());
        chown_to_user(&data);
        let initdb = program("initdb")
            .args(["--no-sync", "--auth=trust", "--username=keywright"])
            .args(["-E", "UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .expect("PostgreSQL is installed (scripts/test installs it)");
        assert_success("initdb", &initdb);
        Self::run_in(folder, settings, variables)
    }

    /// Starts a standby of this server. It replicates this server and accepts no writes.
    pub fn standby(&self) -> Self {
        let folder = TempDir::new().unwrap();
        chown_to_user(folder.path());
        let backup = program("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .arg(format!("--dbname=postgres://keywright@{}/", self.address()))
            .arg("-D")
            .arg(folder.path().join("data"))
            .output();
        assert_success("pg_basebackup", &backup.unwrap());
        let connection = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=keywright'\n",
            self.port
        );
        let settings = format!("{}{connection}", self.settings);
        Self::run_in(folder, &settings, self.variables.clone())
    }

    fn run_in(folder: TempDir, settings: &str, variables: Vec<(String, String)>) -> Self {
        let mut server = Self {
            folder,
            port: 0,
            settings: settings.to_owned(),
            variables,
            databases: AtomicU32::new(0),
            child: Mutex::new(None),
        };
        // Another process may take the free port before the server binds it.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            server.port = listener.local_addr().unwrap().port();
            drop(listener);
            if server.try_run() {
                return server;
            }
        }
        panic!("PostgreSQL does not start");
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn try_run(&self) -> bool {
        let settings = format!("{SETTINGS}{}port = {}\n", self.settings, self.port);
        let path = self.data().join("postgresql.auto.conf");
        std::fs::write(path, settings).unwrap();
        let child = program("postgres")
            .envs(self.variables.iter().cloned())
            .arg("-D")
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        *self.child() = Some(child.unwrap());
        for _ in 0..1000 {
            let ended = self.child().as_mut().and_then(|c| c.try_wait().unwrap());
            if ended.is_some() {
                return false;
            }
            if self.psql("postgres", "SELECT 1").is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of its main process. `None`: it is stopped.
    pub fn process_id(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Creates an empty database and returns its URL.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let created = self.psql("postgres", &format!("CREATE DATABASE {name}"));
        created.expect("the database is created");
        format!("postgres://keywright@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs SQL statements with `psql` and returns the rows, one per line, with columns separated by `|`.
    ///
    /// # Errors
    /// The error output of `psql`.
    pub fn psql(&self, database: &str, statements: &str) -> Result<String, String> {
        let url = format!("postgres://keywright@127.0.0.1:{}/{database}", self.port);
        let output = program("psql")
            .args([
                "--no-psqlrc",
                "-qAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statements,
                &url,
            ])
            .output()
            .expect("psql is installed (scripts/test installs it)");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Stops the server with a mode of `pg_ctl stop`: `smart`, `fast` (rolls transactions back) or `immediate` (a crash).
    pub fn stop(&self, mode: &str) {
        let stopped = program("pg_ctl")
            .args(["stop", "-w", "-m", mode, "-D"])
            .arg(self.data())
            .output();
        assert_success("pg_ctl", &stopped.unwrap());
        if let Some(mut child) = self.child().take() {
            let _ = child.wait();
        }
    }

    /// Starts the stopped server again, on the same port.
    pub fn restart(&self) {
        // A connection of another process may use the port for a moment.
        let restarted = (0..50).any(|_| {
            let runs = self.try_run();
            if !runs {
                std::thread::sleep(Duration::from_millis(100));
            }
            runs
        });
        assert!(restarted, "PostgreSQL does not start again");
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            // SIGQUIT ends the server and all of its processes at once.
            let _ = Command::new("kill")
                .args(["-QUIT", &child.id().to_string()])
                .status();
            let _ = child.wait();
        }
    }
}

/// PgBouncer in front of a server. Dropping it stops it.
pub struct PgBouncer {
    _folder: TempDir,
    port: u16,
    child: Child,
}

impl PgBouncer {
    /// Starts PgBouncer with a pool mode: `session`, `transaction` or `statement`. Further settings may follow the mode, each on a
    /// line of its own.
    pub fn start(server: &PostgresServer, mode: &str) -> Self {
        let folder = TempDir::new().unwrap();
        chown_to_user(folder.path());
        let file = folder.path().join("pgbouncer.ini");
        // Another process may take the free port before PgBouncer binds it.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let settings = format!(
                "[databases]\n* = host=127.0.0.1 port={} user=keywright\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n",
                server.port
            );
            std::fs::write(&file, settings).unwrap();
            let path = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
            let path = { path }.into_iter().find(|path| Path::new(path).exists());
            let mut child = as_user(Command::new(path.unwrap_or("pgbouncer")))
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("PgBouncer is installed (scripts/test installs it)");
            for _ in 0..1000 {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self {
                        _folder: folder,
                        port,
                        child,
                    };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("PgBouncer does not start");
    }

    /// The URL of a database of the server, through PgBouncer.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://keywright@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of PostgreSQL, run as a user that may run it.
fn program(name: &str) -> Command {
    // On Debian, most of them are not in PATH.
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<PathBuf> = installed.flatten().map(|v| v.path()).collect();
    versions.sort_unstable();
    let found = versions.iter().rev().map(|v| v.join("bin").join(name));
    let found = { found }.find(|path| path.exists());
    as_user(Command::new(found.unwrap_or_else(|| name.into())))
}

/// Runs the command as the user of [`user`].
fn as_user(mut command: Command) -> Command {
    command.current_dir("/").stdin(Stdio::null());
    if let Some((user, group)) = *user() {
        command.uid(user).gid(group);
    }
    command
}

/// The user and group as which servers run, because PostgreSQL refuses to run as root. `None`: the tests do not run as root.
fn user() -> &'static Option<(u32, u32)> {
    static USER: std::sync::OnceLock<Option<(u32, u32)>> = std::sync::OnceLock::new();
    USER.get_or_init(|| {
        let id = |arguments: &[&str]| {
            let output = Command::new("id").args(arguments).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            text.parse::<u32>().ok()
        };
        if id(&["-u"]) != Some(0) {
            return None;
        }
        let of = |name| id(&["-u", name]).zip(id(&["-g", name]));
        of("postgres").or_else(|| of("nobody"))
    })
}

fn chown_to_user(folder: &Path) {
    if let Some((user, group)) = *user() {
        std::os::unix::fs::chown(folder, Some(user), Some(group)).unwrap();
    }
}

fn assert_success(program: &str, output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {text}");
}

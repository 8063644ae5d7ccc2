//! The embedding service: its own access rules, and events that reach its bus although it is killed between commit and publishing.

#[path = "../embed.rs"]
#[expect(dead_code, reason = "the test calls `serve` instead of `main`")]
mod embed;

use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

const FOLDER: &str = "EMBED_FOLDER";
const BUS: &str = "EMBED_BUS";

/// The process that the other tests start.
#[tokio::test(flavor = "multi_thread")]
async fn service() {
    if let (Ok(folder), Ok(bus)) = (std::env::var(FOLDER), std::env::var(BUS)) {
        let served = embed::serve(Path::new(&folder), bus).await;
        served.expect("the service ends in order");
    }
}

struct Service {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Service {
    fn start(folder: &Path, bus: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "service", "--nocapture"])
            .envs([(FOLDER, folder.as_os_str()), (BUS, bus.as_ref())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, output }
    }

    /// Sends a command, and returns the answer.
    fn command(&mut self, command: &str) -> String {
        let input = self.process.stdin.as_mut().expect("piped");
        writeln!(input, "{command}").expect("the service runs");
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).expect("text") > 0,
                "no answer"
            );
            if line.contains(command) {
                return line;
            }
        }
    }

    /// Ends standard input, and waits for the end of the process.
    fn stop(mut self) {
        drop(self.process.stdin.take());
        let output = self.output.lines().last();
        assert!(self.process.wait().expect("ended").success(), "{output:?}");
    }
}

/// A bus that passes on each line that it acknowledges.
fn start_bus() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tx = tx.clone();
            let stream: TcpStream = stream.expect("connected");
            thread::spawn(move || {
                let mut answers = stream.try_clone().expect("cloned");
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let event = serde_json::from_str(&line).expect("JSON");
                    let acknowledged = writeln!(answers, "{line}");
                    if acknowledged.is_ok() && tx.send(event).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, rx)
}

#[test]
fn events_reach_the_bus_although_the_service_was_killed_before_it_published_them() {
    let folder = TempDir::new().expect("a folder");
    // It accepts connections and acknowledges nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_address = silent.local_addr().expect("bound").to_string();
    let mut service = Service::start(folder.path(), &silent_address);
    for slot in 1..=3 {
        let answer = service.command(&format!("alice 123 key-{slot} {slot}"));
        assert!(answer.contains("sent as"), "{answer}");
    }
    service.process.kill().expect("killed");
    service.process.wait().expect("ended");
    assert!(
        !folder.path().join("published").exists(),
        "nothing was published"
    );

    let (bus, events) = start_bus();
    let mut service = Service::start(folder.path(), &bus);
    let answer = service.command("alice 123 key-4 4");
    assert!(answer.contains("sent as"), "{answer}");
    let mut versions = Vec::new();
    while versions.len() < 5 {
        let event = events.recv().expect("the bus runs");
        versions.push(event["version"].as_u64().expect("a version"));
        versions.dedup();
    }
    assert_eq!(versions, [1, 2, 3, 4, 5]);
    service.stop();
    let published = std::fs::read_to_string(folder.path().join("published")).expect("kept");
    let position: u64 = published.parse().expect("a position");
    assert!(
        position >= 5,
        "each event has a position of its own: {position}"
    );
}

#[test]
fn the_service_decides_by_its_own_rules_who_may_write() {
    let folder = TempDir::new().expect("a folder");
    let (bus, _events) = start_bus();
    let mut service = Service::start(folder.path(), &bus);
    let refused = service.command("mallory 123 key-1 1");
    assert!(!refused.contains("sent as"), "{refused}");
    let accepted = service.command("alice 123 key-1 1");
    assert!(accepted.contains("sent as"), "{accepted}");
    let malformed = service.command("alice 123");
    assert!(
        malformed.contains("expected: CALLER LOCK KEY SLOT"),
        "{malformed}"
    );
    service.stop();
}

//! The whole server over loopback HTTP, compared with a bare hyper server under the same load.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use keywright_loadtest::population::sandbox_variable;
use keywright_loadtest::server::Server;
use keywright_loadtest::uniform_load::{self, RequestFactory};
use serde_json::json;
use tempfile::TempDir;

use crate::concurrent::{RUNS, now};
use crate::programs::{Programs, SERVER_CORE};
use crate::table::{Row, Target, median};

const LOCKS: u64 = 20_000;
const CONNECTIONS: usize = 64;
const SPAN: Duration = Duration::from_secs(3);

/// Different valid tokens, one for each request.
const COLD_TOKENS: u64 = 120_000;

/// The figures of one period of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// CPU time of one request, in microseconds.
    pub(crate) cpu: f64,
    pub(crate) per_second: f64,
    /// In microseconds.
    pub(crate) p50: f64,
    /// In microseconds.
    pub(crate) p99: f64,
}

impl Figures {
    pub(crate) fn median(all: &[Self], part: fn(&Self) -> f64) -> f64 {
        median(all.iter().map(part).collect())
    }
}

pub(crate) async fn measure(server: &Server, factory: &RequestFactory) -> Figures {
    measure_at(server, factory, CONNECTIONS).await
}

pub(crate) async fn measure_at(
    server: &Server,
    factory: &RequestFactory,
    connections: usize,
) -> Figures {
    // Waking a sleeping client costs the server CPU time. The clients of the faster bare server never sleep.
    let _awake = uniform_load::keep_awake();
    let next = Arc::new(AtomicU64::new(0));
    let warm_up = SPAN / 4;
    uniform_load::closed(server.address, factory, &next, connections, warm_up).await;
    let cpu_seconds = || server.usage().expect("it is running").cpu_seconds;
    let before = cpu_seconds();
    let result = uniform_load::closed(server.address, factory, &next, connections, SPAN).await;
    let used = cpu_seconds() - before;
    let answers = &result.answers;
    let statuses: Vec<&u16> = answers.statuses.keys().collect();
    assert_eq!(statuses, [&200], "{:?}", answers.statuses);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = answers.count(200) as f64;
    Figures {
        cpu: used * 1e6 / count,
        per_second: result.goodput(),
        p50: answers.accepted.quantile(0.5).as_secs_f64() * 1e6,
        p99: answers.accepted.quantile(0.99).as_secs_f64() * 1e6,
    }
}

fn start(programs: &Programs, data: &Path, store: &str) -> Server {
    let locks = LOCKS.to_string();
    let mut arguments = vec!["--locks", &locks, "--virtual-locks", "off"];
    arguments.extend(["--store", store, "--shadow", "volatile"]);
    programs.start(data, &arguments)
}

pub(crate) fn token(data: &Path) -> String {
    sandbox_variable(data, "KEYWRIGHT_TOKEN").expect("the sandbox's")
}

/// `Authorization` values with different valid tokens.
fn cold_tokens(data: &Path) -> Vec<String> {
    let key = std::fs::read(data.join("token-key.pk8")).expect("the sandbox's key");
    let (key, header) = (
        EncodingKey::from_ec_der(&key),
        Header::new(Algorithm::ES256),
    );
    let sign = |n| {
        let claims = json!({
            "iss": "https://sandbox.keywright.invalid", "aud": "keywright-sandbox", "sub": "demo-user",
            "exp": 4_000_000_000_u64, "jti": n,
        });
        let token = encode(&header, &claims, &key).expect("a token");
        format!("Bearer {token}")
    };
    (0..COLD_TOKENS).map(sign).collect()
}

/// The time of one ES256 verification with a parsed key, in microseconds.
fn bare_verification(data: &Path, tokens: &[String]) -> f64 {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        ParsedPublicKey,
    };
    let key = std::fs::read(data.join("token-key.pk8")).expect("the sandbox's key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key);
    let pair = pair.expect("a key pair");
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
    let key = key.expect("a key");
    let start = now();
    for token in &tokens[..5000] {
        let token = token.strip_prefix("Bearer ").expect("a token");
        let (signed, signature) = token.rsplit_once('.').expect("a token");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        let verified = key.verify_sig(signed.as_bytes(), &signature);
        verified.expect("a valid signature");
    }
    start.elapsed().as_secs_f64() * 1e6 / 5000.0
}

/// The median time of `fdatasync` after appending 4 KiB, in milliseconds, measured until `over` is set.
fn syncs(folder: &Path, over: &AtomicBool) -> f64 {
    let mut file = File::create(folder.join("syncs")).expect("a file");
    let mut all = Vec::new();
    while !over.load(Ordering::Relaxed) {
        file.write_all(&[7; 4096]).expect("written");
        let start = now();
        file.sync_data().expect("synced");
        all.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(5));
    }
    median(all)
}

pub(crate) async fn rows(programs: &Programs) -> Vec<Row> {
    let (mut bare, mut memory, mut cold, mut sqlite) = (vec![], vec![], vec![], vec![]);
    let (mut verifications, mut sync_times) = (vec![], vec![]);
    for _ in 0..RUNS {
        let server = Server::start_program(&programs.bare_hyper(), SERVER_CORE, &[]);
        let factory = uniform_load::writes("none", LOCKS);
        bare.push(measure(&server.expect("it starts"), &factory).await);

        let data = TempDir::new().expect("a folder");
        let server = start(programs, data.path(), "memory");
        let factory = uniform_load::writes(&token(data.path()), LOCKS);
        memory.push(measure(&server, &factory).await);
        let tokens = cold_tokens(data.path());
        verifications.push(bare_verification(data.path(), &tokens));
        let factory: RequestFactory = Arc::new(move |n| {
            let index = usize::try_from(n % COLD_TOKENS).unwrap_or_default();
            uniform_load::write(&tokens[index], LOCKS, n)
        });
        cold.push(measure(&server, &factory).await);
        drop(server);

        let data = TempDir::new().expect("a folder");
        let server = start(programs, data.path(), "sqlite");
        let factory = uniform_load::writes(&token(data.path()), LOCKS);
        let over = Arc::new(AtomicBool::new(false));
        let (folder, until) = (data.path().to_owned(), over.clone());
        let syncing = std::thread::spawn(move || syncs(&folder, &until));
        sqlite.push(measure(&server, &factory).await);
        over.store(true, Ordering::Relaxed);
        sync_times.push(syncing.join().expect("no panic"));
    }
    let (bare_cpu, memory_cpu) = (
        Figures::median(&bare, |f| f.cpu),
        Figures::median(&memory, |f| f.cpu),
    );
    let (bare_p99, memory_p99) = (
        Figures::median(&bare, |f| f.p99),
        Figures::median(&memory, |f| f.p99),
    );
    let added = Figures::median(&cold, |f| f.cpu) - memory_cpu;
    let verification = median(verifications);
    let (fast, durable) = (
        Figures::median(&memory, |f| f.per_second),
        Figures::median(&sqlite, |f| f.per_second),
    );
    let sync = median(sync_times);
    #[expect(clippy::cast_precision_loss, reason = "64")]
    let by_syncs = CONNECTIONS as f64 / (2.0 * sync / 1e3);
    vec![
        Row {
            what: "WriteKey over HTTP in memory, cached token: CPU of a request".into(),
            measured: format!("{memory_cpu:.1} µs"),
            reference: format!("bare hyper {bare_cpu:.1} µs"),
            figure: bare_cpu / memory_cpu,
            target: Target::AtLeast(0.70),
        },
        Row {
            what: "the same with an ES256 token of its own each time: CPU that adds".into(),
            measured: format!("{added:.1} µs"),
            reference: format!("one verification {verification:.1} µs"),
            figure: added / verification,
            target: Target::AtMost(1.15),
        },
        Row {
            what: "p99 at 64 connections, in memory".into(),
            measured: format!("{memory_p99:.0} µs"),
            reference: format!("bare hyper {bare_p99:.0} µs"),
            figure: memory_p99 / bare_p99,
            target: Target::AtMost(1.5),
        },
        Row {
            what: "WriteKey over HTTP on SQLite, durable, 64 in flight".into(),
            measured: format!("{durable:.0} a second"),
            reference: format!("in memory {fast:.0}, by fdatasync ({sync:.2} ms) {by_syncs:.0}"),
            figure: durable / fast.min(by_syncs),
            target: Target::AtLeast(0.70),
        },
    ]
}

//! The whole service over loopback HTTP, beside a bare hyper server that is asked the same by the same client: requests
//! for a second of the server's CPU, and their times. Both are measured in turn, several times; the medians count.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use keywright_loadtest::pressure::{self, Make};
use keywright_loadtest::server::Server;
use tempfile::TempDir;

const LOCKS: u64 = 20_000;
const FIRST_LOCK: u64 = 1001;
const CONNECTIONS: usize = 64;

/// What one span of pressure says of a server.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Microseconds of CPU for one request.
    cpu: f64,
    p99: f64,
}

fn request(token: &str, n: u64) -> Request<Full<bytes::Bytes>> {
    let lock = FIRST_LOCK + fastrand::u64(0..LOCKS);
    let body = format!("{{\"keyUuid\":\"load-{n}\",\"keyIndexNumber\":0}}");
    Request::post(format!("/locks/{lock}/WriteKey"))
        .header("Host", "keywright")
        .header("Authorization", format!("Bearer {token}"))
        .header("Content-Type", "application/json")
        .body(Full::from(body))
        .expect("all of it is text")
}

async fn measure(server: &Server, make: &Make, span: Duration) -> Figures {
    let next = Arc::new(AtomicU64::new(0));
    let warm_up = span / 4;
    pressure::closed(server.address, make, &next, CONNECTIONS, warm_up).await;
    let before = server.cpu_seconds().expect("it runs");
    let pressed = pressure::closed(server.address, make, &next, CONNECTIONS, span).await;
    let used = server.cpu_seconds().expect("it runs") - before;
    let answers = &pressed.answers;
    assert_eq!(
        answers.statuses.keys().collect::<Vec<_>>(),
        [&200],
        "{:?}",
        answers.statuses
    );
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = answers.of(200) as f64;
    Figures {
        cpu: used * 1e6 / count,
        p99: answers.good.at(0.99).as_secs_f64() * 1e6,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let bin = std::env::current_exe().expect("a path");
    let bin: PathBuf = bin.parent().map(Path::to_owned).expect("a folder");
    let store = std::env::args().nth(1).unwrap_or_else(|| "memory".into());
    let runs: usize = std::env::args()
        .nth(2)
        .map_or(3, |n| n.parse().expect("a number"));
    let span = Duration::from_secs(3);
    let cores = Some("0");
    let (mut bare, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let data = TempDir::new().expect("a folder");
        {
            let server = Server::start_plain(&bin.join("bare-hyper"), cores).expect("it starts");
            let make: Make = Arc::new(|n| request("none", n));
            bare.push(measure(&server, &make, span).await);
        }
        let locks = LOCKS.to_string();
        let arguments = [
            "--locks",
            &locks,
            "--virtual-locks",
            "off",
            "--store",
            &store,
            "--shadow",
            "volatile",
        ];
        let server = Server::start(&bin.join("keywright"), data.path(), cores, &arguments);
        let server = server.expect("it starts");
        let env = std::fs::read_to_string(data.path().join("sandbox.env")).expect("a file");
        let token = env.lines().find_map(|l| l.strip_prefix("KEYWRIGHT_TOKEN="));
        let token = token.expect("a token").to_owned();
        let make: Make = Arc::new(move |n| request(&token, n));
        whole.push(measure(&server, &make, span).await);
        println!("bare {:?}\nwhole {:?}", bare.last(), whole.last());
    }
    let of = |all: &[Figures], part: fn(&Figures) -> f64| median(all.iter().map(part).collect());
    println!(
        "CPU: bare {:.1} us, whole {:.1} us, ratio {:.2}",
        of(&bare, |f| f.cpu),
        of(&whole, |f| f.cpu),
        of(&bare, |f| f.cpu) / of(&whole, |f| f.cpu)
    );
    println!(
        "p99: bare {:.0} us, whole {:.0} us, ratio {:.2}",
        of(&bare, |f| f.p99),
        of(&whole, |f| f.p99),
        of(&whole, |f| f.p99) / of(&bare, |f| f.p99)
    );
}

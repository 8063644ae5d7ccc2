//! Loads a running server with writes, to profile it: `load ADDRESS TOKEN CONNECTIONS SECONDS [RATE]`. Without RATE, each connection
//! sends its next request after an answer; with RATE, requests are sent at this number a second.

use std::sync::Arc;
use std::time::Duration;

use keywright_loadtest::uniform_load::{self, Clients};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let rate: Option<f64> = arguments.get(4).map(|rate| rate.parse().expect("a number"));
    arguments.truncate(4);
    let [address, token, connections, seconds] = arguments.try_into().expect("four arguments");
    let factory = uniform_load::writes(&token, 20_000);
    let (address, next) = (address.parse().expect("an address"), Arc::default());
    let connections = connections.parse().expect("a number");
    let _awake = uniform_load::keep_awake();
    let span = Duration::from_secs(seconds.parse().expect("a number"));
    let result = match rate {
        None => uniform_load::closed(address, &factory, &next, connections, span).await,
        Some(rate) => {
            let clients = Clients::connect(address, connections).await;
            let mut clients = clients.expect("a server");
            clients.open(&factory, &next, rate, span).await
        }
    };
    println!(
        "{:.0}/s, {:?}, p99 {:?}, {} late",
        result.goodput(),
        result.answers.statuses,
        result.answers.accepted.quantile(0.99),
        result.late
    );
}

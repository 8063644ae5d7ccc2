//! Presses a running server with writes, for a profile of it: `press ADDRESS TOKEN CONNECTIONS SECONDS [RATE]`; as fast
//! as answers come, or at so many requests a second whatever is answered.

use std::sync::Arc;
use std::time::Duration;

use keywright_loadtest::load_writes::{self, Clients};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let rate: Option<f64> = arguments.get(4).map(|rate| rate.parse().expect("a number"));
    arguments.truncate(4);
    let [address, token, connections, seconds] = arguments.try_into().expect("four arguments");
    let make = load_writes::writes(&token, 20_000);
    let (address, next) = (address.parse().expect("an address"), Arc::default());
    let connections = connections.parse().expect("a number");
    let _awake = load_writes::awake();
    let span = Duration::from_secs(seconds.parse().expect("a number"));
    let pressed = match rate {
        None => load_writes::closed(address, &make, &next, connections, span).await,
        Some(rate) => {
            let clients = Clients::connect(address, connections).await;
            let mut clients = clients.expect("a server");
            clients.open(&make, &next, rate, span).await
        }
    };
    println!(
        "{:.0}/s, {:?}, p99 {:?}, {} waited",
        pressed.goodput(),
        pressed.answers.statuses,
        pressed.answers.good.at(0.99),
        pressed.waited
    );
}

//! Runs a bare hyper server on a free port, and prints its URL as Keywright does.

use keywright_benches::bare_hyper;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    println!("bare hyper is at http://{address}");
    bare_hyper::serve(listener).await;
}

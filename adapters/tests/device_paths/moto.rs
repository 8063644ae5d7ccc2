//! The AWS SDK against a moto server, which somebody else wrote: what both it and our own service understand is
//! probably what AWS IoT understands.
//!
//! Where moto 5.2.5 differs from AWS: it has no bound of a document's size (so no `a_full_shadow_refuses`), answers a
//! version on a shadow that does not exist with 500, knows only things that its registry has, and never throttles.
//! What lies between is not moto's: lost and late answers are tried on our own service.

use std::net::TcpListener as Free;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use keywright_adapters::shadow::AwsShadow;
use keywright_domain::ports::*;
use keywright_domain::values::*;
use keywright_testkit::samples::{lock_id, thing};
use keywright_testkit::shadow_port::Device;
use keywright_testkit::shadow_port_cases;
use tokio::net::TcpStream;

use crate::NAME;
use crate::aws_sdk::at;

struct Moto {
    child: Child,
    port: u16,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    async fn start() -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/moto_server");
        assert!(
            program.exists(),
            "moto is not installed: scripts/test does that"
        );
        let port = Free::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.expect("a port").port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let moto = Self {
            child: child.expect("moto starts"),
            port,
        };
        for _ in 0..1500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return moto;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("moto does not start");
    }

    async fn post(&self, path: &str, service: &str, body: &str) {
        let stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("a connection");
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        // moto finds the service that is meant by the scope of the signature.
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = hyper::Request::post(path)
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .header("Authorization", scope)
            .body(Full::<Bytes>::from(body.to_owned()))
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        assert!(
            status.is_success(),
            "{path}: {status} {}",
            String::from_utf8_lossy(&body)
        );
    }
}

struct Reached {
    shadow: AwsShadow,
    moto: Arc<Moto>,
}

#[async_trait]
impl ShadowPort for Reached {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        self.shadow.update(thing, change).await
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        self.shadow.read(thing, token).await
    }
}

#[async_trait]
impl Device for Reached {
    async fn report(&self, thing: &ThingName, document: &str) {
        let path = format!("/things/{}/shadow?name={NAME}", thing.as_str());
        self.moto.post(&path, "iotdata", document).await;
    }
}

async fn fresh() -> (Arc<Reached>, Arc<Reached>) {
    let moto = Moto::start().await;
    for n in 1..=2 {
        let path = format!("/things/{}", thing(lock_id(n)).as_str());
        moto.post(&path, "iot", "{}").await;
    }
    let shadow = at(
        format!("http://127.0.0.1:{}", moto.port),
        Duration::from_secs(10),
    );
    let reached = Arc::new(Reached {
        shadow,
        moto: Arc::new(moto),
    });
    (reached.clone(), reached)
}

shadow_port_cases! { fresh:
    a_missing_shadow_is_none, creating_makes_an_empty_shadow, an_entry_that_was_put_is_there,
    another_version_is_a_conflict, a_fence_only_moves_the_version,
    removing_takes_only_what_is_named, results_are_read_in_full,
    clearing_takes_only_the_named_results, things_are_apart
}

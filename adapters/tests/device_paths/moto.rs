//! The AWS SDK with a moto server, an independent implementation: requests that both moto and our service accept are probably
//! accepted by AWS IoT.
//!
//! [`where_moto_differs`] lists the known differences. Transport faults are tested with our service only.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use keywright_domain::model::ThingName;
use keywright_testkit::samples::{lock_id, thing};
use keywright_testkit::shadow_port::Device;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::aws_sdk::at;
use crate::{Connected, NAME};

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
            "moto is not installed; scripts/test installs it"
        );
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
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
        let (status, body) = self.request("POST", path, service, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {body}");
    }

    async fn request(&self, method: &str, path: &str, service: &str, body: &str) -> (u16, String) {
        let stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("a connection");
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        // moto determines the service by the scope of the signature.
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .header("Authorization", scope)
            .body(Full::<Bytes>::from(body.to_owned()))
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

#[async_trait]
impl Device for Moto {
    async fn report(&self, thing: &ThingName, document: &str) {
        let path = format!("/things/{}/shadow?name={NAME}", thing.as_str());
        self.post(&path, "iotdata", document).await;
    }

    async fn state(&self, thing: &ThingName) -> Value {
        let path = format!("/things/{}/shadow?name={NAME}", thing.as_str());
        let (status, body) = self.request("GET", &path, "iotdata", "").await;
        assert_eq!(status, 200, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        body["state"].clone()
    }
}

async fn fixture() -> (Connected<()>, Arc<Moto>) {
    let moto = Moto::start().await;
    for n in 1..=2 {
        let path = format!("/things/{}", thing(lock_id(n)).as_str());
        moto.post(&path, "iot", "{}").await;
    }
    let endpoint = format!("http://127.0.0.1:{}", moto.port);
    (
        Connected::new(at(endpoint, Duration::from_secs(10)), ()),
        Arc::new(moto),
    )
}

mod contract {
    keywright_testkit::shadow_port_cases! { super::fixture:
        missing_shadow_reads_as_none, create_makes_an_empty_shadow, put_entries_are_read_back,
        other_version_is_a_conflict, fence_changes_only_the_version,
        remove_takes_only_the_named_entries, results_are_read_with_all_members,
        clear_takes_only_the_named_results, shadows_of_things_are_independent
    }
}

/// Differences between moto and AWS IoT, whose answers our service gives. The test fails if a new version of moto changes.
#[tokio::test(flavor = "multi_thread")]
async fn where_moto_differs() {
    let moto = Moto::start().await;
    moto.post("/things/door", "iot", "{}").await;
    let large = format!(
        r#"{{"state":{{"reported":{{"x":"{}"}}}}}}"#,
        "y".repeat(9000)
    );
    let shadow = "/things/door/shadow?name=keys";
    // Method, path, body, moto's status, AWS's status.
    let cases = [
        ("POST", shadow, r#"{"state":{}}"#, 200, 200),
        // moto has no limit of a document's size, so the case `too_large_update_is_refused` is not in the list above.
        ("POST", shadow, &*large, 200, 413),
        (
            "POST",
            "/things/door/shadow?name=new",
            r#"{"state":{},"version":7}"#,
            500,
            409,
        ),
        ("POST", shadow, r#"{"state":{"desired":[]}}"#, 200, 400),
        // On AWS, an update creates the shadow of an unregistered thing.
        (
            "POST",
            "/things/nobody/shadow?name=keys",
            r#"{"state":{}}"#,
            404,
            200,
        ),
        ("DELETE", shadow, "", 200, 200),
        ("DELETE", shadow, "", 200, 404),
    ];
    let ours = crate::service();
    for (method, path, body, theirs, aws) in cases {
        let (status, text) = moto.request(method, path, "iotdata", body).await;
        assert_eq!(status, theirs, "moto: {method} {path}: {text}");
        let mut parts = path.trim_start_matches("/things/").split("/shadow?name=");
        let (thing, name) = (
            parts.next().expect("a thing"),
            parts.next().expect("a shadow"),
        );
        let name = keywright_shadow::ShadowName::Named(name.into());
        let answer = match method {
            "POST" => ours.update(thing, &name, body.as_bytes()).await,
            _ => ours.delete(thing, &name, b"").await,
        };
        let status = answer.map_or_else(|rejected| rejected.code, |_| 200);
        assert_eq!(status, aws, "ours: {method} {path}");
    }
}

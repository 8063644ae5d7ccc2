//! Deliveries to local endpoints, and to names that lead to forbidden addresses.
#![cfg(feature = "webhook-delivery")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::webhooks::{EnvelopeSettings, HttpWebhookSender, Resolver, sign};
use keywright_domain::model::*;
use keywright_domain::policy::{AddressRules, UnusableUrl};
use keywright_domain::ports::WebhookSender;
use keywright_testkit::samples::{NOW, created, lock_id};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// Names with the addresses that each resolution returns, one after another. The last ones are repeated.
#[derive(Default)]
struct Names(Mutex<Vec<Name>>);

type Name = (&'static str, Vec<Vec<IpAddr>>);

impl Names {
    fn with(name: &'static str, resolutions: &[&[&str]]) -> Self {
        let address = |text: &&str| text.parse().expect("an address");
        let resolutions = resolutions
            .iter()
            .map(|all| all.iter().map(address).collect());
        Self(Mutex::new(vec![(name, resolutions.collect())]))
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut names = self.0.lock().expect("no panic");
        let found = names.iter_mut().find(|(known, _)| *known == name);
        let (_, resolutions) = found.ok_or(io::Error::other("no such name"))?;
        match resolutions.len() {
            1 => Ok(resolutions[0].clone()),
            _ => Ok(resolutions.remove(0)),
        }
    }
}

fn loopback_rules() -> AddressRules {
    AddressRules {
        allowed: AddressRules::loopback().to_vec(),
        allows_http_on_loopback: true,
    }
}

fn sender(rules: AddressRules, names: Names) -> HttpWebhookSender {
    let envelope = EnvelopeSettings::default();
    let sender = HttpWebhookSender::new(rules, envelope, Arc::new(names), None);
    sender.expect("the authorities of the system")
}

fn webhook(url: &str) -> Webhook {
    Webhook {
        id: WebhookId::from_u128(1),
        owner: WebhookOwner::EveryOrganization,
        url: WebhookUrl::new(url).expect("a URL"),
        events: EventSelection::All,
        description: None,
        secrets: SigningSecrets {
            current: SigningSecret::new(vec![2; 32]).expect("a secret"),
            previous: Some((
                SigningSecret::new(vec![1; 32]).expect("a secret"),
                NOW.after(Duration::from_secs(60)),
            )),
        },
        created_at: NOW,
        state: WebhookState::Enabled,
        revision: Revision(1),
        progress: WebhookProgress::default(),
    }
}

fn message() -> WebhookMessage {
    WebhookMessage::Event(Box::new(WebhookEvent {
        recorded: created(lock_id(7)),
        organization: OrganizationId::new("acme").ok(),
    }))
}

async fn send(sender: &HttpWebhookSender, url: &str) -> Result<EndpointAnswer, NoAnswer> {
    let timeout = Duration::from_secs(10);
    sender.send(&webhook(url), &message(), NOW, timeout).await
}

/// Reads a request: its head and its body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<HeadAndBody> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).expect("text");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().expect("a number"));
            while read.len() < end + 4 + length {
                let count = stream.read(&mut buffer).await.ok()?;
                read.extend_from_slice(&buffer[..count]);
            }
            return Some((head, read.split_off(end + 4)));
        }
        match stream.read(&mut buffer).await.ok()? {
            0 => return None,
            count => read.extend_from_slice(&buffer[..count]),
        }
    }
}

type HeadAndBody = (String, Vec<u8>);

/// What an endpoint has received, and how many connections it has accepted.
#[derive(Clone, Default)]
struct Received {
    requests: Arc<Mutex<Vec<HeadAndBody>>>,
    connections: Arc<AtomicUsize>,
}

async fn serve_connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    received: Received,
    answer: &str,
) {
    while let Some(request) = read_request(&mut stream).await {
        received.requests.lock().expect("no panic").push(request);
        if stream.write_all(answer.as_bytes()).await.is_err() || answer.contains("close") {
            return;
        }
    }
}

/// An endpoint that answers every request with this text.
async fn endpoint(answer: impl Into<String>) -> (SocketAddr, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let (received, answer) = (Received::default(), answer.into());
    let kept = received.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            received.connections.fetch_add(1, Ordering::SeqCst);
            let (received, answer) = (received.clone(), answer.clone());
            tokio::spawn(async move { serve_connection(stream, received, &answer).await });
        }
    });
    (address, kept)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_delivery_has_the_envelope_and_is_signed_by_both_secrets() {
    let (address, received) = endpoint(OK).await;
    let sender = sender(loopback_rules(), Names::default());
    let url = format!("http://{address}/hook?x=1");
    let answer = send(&sender, &url).await.expect("an answer");
    let expected = EndpointAnswer {
        status: 200,
        retry_after: None,
        body: "ok".into(),
    };
    assert_eq!(answer, expected);
    let (head, body) = received.requests.lock().expect("no panic").remove(0);
    assert!(head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{head}");
    let header = |name: &str| {
        let prefix = format!("{name}: ");
        let line = head.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {name}: {head}"))
            .to_owned()
    };
    assert_eq!(header("host"), address.to_string());
    assert_eq!(header("webhook-id"), "7-1");
    assert_eq!(header("webhook-timestamp"), NOW.as_secs().to_string());
    let secrets = webhook(&url).secrets;
    let signatures = sign(secrets.valid_at(NOW), "7-1", NOW.as_secs(), &body);
    assert_eq!(header("webhook-signature"), signatures);
    assert_eq!(signatures.split(' ').count(), 2);
    let envelope: Value = serde_json::from_slice(&body).expect("JSON");
    let WebhookMessage::Event(event) = message() else {
        unreachable!("it is an event")
    };
    assert_eq!(envelope["id"], "7-1");
    assert_eq!(envelope["source"], "spk.api");
    assert_eq!(envelope["detail-type"], "LockCreated");
    assert_eq!(
        (&envelope["region"], &envelope["account"]),
        (&"local".into(), &"000000000000".into())
    );
    assert_eq!(
        (&envelope["version"], &envelope["resources"]),
        (&"0".into(), &serde_json::json!([]))
    );
    let time = envelope["time"].as_str().expect("a time");
    assert!(time.ends_with('Z') && !time.contains('.'), "{time}");
    let detail = &envelope["detail"];
    assert_eq!(
        (&detail["partnerId"], &detail["aggregateType"]),
        (&"acme".into(), &"lock".into())
    );
    assert_eq!(detail["aggregateId"], event.recorded.uuid.as_str());
    assert_eq!(detail["timestamp"], event.recorded.time.as_millis());
    assert_eq!(
        (&detail["version"], &detail["data"]["type"]),
        (&1.into(), &"LockCreated".into())
    );
    assert_eq!(detail["data"]["lockId"], 7);
    assert_eq!(detail["data"]["timestamp"], event.recorded.time.to_string());
}

#[tokio::test]
async fn connections_are_used_again_and_a_closed_one_is_replaced_at_once() {
    let (address, received) = endpoint(OK).await;
    let sender = sender(loopback_rules(), Names::default());
    let url = format!("http://{address}/");
    for _ in 0..3 {
        assert_eq!(send(&sender, &url).await.expect("an answer").status, 200);
    }
    assert_eq!(received.connections.load(Ordering::SeqCst), 1);
    // This endpoint closes each connection after its answer, and does not say so.
    let (address, received) =
        endpoint("HTTP/1.1 200 OK\r\nX: close\r\nContent-Length: 0\r\n\r\n").await;
    let url = format!("http://{address}/");
    for _ in 0..3 {
        assert_eq!(send(&sender, &url).await.expect("an answer").status, 200);
    }
    assert_eq!(received.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (target, reached) = endpoint(OK).await;
    let redirect =
        format!("HTTP/1.1 307 x\r\nLocation: http://{target}/\r\nContent-Length: 0\r\n\r\n");
    let (address, _) = endpoint(redirect).await;
    let sender = sender(loopback_rules(), Names::default());
    let answer = send(&sender, &format!("http://{address}/")).await;
    assert_eq!(answer.expect("an answer").status, 307);
    assert_eq!(reached.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn long_answers_are_cut_off() {
    let body = "ä".repeat(100_000);
    let answer = format!(
        "HTTP/1.1 500 x\r\nRetry-After: 7\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (address, _) = endpoint(answer).await;
    let sender = sender(loopback_rules(), Names::default());
    let answer = send(&sender, &format!("http://{address}/"))
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status, answer.retry_after),
        (500, Some(Duration::from_secs(7)))
    );
    assert_eq!(answer.body, "ä".repeat(512));
}

#[tokio::test]
async fn retry_after_can_be_a_time() {
    let text =
        "HTTP/1.1 503 x\r\nRetry-After: Thu, 28 May 2026 20:28:20 GMT\r\nContent-Length: 0\r\n\r\n";
    let (address, _) = endpoint(text).await;
    let sender = sender(loopback_rules(), Names::default());
    let answer = send(&sender, &format!("http://{address}/"))
        .await
        .expect("an answer");
    let now: Timestamp = NOW.to_string().parse().expect("a time");
    let at: Timestamp = "2026-05-28T20:28:20Z".parse().expect("a time");
    assert_eq!(answer.retry_after, Some(at.since(now)));
}

#[tokio::test]
async fn silence_and_broken_connections_are_no_answers() {
    let sender = sender(loopback_rules(), Names::default());
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("its address"));
    let timeout = Duration::from_millis(300);
    let answer = sender.send(&webhook(&url), &message(), NOW, timeout).await;
    assert_eq!(answer, Err(NoAnswer::Timeout));
    let (address, _) = endpoint("close").await;
    let answer = send(&sender, &format!("http://{address}/")).await;
    assert!(matches!(answer, Err(NoAnswer::Connection(_))), "{answer:?}");
    // Bound, so that no other test gets the port, and not listening.
    let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
    let any = "127.0.0.1:0".parse().expect("an address");
    closed.bind(any).expect("a port");
    let url = format!("http://{}/", closed.local_addr().expect("its address"));
    let answer = send(&sender, &url).await;
    assert!(matches!(answer, Err(NoAnswer::Connection(_))), "{answer:?}");
}

#[tokio::test]
async fn names_that_lead_to_forbidden_addresses_are_refused() {
    for addresses in [
        &["10.0.0.1"][..],
        &["169.254.169.254"],
        &["::1"],
        &["::ffff:192.168.1.1"],
        // One of several is enough.
        &["1.1.1.1", "127.0.0.1"],
    ] {
        let names = Names::with("app.example", &[addresses]);
        let sender = sender(AddressRules::default(), names);
        let url = WebhookUrl::new("https://app.example/").expect("a URL");
        let checked = sender.check(&url).await;
        assert!(
            matches!(checked, Err(UnusableUrl::Forbidden(_))),
            "{addresses:?}: {checked:?}"
        );
        let answer = send(&sender, "https://app.example/").await;
        assert!(
            matches!(answer, Err(NoAnswer::ForbiddenAddress(_))),
            "{answer:?}"
        );
    }
    let sender = sender(AddressRules::default(), Names::default());
    let url = WebhookUrl::new("https://nowhere.example/").expect("a URL");
    let checked = sender.check(&url).await;
    assert!(
        matches!(checked, Err(UnusableUrl::Unresolved(_))),
        "{checked:?}"
    );
}

#[tokio::test]
async fn a_name_that_changes_its_address_after_the_registration_leads_nowhere() {
    let (address, received) = endpoint(OK).await;
    let names = Names::with("app.example", &[&["1.1.1.1"], &["127.0.0.1"]]);
    let sender = sender(AddressRules::default(), names);
    let url = format!("https://app.example:{}/", address.port());
    let checked = sender.check(&WebhookUrl::new(&url).expect("a URL")).await;
    assert_eq!(checked, Ok(()));
    let answer = send(&sender, &url).await;
    let Err(NoAnswer::ForbiddenAddress(why)) = answer else {
        panic!("{answer:?}");
    };
    assert!(
        why.contains("127.0.0.1") && why.contains("loopback"),
        "{why}"
    );
    assert_eq!(received.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn https_needs_a_certificate_of_a_trusted_authority_for_the_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    let made = rcgen::generate_simple_self_signed(vec!["app.example".to_owned()]);
    let rcgen::CertifiedKey { cert, signing_key } = made.expect("a certificate");
    std::fs::write(&ca, cert.pem()).expect("written");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.expect("a key"))
        .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_connection(stream, Received::default(), OK).await;
                }
            });
        }
    });
    let open = |ca: Option<&std::path::Path>, name| {
        let names = Arc::new(Names::with(name, &[&["127.0.0.1"]]));
        let made = HttpWebhookSender::new(loopback_rules(), EnvelopeSettings::default(), names, ca);
        made.expect("authorities")
    };
    let url = format!("https://app.example:{port}/");
    let trusted = open(Some(&ca), "app.example");
    assert_eq!(send(&trusted, &url).await.expect("an answer").status, 200);
    let answer = send(&open(None, "app.example"), &url).await;
    assert!(matches!(answer, Err(NoAnswer::Connection(_))), "{answer:?}");
    let other = format!("https://other.example:{port}/");
    let answer = send(&open(Some(&ca), "other.example"), &other).await;
    assert!(matches!(answer, Err(NoAnswer::Connection(_))), "{answer:?}");
}

//! Goose's client and its users, for the closed loop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use goose::config::GooseConfiguration;
use goose::prelude::*;
use tokio::time::Instant;

use crate::own_client::OwnClient;
use crate::personas::Persona;
use crate::population::Population;
use crate::recorder::Recorder;
use crate::session::{Answer, Ask, Caller, Credential, Session};

/// How long somebody does nothing before doing the next thing.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

struct OfGoose<'a> {
    user: &'a mut GooseUser,
    /// Goose's users ask one thing after the other; what they ask at once goes out by our own client.
    at_once: OwnClient,
}

impl OfGoose<'_> {
    async fn send(&mut self, ask: &Ask) -> Result<Option<Answer>, Box<TransactionError>> {
        let method = match ask.endpoint.method {
            "GET" => GooseMethod::Get,
            _ => GooseMethod::Post,
        };
        let mut request = self.user.get_request_builder(&method, &ask.path)?;
        request = match &ask.credential {
            Credential::Token(token) => request.header("Authorization", format!("Bearer {token}")),
            Credential::ApiKey(key) => request.header("X-API-Key", key),
        };
        if let Some(key) = &ask.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = &ask.body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.clone());
        }
        let request = GooseRequest::builder()
            .name(ask.name)
            .set_request_builder(request)
            .build();
        let Ok(answer) = self.user.request(request).await?.response else {
            return Ok(None);
        };
        let location = answer.headers().get("location");
        Ok(Some(Answer {
            status: answer.status().as_u16(),
            location: location.and_then(|l| l.to_str().ok()).map(str::to_owned),
            body: answer.bytes().await.unwrap_or_default(),
        }))
    }
}

#[async_trait]
impl Caller for OfGoose<'_> {
    async fn call(&mut self, ask: &Ask) -> Option<Answer> {
        self.send(ask).await.ok().flatten()
    }

    async fn call_all(&mut self, asks: &[Ask]) -> Vec<(Option<Answer>, Instant)> {
        self.at_once.call_all(asks).await
    }

    async fn call_and_hang_up(&mut self, ask: &Ask, after: Duration) {
        let _ = tokio::time::timeout(after, self.send(ask)).await;
    }
}

/// Lets so many users live one persona's life after the other, for this time.
///
/// # Errors
/// Goose's own.
pub async fn closed_loop(
    server: SocketAddr,
    users: usize,
    span: Duration,
    population: &Arc<Population>,
    recorder: &Arc<Recorder>,
) -> Result<(), GooseError> {
    let seconds = usize::try_from(span.as_secs().max(1)).unwrap_or(usize::MAX);
    let mut attack = GooseAttack::initialize_with_config(GooseConfiguration::default())?;
    let url = format!("http://{server}");
    attack = *attack.set_default(GooseDefault::Host, &*url)?;
    attack = *attack.set_default(GooseDefault::Users, users)?;
    attack = *attack.set_default(GooseDefault::IncreaseTime, 1_usize)?;
    attack = *attack.set_default(GooseDefault::RunTime, seconds)?;
    attack = *attack.set_default(GooseDefault::NoTelnet, true)?;
    attack = *attack.set_default(GooseDefault::NoPrintMetrics, true)?;
    attack = *attack.set_default(GooseDefault::Quiet, 2_usize)?;
    for (persona, weight) in Persona::ALL {
        let (population, recorder) = (population.clone(), recorder.clone());
        let live: TransactionFunction = Arc::new(move |user| {
            let (population, recorder) = (population.clone(), recorder.clone());
            Box::pin(async move {
                let at_once = OwnClient::new(server);
                let mut caller = OfGoose { user, at_once };
                let mut session = Session {
                    caller: &mut caller,
                    population: &population,
                    recorder: &recorder,
                    meant: None,
                };
                persona.live(&mut session).await;
                Ok(())
            })
        });
        let scenario = Scenario::new(persona.name())
            .set_weight(usize::from(weight))?
            .set_wait_time(PAUSE.0, PAUSE.1)?
            .register_transaction(Transaction::new(live).set_name(persona.name()));
        attack = attack.register_scenario(scenario);
    }
    attack.execute().await.map(drop)
}

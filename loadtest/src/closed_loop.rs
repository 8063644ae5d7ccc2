//! The closed loop: Goose runs a fixed number of users, each of which waits for its answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use goose::config::GooseConfiguration;
use goose::prelude::*;
use tokio::time::Instant;

use crate::hyper_caller::HyperCaller;
use crate::persona_session::{Answer, ApiRequest, Caller, Session};
use crate::personas::Persona;
use crate::population::Population;
use crate::recorder::Recorder;

/// The shortest and the longest pause of a user between two runs of a persona.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

struct GooseCaller<'a> {
    user: &'a mut GooseUser,
    /// For concurrent requests, because a user of Goose sends one request at a time.
    concurrent: HyperCaller,
}

impl GooseCaller<'_> {
    async fn send(
        &mut self,
        request: &ApiRequest,
    ) -> Result<Option<Answer>, Box<TransactionError>> {
        let method = match request.endpoint.method {
            "GET" => GooseMethod::Get,
            _ => GooseMethod::Post,
        };
        let mut builder = self.user.get_request_builder(&method, &request.path)?;
        for (name, value) in request.headers() {
            builder = builder.header(name, value);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let goose_request = GooseRequest::builder()
            .name(request.name)
            .set_request_builder(builder)
            .build();
        let Ok(answer) = self.user.request(goose_request).await?.response else {
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
impl Caller for GooseCaller<'_> {
    async fn call(&mut self, request: &ApiRequest) -> Option<Answer> {
        self.send(request).await.ok().flatten()
    }

    async fn call_all(&mut self, requests: &[ApiRequest]) -> Vec<(Option<Answer>, Instant)> {
        self.concurrent.call_all(requests).await
    }

    async fn call_and_disconnect(&mut self, request: &ApiRequest, after: Duration) {
        let _ = tokio::time::timeout(after, self.send(request)).await;
    }
}

/// Runs `users` users for this time. Each runs its persona again and again.
///
/// # Errors
/// Goose cannot run them.
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
    for (persona, name, weight) in Persona::ALL {
        let (population, recorder) = (population.clone(), recorder.clone());
        let run: TransactionFunction = Arc::new(move |user| {
            let (population, recorder) = (population.clone(), recorder.clone());
            Box::pin(async move {
                let concurrent = HyperCaller::new(server);
                let mut caller = GooseCaller { user, concurrent };
                let mut session = Session {
                    caller: &mut caller,
                    population: &population,
                    recorder: &recorder,
                    intended_at: None,
                };
                persona.run(&mut session).await;
                Ok(())
            })
        });
        let scenario = Scenario::new(name)
            .set_weight(usize::from(weight))?
            .set_wait_time(PAUSE.0, PAUSE.1)?
            .register_transaction(Transaction::new(run).set_name(name));
        attack = attack.register_scenario(scenario);
    }
    attack.execute().await.map(drop)
}

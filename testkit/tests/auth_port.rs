//! The fake keeps the contract, and for each case there is a broken one that only it catches.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_adapters::auth::InMemoryAuth;
use keywright_domain::model::{Identity, OrganizationId, Principal, UserId};
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};
use keywright_testkit::auth_port::AuthFixture;
use keywright_testkit::auth_port_cases;

type Proof = (Secret, Identity);

fn fresh() -> (Arc<InMemoryAuth>, Proof, Proof) {
    let auth = InMemoryAuth::default();
    let alice = Identity::User(UserId::new("alice").expect("a user id"));
    let acme = Identity::Organization(OrganizationId::new("acme").expect("an id"));
    auth.allow("the token of alice", alice.clone());
    auth.allow("the key of acme", acme.clone());
    let proof = |text: &str, identity| (Secret::new(text), identity);
    (
        Arc::new(auth),
        proof("the token of alice", alice),
        proof("the key of acme", acme),
    )
}

auth_port_cases!(fresh);

/// An adapter that breaks the contract in exactly one way: that of the case it is named after.
struct Broken {
    way: &'static str,
    inner: Arc<InMemoryAuth>,
}

#[async_trait]
impl AuthPort for Broken {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthError> {
        let is = |way: &str| self.way == way;
        let sent = (credentials.bearer.is_some(), credentials.api_key.is_some());
        let answer = self.inner.authenticate(credentials).await;
        match (&answer, sent) {
            (Err(_), (false, false)) if is("nobody_is_let_in_without_credentials") => {
                Ok(Principal::of(Identity::EveryOrganization))
            }
            (Ok(_), (true, false)) if is("a_token_alone_is_its_bearer") => {
                Ok(Principal::of(Identity::EveryOrganization))
            }
            (Ok(_), (false, true)) if is("an_api_key_alone_is_its_holder") => {
                Ok(Principal::of(Identity::EveryOrganization))
            }
            (Ok(both), (true, true)) if is("both_together_are_both") => {
                let first = both.identities().next().expect("one of two");
                Ok(Principal::of(first.clone()))
            }
            (Err(_), (true, true)) if is("a_bad_token_is_refused") => {
                let rest = Credentials {
                    bearer: None,
                    ..credentials.clone()
                };
                self.inner.authenticate(&rest).await
            }
            (Err(_), (true, true)) if is("a_bad_api_key_is_refused") => {
                let rest = Credentials {
                    api_key: None,
                    ..credentials.clone()
                };
                self.inner.authenticate(&rest).await
            }
            (Err(_), _) if is("a_refusal_gives_nothing_away") => {
                let sent = credentials.bearer.as_ref().or(credentials.api_key.as_ref());
                let text = sent.map_or("", Secret::expose);
                Err(AuthError::Refused(Box::leak(
                    text.to_owned().into_boxed_str(),
                )))
            }
            _ => answer,
        }
    }
}

#[tokio::test]
async fn each_broken_adapter_fails_its_own_case_and_no_other() {
    for way in AUTH_PORT_CASES {
        for case in AUTH_PORT_CASES {
            let outcome = tokio::spawn(async move {
                let (inner, token, api_key) = fresh();
                let port = Broken { way, inner };
                let desk = AuthFixture {
                    port: &port,
                    token,
                    api_key,
                };
                run_auth_port_case(case, &desk).await;
            });
            assert_eq!(
                outcome.await.is_err(),
                way == case,
                "broken in {way}, case {case}"
            );
        }
    }
}

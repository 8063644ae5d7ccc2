//! The in-memory adapter fulfils the contract of `AuthPort`, and for each case a broken adapter fails this case and no other.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_adapters::auth::InMemoryAuth;
use keywright_domain::model::{Identity, OrganizationId, Principal, UserId};
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};
use keywright_testkit::auth_port::AuthFixture;
use keywright_testkit::auth_port_cases;

type Proof = (Secret, Identity);

fn fixture() -> (Arc<InMemoryAuth>, Proof, Proof) {
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

auth_port_cases!(fixture);

/// An adapter that violates the contract only in what the named case checks.
struct Broken {
    case: &'static str,
    inner: Arc<InMemoryAuth>,
}

#[async_trait]
impl AuthPort for Broken {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthError> {
        let is = |case: &str| self.case == case;
        let sent = (credentials.bearer.is_some(), credentials.api_key.is_some());
        let answer = self.inner.authenticate(credentials).await;
        match (&answer, sent) {
            (Err(_), (false, false)) if is("missing_credentials_are_refused") => {
                Ok(Principal::of(Identity::EveryOrganization))
            }
            (Ok(_), (true, false)) if is("token_proves_its_identity") => {
                Ok(Principal::of(Identity::EveryOrganization))
            }
            (Ok(_), (false, true)) if is("api_key_proves_its_identity") => {
                Ok(Principal::of(Identity::EveryOrganization))
            }
            (Ok(both), (true, true)) if is("both_credentials_prove_both_identities") => {
                let first = both.identities().next().expect("one of two");
                Ok(Principal::of(first.clone()))
            }
            (Err(_), (true, true)) if is("invalid_token_is_refused") => {
                let rest = Credentials {
                    bearer: None,
                    ..credentials.clone()
                };
                self.inner.authenticate(&rest).await
            }
            (Err(_), (true, true)) if is("invalid_api_key_is_refused") => {
                let rest = Credentials {
                    api_key: None,
                    ..credentials.clone()
                };
                self.inner.authenticate(&rest).await
            }
            (Err(_), _) if is("refusal_does_not_reveal_secrets") => {
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
    for broken in AUTH_PORT_CASES {
        for case in AUTH_PORT_CASES {
            let outcome = tokio::spawn(async move {
                let (inner, token, api_key) = fixture();
                let port = Broken {
                    case: broken,
                    inner,
                };
                let auth = AuthFixture {
                    port: &port,
                    token,
                    api_key,
                };
                run_auth_port_case(case, &auth).await;
            });
            assert_eq!(
                outcome.await.is_err(),
                broken == case,
                "adapter broken for {broken}, case {case}"
            );
        }
    }
}

//! Contract test cases for [`AuthPort`].

use keywright_domain::model::{Identity, Principal};
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};

/// A port under test, with valid credentials.
pub struct AuthFixture<'a> {
    /// The port under test.
    pub port: &'a dyn AuthPort,
    /// A valid token, and the identity that it proves.
    pub token: (Secret, Identity),
    /// A valid API key, and the identity that it proves, which differs from that of the token.
    pub api_key: (Secret, Identity),
}

impl AuthFixture<'_> {
    async fn authenticate(
        &self,
        bearer: Option<&Secret>,
        api_key: Option<&Secret>,
    ) -> Result<Principal, AuthError> {
        let credentials = Credentials {
            bearer: bearer.cloned(),
            api_key: api_key.cloned(),
        };
        self.port.authenticate(&credentials).await
    }

    fn token(&self) -> Option<&Secret> {
        Some(&self.token.0)
    }

    fn api_key(&self) -> Option<&Secret> {
        Some(&self.api_key.0)
    }
}

/// The secret with another character in its middle.
fn forged(secret: &Secret) -> Secret {
    let text = secret.expose();
    let at = text.len() / 2;
    let other = if text.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    Secret::new(format!("{}{other}{}", &text[..at], &text[at + 1..]))
}

/// The identities of a principal. The names of its credentials are the adapter's choice.
fn identities(answer: Result<Principal, AuthError>) -> Result<Vec<Identity>, AuthError> {
    answer.map(|principal| principal.identities().cloned().collect())
}

fn assert_refused(answer: &Result<Principal, AuthError>) {
    assert!(matches!(answer, Err(AuthError::Refused(_))), "{answer:?}");
}

/// A request without credentials is refused.
pub async fn missing_credentials_are_refused(auth: &AuthFixture<'_>) {
    assert_refused(&auth.authenticate(None, None).await);
}

/// A token alone proves its identity.
pub async fn token_proves_its_identity(auth: &AuthFixture<'_>) {
    let answer = auth.authenticate(auth.token(), None).await;
    assert_eq!(identities(answer), Ok(vec![auth.token.1.clone()]));
}

/// An API key alone proves its identity.
pub async fn api_key_proves_its_identity(auth: &AuthFixture<'_>) {
    let answer = auth.authenticate(None, auth.api_key()).await;
    assert_eq!(identities(answer), Ok(vec![auth.api_key.1.clone()]));
}

/// A token and an API key together prove both identities, the token's first.
pub async fn both_credentials_prove_both_identities(auth: &AuthFixture<'_>) {
    let answer = auth.authenticate(auth.token(), auth.api_key()).await;
    let expected = vec![auth.token.1.clone(), auth.api_key.1.clone()];
    assert_eq!(identities(answer), Ok(expected));
}

/// An invalid token is refused, alone and together with a valid API key.
pub async fn invalid_token_is_refused(auth: &AuthFixture<'_>) {
    for invalid in [forged(&auth.token.0), Secret::new(""), Secret::new("x")] {
        assert_refused(&auth.authenticate(Some(&invalid), None).await);
        assert_refused(&auth.authenticate(Some(&invalid), auth.api_key()).await);
    }
}

/// An invalid API key is refused, alone and together with a valid token.
pub async fn invalid_api_key_is_refused(auth: &AuthFixture<'_>) {
    for invalid in [forged(&auth.api_key.0), Secret::new(""), Secret::new("x")] {
        assert_refused(&auth.authenticate(None, Some(&invalid)).await);
        assert_refused(&auth.authenticate(auth.token(), Some(&invalid)).await);
    }
}

/// The text of a refusal contains no part of the credentials.
pub async fn refusal_does_not_reveal_secrets(auth: &AuthFixture<'_>) {
    let (token, key) = (forged(&auth.token.0), forged(&auth.api_key.0));
    for (bearer, api_key) in [(Some(&token), None), (None, Some(&key))] {
        let Err(error) = auth.authenticate(bearer, api_key).await else {
            continue;
        };
        let text = format!("{error} {error:?}");
        for secret in [&token, &key] {
            let text_of = secret.expose();
            for part in [
                text_of,
                &text_of[..text_of.len() / 2],
                &text_of[text_of.len() / 2..],
            ] {
                assert!(!text.contains(part), "{text}");
            }
        }
    }
}

/// Generates a test for each case of the contract of `AuthPort`.
///
/// In `auth_port_cases!(fixture)`, `fixture()` returns a triple `(port, token, api_key)`: a smart pointer to an `AuthPort`, and the
/// credentials of an [`AuthFixture`](crate::auth_port::AuthFixture).
#[macro_export]
macro_rules! auth_port_cases {
    ($fixture:path) => {
        $crate::auth_port_cases! { $fixture:
            missing_credentials_are_refused, token_proves_its_identity,
            api_key_proves_its_identity, both_credentials_prove_both_identities, invalid_token_is_refused,
            invalid_api_key_is_refused, refusal_does_not_reveal_secrets
        }
    };
    ($fixture:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const AUTH_PORT_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name; the testkit's own tests run every case against broken adapters.
        pub async fn run_auth_port_case(case: &str, auth: &$crate::auth_port::AuthFixture<'_>) {
            match case {
                $(stringify!($case) => $crate::auth_port::$case(auth).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test]
        async fn $case() {
            let (port, token, api_key) = $fixture();
            let auth = $crate::auth_port::AuthFixture { port: &*port, token, api_key };
            $crate::auth_port::$case(&auth).await;
        })+
    };
}

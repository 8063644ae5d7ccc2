//! The contract of `AuthPort`.

use keywright_domain::model::{Identity, Principal};
use keywright_domain::ports::{AuthError, AuthPort, Credentials, Secret};

/// An adapter with a token and an API key that are good, and whom they prove.
pub struct AuthFixture<'a> {
    /// Who looks at credentials.
    pub port: &'a dyn AuthPort,
    /// A good token, and whose it is.
    pub token: (Secret, Identity),
    /// A good API key, and whose it is: somebody else's than the token.
    pub api_key: (Secret, Identity),
}

impl AuthFixture<'_> {
    async fn ask(
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

/// The same with another character in its middle.
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

/// Which credentials they were is for logs, and the adapter's own.
fn identities(answer: Result<Principal, AuthError>) -> Result<Vec<Identity>, AuthError> {
    answer.map(|principal| principal.identities().cloned().collect())
}

fn assert_refused(answer: &Result<Principal, AuthError>) {
    assert!(matches!(answer, Err(AuthError::Refused(_))), "{answer:?}");
}

/// Whoever sends nothing is refused.
pub async fn nobody_is_let_in_without_credentials(desk: &AuthFixture<'_>) {
    assert_refused(&desk.ask(None, None).await);
}

/// A token alone is its bearer.
pub async fn a_token_alone_is_its_bearer(desk: &AuthFixture<'_>) {
    let answer = desk.ask(desk.token(), None).await;
    assert_eq!(identities(answer), Ok(vec![desk.token.1.clone()]));
}

/// An API key alone is its holder.
pub async fn an_api_key_alone_is_its_holder(desk: &AuthFixture<'_>) {
    let answer = desk.ask(None, desk.api_key()).await;
    assert_eq!(identities(answer), Ok(vec![desk.api_key.1.clone()]));
}

/// Both together are both, the token's first.
pub async fn both_together_are_both(desk: &AuthFixture<'_>) {
    let answer = desk.ask(desk.token(), desk.api_key()).await;
    let expected = vec![desk.token.1.clone(), desk.api_key.1.clone()];
    assert_eq!(identities(answer), Ok(expected));
}

/// A bad token is refused, alone and beside a good API key.
pub async fn a_bad_token_is_refused(desk: &AuthFixture<'_>) {
    for bad in [forged(&desk.token.0), Secret::new(""), Secret::new("x")] {
        assert_refused(&desk.ask(Some(&bad), None).await);
        assert_refused(&desk.ask(Some(&bad), desk.api_key()).await);
    }
}

/// A bad API key is refused, alone and beside a good token.
pub async fn a_bad_api_key_is_refused(desk: &AuthFixture<'_>) {
    for bad in [forged(&desk.api_key.0), Secret::new(""), Secret::new("x")] {
        assert_refused(&desk.ask(None, Some(&bad)).await);
        assert_refused(&desk.ask(desk.token(), Some(&bad)).await);
    }
}

/// The text of a refusal holds nothing of what was sent.
pub async fn a_refusal_gives_nothing_away(desk: &AuthFixture<'_>) {
    let (token, key) = (forged(&desk.token.0), forged(&desk.api_key.0));
    for (bearer, api_key) in [(Some(&token), None), (None, Some(&key))] {
        let Err(error) = desk.ask(bearer, api_key).await else {
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

/// Stamps a test for each case: `auth_port_cases!(fresh)`, where `fresh()` makes a `(port, token, api_key)`: a thing
/// that gives `&dyn AuthPort`, and a good credential of each kind with whom it proves.
#[macro_export]
macro_rules! auth_port_cases {
    ($fresh:path) => {
        $crate::auth_port_cases! { $fresh:
            nobody_is_let_in_without_credentials, a_token_alone_is_its_bearer,
            an_api_key_alone_is_its_holder, both_together_are_both, a_bad_token_is_refused,
            a_bad_api_key_is_refused, a_refusal_gives_nothing_away
        }
    };
    ($fresh:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const AUTH_PORT_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name.
        pub async fn run_auth_port_case(case: &str, desk: &$crate::auth_port::AuthFixture<'_>) {
            match case {
                $(stringify!($case) => $crate::auth_port::$case(desk).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test]
        async fn $case() {
            let (port, token, api_key) = $fresh();
            let desk = $crate::auth_port::AuthFixture { port: &*port, token, api_key };
            $crate::auth_port::$case(&desk).await;
        })+
    };
}

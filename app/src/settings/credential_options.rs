//! Options of the credentials that the server accepts.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use keywright_adapters::auth::{Algorithm, JwtSettings};

use super::values::{TimeSpan, algorithm, claim};
use crate::settings::{KeyFile, TokenKeys, Tokens};

#[derive(Args)]
#[command(next_help_heading = "Credentials")]
pub(super) struct CredentialArgs {
    /// The keys that verify tokens, as a JSON Web Key Set: in a file, which is read again when it changes, or at an https URL,
    /// which is fetched at intervals, and at once when a token has an unknown key id.
    #[arg(long, value_name = "FILE|URL")]
    jwks: Option<String>,
    /// How often the URL of --jwks is fetched. A key that is removed there is refused within this time.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    jwks_every: TimeSpan,
    /// The file with the certificate authorities of that URL, in PEM [default: those of the system].
    #[arg(long, value_name = "FILE")]
    jwks_ca: Option<PathBuf>,
    /// The file with the single key that verifies tokens: a public key in PEM, or a shared secret.
    #[arg(long, value_name = "FILE", conflicts_with = "jwks")]
    token_key: Option<PathBuf>,
    /// The algorithm of --token-key: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA
    /// (Ed25519).
    #[arg(long, value_name = "NAME", default_value = "ES256", value_parser = algorithm)]
    token_algorithm: Algorithm,
    /// The issuer that tokens must name (`iss`).
    #[arg(long, value_name = "TEXT")]
    token_issuer: Option<String>,
    /// The audience that tokens must name (`aud`).
    #[arg(long, value_name = "TEXT")]
    token_audience: Option<String>,
    /// The claim that holds the organization. A token with this claim acts for the organization, not for a user.
    #[arg(long, value_name = "NAME", default_value = "org", value_parser = claim)]
    token_organization_claim: String,
}

impl CredentialArgs {
    /// Which tokens are accepted. `None`: no keys are set.
    ///
    /// # Errors
    /// The options contradict each other; the text names them.
    pub(super) fn tokens(self) -> anyhow::Result<Option<Tokens>> {
        let keys = match (&self.jwks, &self.token_key) {
            (Some(url), _) if url.contains("://") => self.published_keys(url)?,
            _ if self.jwks_ca.is_some() => bail!("--jwks-ca needs a URL in --jwks"),
            (Some(path), _) => TokenKeys::File(KeyFile::Jwks(path.into())),
            (None, Some(path)) => {
                TokenKeys::File(KeyFile::Single(path.clone(), self.token_algorithm))
            }
            (None, None) if self.token_issuer.is_some() || self.token_audience.is_some() => {
                bail!("--token-issuer and --token-audience need --jwks or --token-key")
            }
            (None, None) => return Ok(None),
        };
        let (Some(issuer), Some(audience)) = (self.token_issuer, self.token_audience) else {
            bail!("--jwks and --token-key need both --token-issuer and --token-audience")
        };
        let jwt = JwtSettings {
            issuer,
            audience,
            organization_claim: self.token_organization_claim,
        };
        Ok(Some(Tokens { keys, jwt }))
    }

    #[cfg(feature = "jwks-url")]
    fn published_keys(&self, url: &str) -> anyhow::Result<TokenKeys> {
        let every = self.jwks_every.0;
        anyhow::ensure!(!every.is_zero(), "--jwks-every must be more than zero");
        Ok(TokenKeys::Published(crate::settings::JwksUrl {
            url: url.to_owned(),
            ca: self.jwks_ca.clone(),
            every,
        }))
    }

    #[cfg(not(feature = "jwks-url"))]
    fn published_keys(&self, _: &str) -> anyhow::Result<TokenKeys> {
        bail!(
            "--jwks: this program reads only files, because it was built without the feature jwks-url"
        )
    }
}

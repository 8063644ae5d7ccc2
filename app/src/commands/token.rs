//! `keywright token`.

use std::time::Duration;

use clap::Args;
use keywright_domain::model::{OrganizationId, UserId};
use keywright_sandbox::Demo;
use serde_json::json;

use super::print;
use crate::bootstrap::sandbox::{Bearer, TOKEN_KEY, TokenKey};
use crate::bootstrap::{Error, now};
use crate::cli::StoreLocation;

const HOUR: Duration = Duration::from_secs(3600);

/// Whose token it is.
#[derive(Args)]
pub(crate) struct TokenCommand {
    /// The user.
    #[arg(long, value_name = "USER", default_value = Demo::USER)]
    user: UserId,
    /// The organization, for a service of it.
    #[arg(long, value_name = "ORG")]
    organization: Option<OrganizationId>,
    /// How long it is good.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    expires_in: Duration,
    /// Instead one that was good until an hour ago, to see what it is answered.
    #[arg(long, conflicts_with = "expires_in")]
    expired: bool,
    #[command(flatten)]
    place: StoreLocation,
}

pub(crate) fn run(command: TokenCommand) -> Result<(), Error> {
    let path = command.place.data()?.join(TOKEN_KEY);
    if !path.is_file() {
        let why = "tokens are made for the sandbox only, which has to have run in this folder once";
        return Err(format!("there is no {}: {why}", path.display()).into());
    }
    let bearer = Bearer {
        user: command.user.as_str(),
        organization: command.organization.as_ref().map(OrganizationId::as_str),
    };
    let (issued_at, expires_in) = match command.expired {
        false => (now().as_secs(), command.expires_in),
        true => (now().as_secs().saturating_sub(2 * HOUR.as_secs()), HOUR),
    };
    let token = TokenKey::open(&path)?.sign(bearer, issued_at, expires_in)?;
    print(command.place.json, &json!({ "token": token }), || {
        token.clone()
    });
    Ok(())
}

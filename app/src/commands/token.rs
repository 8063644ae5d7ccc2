//! `keywright token`: makes tokens of the sandbox.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use keywright_adapters::time::SystemClock;
use keywright_domain::model::{OrganizationId, UserId};
use keywright_domain::ports::Clock;
use keywright_sandbox::Demo;
use serde_json::json;

use super::output::print_result;
use crate::bootstrap::sandbox::credentials::{TOKEN_KEY_FILE, TokenKey};
use crate::settings::store_location::StoreLocation;
use crate::settings::values::TimeSpan;

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Args)]
pub(crate) struct TokenCommand {
    /// The user of the token.
    #[arg(long, value_name = "USER", default_value = Demo::USER)]
    user: UserId,
    /// The organization of the token. The token then belongs to a service of this organization.
    #[arg(long, value_name = "ORG")]
    organization: Option<OrganizationId>,
    /// How long the token is valid.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    expires_in: TimeSpan,
    /// Make a token that expired an hour ago, to see how the server answers it.
    #[arg(long, conflicts_with = "expires_in")]
    expired: bool,
    #[command(flatten)]
    location: StoreLocation,
}

/// # Errors
/// The sandbox has not run in the data folder, or its key cannot be read.
pub(crate) fn run(command: TokenCommand) -> anyhow::Result<()> {
    let path = command.location.data()?.join(TOKEN_KEY_FILE);
    ensure!(
        path.is_file(),
        "there is no {}: tokens are made only for a sandbox that has run in this folder",
        path.display()
    );
    let organization = command.organization.as_ref().map(OrganizationId::as_str);
    let now = SystemClock.now().as_secs();
    let (issued_at, valid_for) = match command.expired {
        false => (now, command.expires_in.0),
        true => (now.saturating_sub(2 * HOUR.as_secs()), HOUR),
    };
    let key = TokenKey::open(&path)?;
    let token = key.sign(command.user.as_str(), organization, issued_at, valid_for)?;
    print_result(command.location.json, &json!({ "token": token }), || {
        token.clone()
    });
    Ok(())
}

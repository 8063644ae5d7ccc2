//! The text that the sandbox prints after its start.

use keywright_sandbox::Demo;

use super::credentials::DemoCredentials;
use crate::bootstrap::urls::Urls;
use crate::settings::{SandboxSettings, Settings, ShadowChoice};

/// What the operator sees after the start, with a request to copy.
pub(in crate::bootstrap) fn banner(
    settings: &Settings,
    sandbox: &SandboxSettings,
    urls: Urls<'_>,
    credentials: &DemoCredentials,
    place: &str,
) -> String {
    let (data, lock, foreign) = (settings.data.display(), Demo::LOCK, Demo::FOREIGN_LOCK);
    let (shadows, reports) = (&settings.shadow, &settings.reports);
    let DemoCredentials {
        token,
        api_key,
        operator_key,
    } = credentials;
    let url = urls.api;
    let page = urls
        .admin
        .map(|page| format!("  operators    {page}/sign-in?key={operator_key}\n"));
    let page = page.unwrap_or_default();
    let in_process = matches!(shadows, ShadowChoice::InProcess { .. });
    let locks = match sandbox.demo.more_locks {
        _ if in_process && !sandbox.virtual_locks => {
            "virtual locks are off: a write stays SENT".to_owned()
        }
        0 => format!("lock {lock} is yours, lock {foreign} is not"),
        more => {
            let (first, last) = (Demo::FIRST_MORE, Demo::FIRST_MORE + more - 1);
            format!("locks {lock} and {first} to {last} are yours, lock {foreign} is not")
        }
    };
    format!(
        "Keywright's sandbox is at {url}
  data         {place}
  shadows      {shadows}; reports come {reports}
  locks        {locks}
  credentials  {data}/sandbox.env
{page}
Write a key:

curl -sS {url}/locks/{lock}/WriteKey -H 'Content-Type: application/json' \
-H 'Authorization: Bearer {token}' -H 'X-API-Key: {api_key}' \
-d '{{\"keyUuid\":\"9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b\",\"keyIndexNumber\":2}}'

"
    )
}

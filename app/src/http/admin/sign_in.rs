//! Signing in and out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderValue, SET_COOKIE};
use keywright_domain::ports::Secret;
use maud::html;
use tracing::{info, warn};

use super::layout;
use super::page_error::PageError;
use crate::admin::sessions::MAX_TIME;
use crate::admin::{AdminService, SignInError};
use crate::app::App;
use crate::http::api_error::ApiError;
use crate::http::request_parameters::parameter;
use crate::http::response::HttpResponse;

/// The cookie of a session.
pub(super) const COOKIE_NAME: &str = "keywright-operator";

/// The form, or its answer. The sandbox prints a link with the key, so that one click signs in.
pub(super) async fn handle(
    app: &Arc<App>,
    admin: &AdminService,
    client: IpAddr,
    is_post: bool,
    query: Option<&str>,
    form: &HashMap<String, String>,
) -> Result<HttpResponse, PageError> {
    let in_link = parameter(query, "key").filter(|_| admin.is_sandbox);
    let key = match (is_post, in_link) {
        (true, _) => form.get("key").cloned().unwrap_or_default(),
        (false, Some(key)) => key.into_owned(),
        (false, None) => return Ok(form_page(StatusCode::OK, None)),
    };
    let verified = admin
        .verify(&Secret::new(key.trim()), app.clock.now())
        .await;
    match verified {
        Ok((operator, credential)) => {
            info!(operator = %operator.name, role = operator.role.name(), "an operator has signed in");
            let sessions = &admin.sessions;
            let cookie = sessions.start(operator, credential, app.timer.tick());
            let mut response = layout::redirect("/admin");
            set_cookie(
                admin,
                &mut response,
                &cookie.to_string(),
                MAX_TIME.as_secs(),
            );
            Ok(response)
        }
        Err(SignInError::Refused(error)) => {
            info!(%error, "an operator could not sign in");
            if app.admission.record_failed_credentials(client) {
                app.metrics.shed("failed_credentials");
                return Err(ApiError::TooManyFailures.into());
            }
            let text = "This key is not valid. `keywright operator list` shows whose keys are.";
            Ok(form_page(StatusCode::UNAUTHORIZED, Some(text)))
        }
        Err(SignInError::File(error)) => {
            warn!(%error, "no operator can sign in");
            Err(ApiError::Unavailable.into())
        }
    }
}

pub(super) fn signed_out(admin: &AdminService) -> HttpResponse {
    let mut response = layout::redirect("/admin/sign-in");
    set_cookie(admin, &mut response, "", 0);
    response
}

/// Other sites cannot make a browser send the cookie (`SameSite=Strict`), and scripts cannot read it.
fn set_cookie(admin: &AdminService, response: &mut HttpResponse, value: &str, seconds: u64) {
    let secure = if admin.is_sandbox { "" } else { "; Secure" };
    let cookie = format!(
        "{COOKIE_NAME}={value}; Path=/admin; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}

fn form_page(status: StatusCode, problem: Option<&str>) -> HttpResponse {
    let content = html! {
        form class="panel sign-in" method="post" action="/admin/sign-in" {
            h1 { "Keywright for operators" }
            @if let Some(problem) = problem {
                p class="bad" role="alert" { (problem) }
            }
            p {
                label for="key" { "Your operator key" }
                input id="key" name="key" type="password" autocomplete="current-password" required autofocus;
            }
            button { "Sign in" }
            p class="muted" { "Make a key with " code { "keywright operator add NAME" } "." }
        }
    };
    layout::page(status, "Sign in", None, content)
}

//! The page of what operators have done.

use hyper::StatusCode;
use maud::html;
use tracing::error;

use super::layout;
use super::operator_request::OperatorRequest;
use super::page_error::PageError;
use crate::admin::AdminService;
use crate::admin::operator_log::OperatorAction;
use crate::http::api_error::ApiError;
use crate::http::response::HttpResponse;

/// `/admin/log`.
pub(super) async fn page(
    request: &OperatorRequest<'_>,
    admin: &AdminService,
) -> Result<HttpResponse, PageError> {
    let actions = admin.log.newest().await.map_err(|error| {
        error!(%error, "the log of operators cannot be read");
        ApiError::Unavailable
    })?;
    let rows = html! {
        @for action in &actions { (row(action)) }
    };
    let content = html! {
        h1 { "Log" }
        p class="muted" { "What operators have done at this server, the newest first. Times are in UTC." }
        @if actions.is_empty() {
            p { "Nothing yet." }
        } @else {
            (layout::table("Actions", &["Time", "Operator", "Action", "Lock", "Write", "Outcome"], rows))
        }
    };
    let session = Some(request.session);
    Ok(layout::page(StatusCode::OK, "Log", session, content))
}

fn row(action: &OperatorAction) -> maud::Markup {
    let time = action.at.get(..19).unwrap_or(&action.at).replace('T', " ");
    html! {
        tr {
            td { (time) }
            td { (action.operator) }
            td { (action.action) }
            td { @if let Some(lock) = action.lock { a href=(format!("/admin/locks/{lock}")) { (lock) } } }
            td { @if let Some(write) = &action.write { a href=(format!("/admin/writes/{write}")) { (write) } } }
            td { (action.outcome) }
        }
    }
}

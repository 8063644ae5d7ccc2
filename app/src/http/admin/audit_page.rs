//! The comparison of a lock's shadow with its writes.

use hyper::StatusCode;
use keywright_domain::model::LockId;
use keywright_domain::policy::Finding;
use keywright_domain::{AuditError, AuditReport};
use maud::{Markup, html};

use super::layout;
use super::operator_request::OperatorRequest;
use super::page_error::PageError;
use crate::http::response::HttpResponse;

/// `/admin/locks/{id}/audit`. With `repair`, differences are repaired.
pub(super) async fn page(
    request: &OperatorRequest<'_>,
    lock: &str,
    repair: bool,
) -> Result<HttpResponse, PageError> {
    let lock: LockId = lock.parse().map_err(|_| PageError::NotFound)?;
    let (writes, principal) = (request.app.writes.clone(), request.principal.clone());
    // A repair is completed also if the browser goes away.
    let auditing = async move { writes.audit_as(lock, &principal, repair).await };
    let audited = request.app.work.tasks.spawn(auditing).await;
    let no_result = || {
        refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The audit was cut short.".into(),
        )
    };
    let report = match audited.map_err(|_| no_result())? {
        Ok(report) => report,
        Err(AuditError::Rejected(rejection)) => return Err(rejection.into()),
        Err(AuditError::Store(error)) => return Err(error.into()),
        Err(error) => return Err(refused(StatusCode::BAD_GATEWAY, format!("{error}."))),
    };
    if repair {
        let outcome = format!("{} repaired", report.findings.len());
        request.record("repair", Some(lock), None, &outcome).await;
    }
    let title = format!("Shadow of lock {lock}");
    let content = html! {
        h1 { (title) }
        (result(lock, &report, repair))
        @if !report.repaired && request.may_act() {
            form method="post" action=(format!("/admin/locks/{lock}/audit")) {
                (layout::form_token(request.session))
                button class="danger" { "Repair the shadow" }
            }
        }
        p { a href=(format!("/admin/locks/{lock}")) { "Lock " (lock) } }
    };
    let session = Some(request.session);
    Ok(layout::page(StatusCode::OK, &title, session, content))
}

fn refused(status: StatusCode, text: String) -> PageError {
    PageError::Refused(status, text)
}

fn result(lock: LockId, report: &AuditReport, repair: bool) -> Markup {
    if report.findings.is_empty() {
        return html! { p class="panel good" { "The shadow has exactly what the writes of the lock require." } };
    }
    let rows = html! {
        @for finding in &report.findings {
            tr {
                td { (finding.name()) }
                td { a href=(format!("/admin/locks/{lock}/writes/{}", finding.write())) { (finding.write()) } }
                td { (meaning(finding)) }
            }
        }
    };
    html! {
        @if repair && report.repaired { p class="good" { "These differences were repaired." } }
        (layout::table("Differences", &["Difference", "Write", "Meaning"], rows))
    }
}

fn meaning(finding: &Finding) -> &'static str {
    match finding {
        Finding::UnknownEntry(_) => {
            "The shadow has an entry whose write has ended or does not exist; the lock would execute it."
        }
        Finding::LostEntry(_) => {
            "The write is open and not on the shadow, so that the lock never sees it."
        }
        Finding::StrayResult(_) => {
            "The shadow has a result that is recorded already, or whose write was never sent."
        }
        Finding::UnheardResult(_) => {
            "The shadow has a result that is not recorded: its report was lost."
        }
        _ => "See the documentation of audits.",
    }
}

//! The overview: what is going on now, and where to look next.

use hyper::StatusCode;
use keywright_domain::model::Backlog;
use maud::{Markup, html};

use super::chart::{Line, chart};
use super::layout;
use super::operator_request::OperatorRequest;
use crate::admin::AdminService;
use crate::admin::recent_activity::{Activity, POINT, POINTS, RecentActivity};
use crate::app::App;
use crate::http::response::HttpResponse;

/// The points of the last minute that are complete.
const LAST_MINUTE: usize = 6;

pub(super) fn page(request: &OperatorRequest<'_>, admin: &AdminService) -> HttpResponse {
    let content = html! {
        h1 { "Overview" }
        p class="muted" { "Figures of this process, " span id="live-state" role="status" { "as of now" } "; times are in UTC." }
        div data-live="/admin/live" { (figures(request.app, admin)) }
    };
    layout::page(StatusCode::OK, "Overview", Some(request.session), content)
}

/// The part of the page that is kept up to date.
pub(super) fn figures(app: &App, admin: &AdminService) -> Markup {
    let points = admin.activity.points();
    let sum = RecentActivity::sum(&points);
    let last = RecentActivity::sum(&points[POINTS - 1 - LAST_MINUTE..POINTS - 1]);
    let backlog = *admin.backlog.borrow();
    html! {
        (readiness(app))
        div class="cards" {
            (card("/admin/writes", "Accepted a second, last minute", &rate(last.accepted)))
            (card("/admin/writes?state=SUCCEEDED", "Confirmed a second, last minute", &rate(last.confirmed)))
            @if let Some(backlog) = backlog { (unfinished(&backlog)) }
            (card("#failures", "Failures, 15 minutes", &sum.failures.values().sum::<u64>().to_string()))
        }
        h2 { "The last 15 minutes" }
        div class="charts" { (charts(&points, &sum)) }
        h2 id="failures" { "Failures by reason, 15 minutes" }
        (failures(&sum))
        h2 { "This process" }
        dl class="panel" {
            dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) }
            dt { "Started" } dd { (layout::time(admin.started_at)) }
        }
    }
}

fn card(link: &str, name: &str, value: &str) -> Markup {
    html! {
        a class="card" href=(link) {
            span class="value" { (value) }
            span class="muted" { (name) }
        }
    }
}

fn unfinished(backlog: &Backlog) -> Markup {
    let oldest = match backlog.oldest_intent {
        Some(age) => format!("Undecided writes; the oldest for {}", layout::span(age)),
        None => "Undecided writes".to_owned(),
    };
    html! {
        (card("/admin/writes?state=PREPARED", &oldest, &backlog.intents.to_string()))
        (card("/admin/writes?state=SENT", "Open writes: on a shadow, not settled", &backlog.open.to_string()))
        (card("/admin/writes?unconfirmed=true", "Unconfirmed: open for unusually long", &backlog.unconfirmed.to_string()))
    }
}

fn readiness(app: &App) -> Markup {
    let are_connected = app.connected.iter().all(|up| *up.borrow());
    let has_keys = app.tokens.as_ref().is_none_or(|tokens| tokens.has_keys());
    let parts = [
        (
            "Store",
            *app.store_answers.borrow(),
            "answers",
            "does not answer",
        ),
        ("Shadows", are_connected, "connected", "not connected"),
        ("Token keys", has_keys, "available", "not available yet"),
        (
            "Service",
            !app.work.is_stopping(),
            "accepts work",
            "is being stopped",
        ),
    ];
    html! {
        p {
            @for (number, (name, is_well, good, bad)) in parts.into_iter().enumerate() {
                @if number > 0 { " · " }
                (name) ": "
                @match is_well {
                    true => span class="good" { (good) },
                    false => strong class="bad" { (bad) },
                }
            }
        }
    }
}

fn charts(points: &[Activity], sum: &Activity) -> Markup {
    let rates = |count: fn(&Activity) -> u64| {
        // The last point is not complete.
        let complete = &points[..POINTS - 1];
        let rate = |point: &Activity| Some(count(point) as f64 / POINT.as_secs_f64());
        complete.iter().map(rate).collect::<Vec<_>>()
    };
    let times = |quantile: fn(&Activity) -> Option<u64>| {
        let complete = &points[..POINTS - 1];
        let time = |point: &Activity| quantile(point).map(|millis| millis as f64);
        complete.iter().map(time).collect::<Vec<_>>()
    };
    let line = |name, values| Line { name, values };
    let summary = |[p50, p99]: [Option<u64>; 2]| match (p50, p99) {
        (Some(p50), Some(p99)) => format!("half within {p50} ms, 99 % within {p99} ms"),
        _ => "no writes".to_owned(),
    };
    let accept = summary([0.5, 0.99].map(|quantile| sum.accept_times.quantile(quantile)));
    let confirm = summary([0.5, 0.99].map(|quantile| sum.confirm_times.quantile(quantile)));
    let counts = format!("{} accepted, {} confirmed", sum.accepted, sum.confirmed);
    let start = "15 min ago";
    html! {
        (chart("Writes a second", "/s", start, &counts, &[
            line("accepted", rates(|point| point.accepted)),
            line("confirmed", rates(|point| point.confirmed)),
        ]))
        (chart("Until the shadow has accepted", "ms", start, &accept, &[
            line("half", times(|point| point.accept_times.quantile(0.5))),
            line("99 %", times(|point| point.accept_times.quantile(0.99))),
        ]))
        (chart("From there until the lock has confirmed", "ms", start, &confirm, &[
            line("half", times(|point| point.confirm_times.quantile(0.5))),
            line("99 %", times(|point| point.confirm_times.quantile(0.99))),
        ]))
    }
}

fn failures(sum: &Activity) -> Markup {
    if sum.failures.is_empty() {
        return html! { p class="muted" { "None." } };
    }
    let rows = html! {
        @for (reason, count) in &sum.failures {
            tr {
                td { a href=(format!("/admin/writes?reason={reason}")) { (reason) } }
                td { (count) }
            }
        }
    };
    layout::table("Failures by reason", &["Reason", "Writes"], rows)
}

fn rate(count: u64) -> String {
    let seconds = POINT.as_secs_f64() * LAST_MINUTE as f64;
    format!("{:.1}", count as f64 / seconds)
}

//! What all pages share.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use keywright_domain::model::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::admin::sessions::Session;
use crate::http::response::{self, HttpResponse};

/// Everything comes from this server, and nothing is inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The pages that the navigation leads to: path, name.
const NAVIGATION: [(&str, &str); 5] = [
    ("/admin", "Overview"),
    ("/admin/writes", "Writes"),
    ("/admin/locks", "Locks"),
    ("/admin/webhooks", "Webhooks"),
    ("/admin/log", "Log"),
];

/// A page. `session`: of the operator who is signed in.
pub(super) fn page(
    status: StatusCode,
    title: &str,
    session: Option<&Session>,
    content: Markup,
) -> HttpResponse {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Keywright" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/admin/admin.css";
                script src="/admin/admin.js" defer {}
            }
            body {
                a class="skip" href="#content" { "Skip to the content" }
                @if let Some(session) = session { (header(title, session)) }
                main id="content" { (content) }
            }
        }
    };
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    response::new(status, page.into_string(), headers)
}

fn header(title: &str, session: &Session) -> Markup {
    let operator = &session.operator;
    html! {
        header {
            div {
                strong { "Keywright" }
                nav aria-label="Pages" {
                    @for (path, name) in NAVIGATION {
                        a href=(path) aria-current=[(name == title).then_some("page")] { (name) }
                    }
                }
                form method="post" action="/admin/sign-out" {
                    (form_token(session))
                    span { (operator.name.as_str()) " (" (operator.role.name()) ")" }
                    button { "Sign out" }
                }
            }
        }
    }
}

/// A table, which scrolls where it is wider than the window. Screen readers call it by `label`, which no other table of the page has.
pub(super) fn table(label: &str, columns: &[&str], rows: Markup) -> Markup {
    html! {
        div class="scroll panel" tabindex="0" role="region" aria-label=(label) {
            table {
                thead { tr { @for name in columns { th scope="col" { (name) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// The hidden field that every form of a session has.
pub(super) fn form_token(session: &Session) -> Markup {
    html! { input type="hidden" name="form_token" value=(session.form_token()); }
}

/// A redirection after a form, or to the form to sign in.
pub(super) fn redirect(path: &str) -> HttpResponse {
    let headers = [(CACHE_CONTROL, "no-store")];
    let mut response = response::new(StatusCode::SEE_OTHER, "", headers);
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(LOCATION, path);
    }
    response
}

/// A span, to the second.
pub(super) fn span(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

/// A time, to the second.
pub(super) fn time(at: Timestamp) -> Markup {
    let text = at.to_string();
    let shown = text.get(..19).unwrap_or(&text).replace('T', " ");
    html! { time datetime=(text) { (shown) } }
}

//! The operators' page: HTML that is rendered here and needs no script, except that the overview updates itself.

mod assets;
mod audit_page;
mod chart;
mod layout;
mod live;
mod lock_pages;
mod log_page;
mod operator_request;
mod overview;
mod page_error;
mod sign_in;
mod webhook_pages;
mod write_pages;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{COOKIE, HOST, HeaderMap, ORIGIN};
use hyper::{Method, Request, StatusCode};
use keywright_domain::model::{Identity, Principal};
use maud::html;

use self::operator_request::OperatorRequest;
use self::page_error::PageError;
use self::sign_in::COOKIE_NAME;
use super::api_error::ApiError;
use super::request_body;
use super::request_context::RequestContext;
use super::response::HttpResponse;
use crate::admin::AdminService;
use crate::app::App;
use crate::connection::ConnectionState;

/// The maximum size of a form in bytes.
const MAX_FORM: usize = 4096;

/// Answers a request below `/admin`.
///
/// # Errors
/// 404: the operators' page is off.
pub(super) async fn handle(
    app: &Arc<App>,
    connection: &Arc<ConnectionState>,
    client: IpAddr,
    request: Request<Incoming>,
    context: RequestContext,
) -> Result<HttpResponse, ApiError> {
    let Some(admin) = &app.admin else {
        return Err(ApiError::NotFound);
    };
    let path = request.uri().path().to_owned();
    if let Some(asset) = assets::find(&path) {
        return Ok(asset);
    }
    let answer = page(app, admin, connection, client, request, context).await;
    Ok(answer.unwrap_or_else(|error| error_page(&error)))
}

async fn page(
    app: &Arc<App>,
    admin: &AdminService,
    connection: &Arc<ConnectionState>,
    client: IpAddr,
    request: Request<Incoming>,
    context: RequestContext,
) -> Result<HttpResponse, PageError> {
    let (head, body) = request.into_parts();
    let path: Vec<&str> = head.uri.path().split('/').skip(2).collect();
    let is_post = match head.method {
        Method::GET | Method::HEAD => false,
        Method::POST => true,
        _ => return Err(PageError::MethodNotAllowed),
    };
    let form = match is_post {
        false => HashMap::new(),
        true => {
            check_origin(&head.headers)?;
            let body = request_body::read(app, body, MAX_FORM).await?;
            form_urlencoded::parse(&body).into_owned().collect()
        }
    };
    if path == ["sign-in"] {
        return sign_in::handle(app, admin, client, is_post, head.uri.query(), &form).await;
    }
    let cookie = cookie(&head.headers).ok_or(PageError::SignedOut)?;
    let session = admin.sessions.find(cookie, app.timer.tick());
    let session = session.ok_or(PageError::SignedOut)?;
    let (operator, credential) = (&session.operator, session.credential);
    if !admin
        .is_current(operator, credential, app.clock.now())
        .await
    {
        admin.sessions.end(cookie);
        return Err(PageError::SignedOut);
    }
    let form_token = form.get("form_token").map(String::as_str);
    if is_post && !session.has_form_token(form_token.unwrap_or_default()) {
        return Err(PageError::ForeignForm);
    }
    let request = OperatorRequest {
        app,
        principal: Principal::of(Identity::Operator(operator.clone())),
        session: &session,
        admin,
        query: head.uri.query(),
    };
    match (is_post, path.as_slice()) {
        (false, [] | [""]) => Ok(overview::page(&request, admin)),
        (false, ["live"]) => live::stream(app, connection, cookie),
        (true, ["sign-out"]) => {
            admin.sessions.end(cookie);
            Ok(sign_in::signed_out(admin))
        }
        (false, ["writes"]) => write_pages::list(&request).await,
        (false, ["writes", id]) => write_pages::find(&request, id).await,
        (false, ["locks"]) => lock_pages::list(&request).await,
        (false, ["webhooks"]) => webhook_pages::list(&request).await,
        (false, ["webhooks", id]) => webhook_pages::webhook(&request, id).await,
        (false, ["log"]) => log_page::page(&request, admin).await,
        (is_post, ["locks", lock, "audit"]) => audit_page::page(&request, lock, is_post).await,
        (false, ["locks", lock]) => lock_pages::lock(&request, lock).await,
        (false, ["locks", lock, "writes", id]) => write_pages::write(&request, lock, id).await,
        (true, ["locks", lock, "writes", id, "withdraw"]) => {
            write_pages::withdraw(&request, lock, id, context).await
        }
        _ => Err(PageError::NotFound),
    }
}

/// The value of the session's cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter();
    let cookies = cookies.filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE_NAME).then_some(value)
    })
}

/// Browsers name the origin of a page that sends a form. Only pages of this server may.
fn check_origin(headers: &HeaderMap) -> Result<(), PageError> {
    let (origin, host) = (headers.get(ORIGIN), headers.get(HOST));
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    match origin.map(|origin| origin.to_str().unwrap_or_default()) {
        Some(origin) if !is_own(origin) => Err(PageError::ForeignForm),
        // Programs other than browsers send none. The token of the form is checked in any case.
        _ => Ok(()),
    }
}

fn error_page(error: &PageError) -> HttpResponse {
    let (status, text): (_, String) = match error {
        PageError::SignedOut => return layout::redirect("/admin/sign-in"),
        PageError::NotFound => (StatusCode::NOT_FOUND, "There is no such page.".into()),
        PageError::ForeignForm => (
            StatusCode::FORBIDDEN,
            "The form was not sent by a page of this session. Go back, reload the page, and send it again.".into(),
        ),
        PageError::Forbidden => (
            StatusCode::FORBIDDEN,
            "Your role does not permit this. Somebody with the role operator can do it.".into(),
        ),
        PageError::MethodNotAllowed => (
            StatusCode::METHOD_NOT_ALLOWED,
            "This page allows GET, HEAD and POST.".into(),
        ),
        PageError::Refused(status, text) => (*status, text.clone()),
        PageError::Api(error) => (error.status(), error.to_string()),
    };
    let heading = status.canonical_reason().unwrap_or("Error");
    let content = html! {
        h1 { (heading) }
        p { (text) }
        p { a href="/admin" { "Overview" } }
    };
    layout::page(status, heading, None, content)
}

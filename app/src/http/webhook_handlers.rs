//! The handlers of webhooks. The domain decides who may manage them.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, LINK, LOCATION};
use hyper::{Request, StatusCode};
use keywright_domain::model::{DeliveryOutcome, Principal, Tick, Webhook, WebhookId};
use keywright_domain::{NewWebhook, TestDelivery, WebhookError};
use tokio::time::Instant;
use tracing::info;

use super::api_error::ApiError;
use super::authorization::{self, authenticate};
use super::request_context::RequestContext;
use super::request_parameters::{choice, page_limit, parameter, replaced};
use super::response::{self, HttpResponse, to_json};
use super::route::Route;
use super::webhook_body::{self, Members, Registration, Replay};
use super::webhook_response::{
    DeliveryItem, DeliveryPage, WebhookBody, WebhookList, WebhookWithSecret,
};
use super::{deadline, request_body};
use crate::app::App;
use crate::request_admission::{Permit, QuotaPermit};
use crate::webhook_service::WebhookService;

/// How long before the deadline of its request a test delivery ends.
const MARGIN: Duration = Duration::from_millis(500);

/// A request by a principal that was admitted.
struct Admitted {
    principal: Principal,
    _permit: Permit,
    _quota: QuotaPermit,
}

/// Handles a request about webhooks.
pub(super) async fn handle(
    app: &Arc<App>,
    route: Route<'_>,
    request: Request<Incoming>,
    context: RequestContext,
) -> Result<HttpResponse, ApiError> {
    let service = app.webhooks.as_ref().ok_or(ApiError::NotFound)?;
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    // The body is read before the permit is taken, so that a slow client holds none.
    let members = match route.has_json_body() {
        true => request_body::read_object(app, headers, body).await,
        false => Ok(Members::new()),
    };
    let handling = async {
        let caller = admit(app, headers).await?;
        let members = members?;
        let request = WebhookRequest {
            app,
            service,
            caller,
            deadline: context.deadline,
        };
        match route {
            Route::Webhooks => request.list().await,
            Route::RegisterWebhook => request.register(&members).await,
            Route::Webhook(id) => request.read(id).await,
            Route::ChangeWebhook(id) => request.change(id, &members).await,
            Route::RemoveWebhook(id) => request.remove(id).await,
            Route::RotateWebhookSecret(id) => request.rotate_secret(id).await,
            Route::TestWebhook(id) => request.test(id).await,
            Route::WebhookDeliveries(id) => request.deliveries(id, &head.uri).await,
            Route::ReplayWebhook(id) => request.replay(id, &members).await,
            _ => Err(ApiError::NotFound),
        }
    };
    deadline::run_until(app, context.deadline, handling).await
}

async fn admit(app: &App, headers: &HeaderMap) -> Result<Admitted, ApiError> {
    let (principal, permit) = authenticate(app, headers).await?;
    let quota = authorization::quota(app, &principal)?;
    Ok(Admitted {
        principal,
        _permit: permit,
        _quota: quota,
    })
}

/// No webhook has an id of another form.
fn webhook_id(text: &str) -> Result<WebhookId, ApiError> {
    let id = text.to_ascii_lowercase().parse();
    id.map_err(|_| ApiError::NotFound)
}

struct WebhookRequest<'a> {
    app: &'a App,
    service: &'a WebhookService,
    caller: Admitted,
    deadline: Tick,
}

impl WebhookRequest<'_> {
    async fn respond(&self, webhook: &Webhook) -> Result<HttpResponse, ApiError> {
        let end = self.app.writes.feed_end().await?;
        Ok(response::ok(&WebhookBody::of(webhook, end)))
    }

    async fn list(&self) -> Result<HttpResponse, ApiError> {
        let webhooks = self.service.webhooks.list(&self.caller.principal).await?;
        let end = self.app.writes.feed_end().await?;
        Ok(response::ok(&WebhookList::of(&webhooks, end)))
    }

    async fn register(&self, members: &Members) -> Result<HttpResponse, ApiError> {
        let Registration {
            url,
            events,
            description,
        } = webhook_body::registration(members)?;
        let (secret, text) = WebhookService::new_secret();
        let new = NewWebhook {
            url,
            events,
            description,
            secret,
        };
        let webhooks = &self.service.webhooks;
        // Read first: a failure after the registration would lose the secret.
        let end = self.app.writes.feed_end().await?;
        let webhook = webhooks.register(&self.caller.principal, new).await?;
        self.service.changed.notify_one();
        info!(webhook = %webhook.id, by = %self.caller.principal, "a webhook was registered");
        let body = WebhookWithSecret::of(&webhook, end, text);
        let mut response = response::json(StatusCode::CREATED, to_json(&body));
        if let Ok(location) = HeaderValue::from_str(&format!("/webhooks/{}", webhook.id)) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    async fn read(&self, id: &str) -> Result<HttpResponse, ApiError> {
        let webhooks = &self.service.webhooks;
        let read = webhooks.read(&self.caller.principal, webhook_id(id)?);
        self.respond(&read.await?).await
    }

    async fn change(&self, id: &str, members: &Members) -> Result<HttpResponse, ApiError> {
        let (id, change) = (webhook_id(id)?, webhook_body::change(members)?);
        let webhooks = &self.service.webhooks;
        let changed = webhooks.change(&self.caller.principal, id, &change);
        let changed = changed.await?;
        self.note(id, "a webhook was changed");
        self.respond(&changed).await
    }

    async fn remove(&self, id: &str) -> Result<HttpResponse, ApiError> {
        let id = webhook_id(id)?;
        let webhooks = &self.service.webhooks;
        let removed = webhooks.remove(&self.caller.principal, id).await?;
        self.note(id, "a webhook was removed");
        self.respond(&removed).await
    }

    async fn rotate_secret(&self, id: &str) -> Result<HttpResponse, ApiError> {
        let id = webhook_id(id)?;
        let (secret, text) = WebhookService::new_secret();
        let webhooks = &self.service.webhooks;
        let end = self.app.writes.feed_end().await?;
        let rotated = webhooks.rotate_secret(&self.caller.principal, id, &secret);
        let rotated = rotated.await?;
        self.note(id, "the secret of a webhook was replaced");
        Ok(response::ok(&WebhookWithSecret::of(&rotated, end, text)))
    }

    async fn test(&self, id: &str) -> Result<HttpResponse, ApiError> {
        let id = webhook_id(id)?;
        let webhooks = &self.service.webhooks;
        let begin = Instant::now();
        let testing = webhooks.test(&self.caller.principal, id, self.timeout());
        let test = testing.await?;
        Ok(delivery(&test, begin))
    }

    async fn replay(&self, id: &str, members: &Members) -> Result<HttpResponse, ApiError> {
        let (id, replay) = (webhook_id(id)?, webhook_body::replay(members)?);
        let (webhooks, principal) = (&self.service.webhooks, &self.caller.principal);
        match replay {
            Replay::From(from) => {
                let replayed = webhooks.replay(principal, id, from).await?;
                self.note(id, "a webhook is replayed");
                self.respond(&replayed).await
            }
            Replay::Event(event) => {
                let begin = Instant::now();
                let replaying = webhooks.replay_event(principal, id, event, self.timeout());
                let replayed = replaying.await?;
                Ok(delivery(&replayed, begin))
            }
        }
    }

    async fn deliveries(&self, id: &str, uri: &hyper::Uri) -> Result<HttpResponse, ApiError> {
        let (id, query) = (webhook_id(id)?, uri.query());
        let outcome = choice(query, "state", &DeliveryOutcome::NAMES)?;
        let outcome = outcome.and_then(|name| DeliveryOutcome::of_name(&name));
        let before = parameter(query, "after").map(|after| {
            let number: Option<u64> = after.parse().ok();
            let unknown = "after must be a cursor that this service has returned";
            number.ok_or(ApiError::BadRequest(unknown.into()))
        });
        let (before, limit) = (before.transpose()?, page_limit(query)?);
        let (webhooks, principal) = (&self.service.webhooks, &self.caller.principal);
        let records = webhooks.records(principal, id, outcome, before, limit);
        let records = records.await?;
        let last = records.last().filter(|_| records.len() == limit);
        let next = last.map(|record| record.number.to_string());
        let mut page = response::ok(&DeliveryPage::of(&records, next.clone()));
        if let Some(next) = next {
            let query = replaced(query, "after", &next);
            let link = format!("<{}?{query}>; rel=\"next\"", uri.path());
            if let Ok(link) = HeaderValue::from_str(&link) {
                page.headers_mut().insert(LINK, link);
            }
        }
        Ok(page)
    }

    /// How long a delivery that was asked for may take.
    fn timeout(&self) -> Duration {
        let now = self.app.timer.tick();
        let left = self.deadline.0.saturating_sub(now.0);
        let left = left.saturating_sub(MARGIN);
        left.min(self.service.webhooks.limits().timeout)
    }

    /// Lets the deliveries follow a change at once.
    fn note(&self, webhook: WebhookId, what: &'static str) {
        self.service.changed.notify_one();
        info!(%webhook, by = %self.caller.principal, "{what}");
    }
}

fn delivery(test: &TestDelivery, begin: Instant) -> HttpResponse {
    response::ok(&DeliveryItem::of_test(test, begin.elapsed()))
}

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::NoOrganization | WebhookError::Forbidden => Self::Forbidden,
            WebhookError::NotFound | WebhookError::EventNotFound => Self::NotFound,
            WebhookError::UnknownPosition => {
                Self::BadRequest("after must be a cursor that this service has returned".into())
            }
            WebhookError::TooMany(max) => Self::TooManyWebhooks(max),
            WebhookError::RotatedRecently(until) => Self::RotatedRecently(until),
            WebhookError::Url(unusable) => Self::BadRequest(unusable.to_string().into()),
            WebhookError::Store(error) => error.into(),
        }
    }
}

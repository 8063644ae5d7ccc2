//! `POST /device-reports`: reports of locks, for instance forwarded by an AWS IoT rule.

use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use keywright_adapters::reports::DeliveryError;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::info;

use super::api_error::ApiError;
use super::authorization::bearer_token;
use super::request_body;
use super::response::{self, HttpResponse};
use crate::app::App;
use crate::device_report_endpoint::DeviceReportEndpoint;

/// Maximum size of a message in bytes: AWS IoT's limit of a payload. Two shadow documents of 8 KiB with their metadata fit.
pub(super) const MAX_BYTES: usize = 128 * 1024;

/// How long a request waits until its report is settled.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The header by which AWS marks a message about the rule's destination itself.
const MESSAGE_TYPE: &str = "x-amz-rules-engine-message-type";
const CONFIRMATION: &str = "DestinationConfirmation";

/// Delivers one report and responds when it is settled durably.
pub(super) async fn deliver(
    app: &App,
    request: Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let Some(endpoint) = &app.device_reports else {
        return Err(ApiError::NotFound);
    };
    let is_confirmation = is_confirmation(request.headers());
    if !is_confirmation && !is_trusted(endpoint, request.headers()) {
        info!(
            "a report was refused: its Authorization does not have the secret of --reports-secret"
        );
        return Err(ApiError::Unauthorized);
    }
    if request_body::is_encoded(request.headers()) {
        return Err(ApiError::EncodedBody);
    }
    let body = request_body::read(app, request.into_body(), MAX_BYTES).await?;
    if is_confirmation {
        return log_confirmation(endpoint, &body);
    }
    match timeout(SETTLE_TIMEOUT, endpoint.reports.deliver(&body)).await {
        Ok(Ok(())) => Ok(response::ok(&json!({ "success": true }))),
        Ok(Err(DeliveryError::Malformed(why))) => {
            info!(why, "a report was refused");
            Err(ApiError::BadRequest(why.into()))
        }
        Ok(Err(DeliveryError::Busy | DeliveryError::NotSettled)) | Err(_) => {
            Err(ApiError::Unavailable)
        }
    }
}

fn is_trusted(endpoint: &DeviceReportEndpoint, headers: &HeaderMap) -> bool {
    let secret = bearer_token(headers).ok().flatten();
    secret.is_some_and(|secret| endpoint.accepts_secret(secret.expose()))
}

fn is_confirmation(headers: &HeaderMap) -> bool {
    headers
        .get(MESSAGE_TYPE)
        .is_some_and(|kind| kind == CONFIRMATION)
}

/// AWS verifies that the owner of the rule also owns this URL: it sends a confirmation URL for the owner to open. The message
/// does not have our secret, so the URL is only logged for the operator, and not requested.
fn log_confirmation(
    endpoint: &DeviceReportEndpoint,
    body: &Bytes,
) -> Result<HttpResponse, ApiError> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let url = body["enableUrl"]
        .as_str()
        .filter(|url| is_aws_confirmation_url(url));
    let url = url.ok_or_else(|| {
        ApiError::BadRequest("this is not a confirmation message of AWS IoT".into())
    })?;
    // The limit keeps a client from filling the log. AWS repeats the message.
    if !endpoint.may_log_confirmation() {
        return Err(ApiError::Unavailable);
    }
    info!(
        url,
        "to confirm the destination of an AWS IoT rule, open this URL"
    );
    Ok(response::ok(&json!({ "success": true })))
}

/// `https://iot.REGION.amazonaws.com/confirmdestination/…`, in China with `.cn` at the end. Other hosts under `amazonaws.com` may
/// belong to any customer of AWS.
fn is_aws_confirmation_url(url: &str) -> bool {
    let is_plain = url.len() <= 2048 && url.bytes().all(|b| b.is_ascii_graphic());
    let rest = url.strip_prefix("https://iot.").filter(|_| is_plain);
    let Some((host, path)) = rest.and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let region = host.strip_suffix(".amazonaws.com").unwrap_or_default();
    let is_region_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !region.is_empty()
        && region.bytes().all(is_region_char)
        && path.starts_with("confirmdestination/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_confirmation_urls_of_aws_iot_only() {
        for url in [
            "https://iot.eu-west-1.amazonaws.com/confirmdestination/x",
            "https://iot.cn-north-1.amazonaws.com.cn/confirmdestination/x",
        ] {
            assert!(is_aws_confirmation_url(url), "{url}");
        }
        for url in [
            "http://iot.eu-west-1.amazonaws.com/confirmdestination/x",
            "https://iot.eu-west-1.amazonaws.com.example.com/confirmdestination/x",
            "https://iot.example.com/.amazonaws.com/confirmdestination/x",
            "https://iot.example?.amazonaws.com/confirmdestination/x",
            "https://iot.example#.amazonaws.com/confirmdestination/x",
            "https://iot.a@example.amazonaws.com/confirmdestination/x",
            "https://iot.bucket.s3.amazonaws.com/confirmdestination/x",
            "https://iot..amazonaws.com/confirmdestination/x",
            "https://iot.eu-west-1.amazonaws.com/x",
            "https://iot.eu-west-1.amazonaws.com/confirmdestination/a\nERROR forged",
        ] {
            assert!(!is_aws_confirmation_url(url), "{url}");
        }
    }
}

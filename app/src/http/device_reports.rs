//! `POST /device-reports`: what locks report, brought by somebody who heard of it, an AWS IoT rule for instance.

use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap};
use keywright_adapters::reports::DeliveryError;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::info;

use super::api_error::ApiError;
use super::{Answer, answer, request};
use crate::app::App;
use crate::ingest::Ingest;

/// Bytes of a message: two documents of 8 KiB with their metadata, and AWS IoT's bound of a payload.
pub(super) const LARGEST: usize = 128 * 1024;

/// How long whoever brings a report waits until it is settled.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// By this header AWS says that a message is about the destination itself.
const MESSAGE_TYPE: &str = "x-amz-rules-engine-message-type";
const CONFIRMATION: &str = "DestinationConfirmation";

/// Takes in one report, and answers when it is settled durably.
pub(super) async fn deliver(app: &App, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let Some(ingest) = &app.ingest else {
        return Err(ApiError::NotFound);
    };
    let confirms = is_confirmation(request.headers());
    if !confirms && !is_trusted(ingest, request.headers()) {
        info!("a report was refused: it does not carry the secret of --reports-secret");
        return Err(ApiError::Unauthorized);
    }
    if request::is_encoded(request.headers()) {
        return Err(ApiError::EncodedBody);
    }
    let body = request::body_of(app, request.into_body(), LARGEST).await?;
    if confirms {
        return confirm(ingest, &body);
    }
    match timeout(SETTLED_WITHIN, ingest.reports.deliver(&body)).await {
        Ok(Ok(())) => Ok(answer::ok(&json!({ "success": true }))),
        Ok(Err(DeliveryError::Malformed(why))) => {
            info!(why, "a report was refused");
            Err(ApiError::BadRequest(why.into()))
        }
        Ok(Err(DeliveryError::Busy | DeliveryError::NotSettled)) | Err(_) => {
            Err(ApiError::Unavailable)
        }
    }
}

fn is_trusted(ingest: &Ingest, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let secret = value.to_str().ok().and_then(|value| value.split_once(' '));
    secret.is_some_and(|(scheme, secret)| {
        scheme.eq_ignore_ascii_case("bearer") && ingest.knows(secret.trim())
    })
}

fn is_confirmation(headers: &HeaderMap) -> bool {
    headers
        .get(MESSAGE_TYPE)
        .is_some_and(|kind| kind == CONFIRMATION)
}

/// AWS wants to know whether whoever owns the rule owns this address as well, and sends an address of its own that
/// the owner is to open. It comes without our secret, so it is shown to the owner, and not opened.
fn confirm(ingest: &Ingest, body: &Bytes) -> Result<Answer, ApiError> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let url = body["enableUrl"].as_str().filter(|url| is_of_aws(url));
    let url =
        url.ok_or_else(|| ApiError::BadRequest("this is no confirmation of AWS IoT".into()))?;
    // Whoever sends many of them fills no log; AWS comes again.
    if !ingest.may_confirm() {
        return Err(ApiError::Unavailable);
    }
    info!(
        url,
        "to confirm the destination of an AWS IoT rule, open this address"
    );
    Ok(answer::ok(&json!({ "success": true })))
}

/// `https://iot.REGION.amazonaws.com/confirmdestination/…`, in China with `.cn` behind it: other addresses of
/// `amazonaws.com` belong to anybody.
fn is_of_aws(url: &str) -> bool {
    let plain = url.len() <= 2048 && url.bytes().all(|b| b.is_ascii_graphic());
    let rest = url.strip_prefix("https://iot.").filter(|_| plain);
    let Some((host, path)) = rest.and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let region = host.strip_suffix(".amazonaws.com").unwrap_or_default();
    let named = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !region.is_empty() && region.bytes().all(named) && path.starts_with("confirmdestination/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_aws_iot_are_shown() {
        for url in [
            "https://iot.eu-west-1.amazonaws.com/confirmdestination/x",
            "https://iot.cn-north-1.amazonaws.com.cn/confirmdestination/x",
        ] {
            assert!(is_of_aws(url), "{url}");
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
            assert!(!is_of_aws(url), "{url}");
        }
    }
}

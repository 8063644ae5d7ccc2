//! The format of `GET /metrics`, negotiated by `Accept` (RFC 9110, section 12.5.1).

use std::cmp::Ordering;

use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, VARY};

use super::response::{self, HttpResponse};
use crate::metrics::MetricsFormat;

pub(super) fn response(text: String, format: MetricsFormat) -> HttpResponse {
    let content_type = match format {
        MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        MetricsFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
    };
    let headers = [(CONTENT_TYPE, content_type), (VARY, "Accept")];
    response::new(StatusCode::OK, text, headers)
}

/// OpenMetrics if the client names it and does not prefer the text format, as Prometheus does. Otherwise the text format, which
/// every tool reads.
pub(super) fn negotiate(headers: &HeaderMap) -> MetricsFormat {
    let accepted = headers.get_all(ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let ranges = accepted
        .flat_map(|value| value.split(','))
        .filter_map(MediaRange::parse);
    let (mut open_metrics, mut text) = (0.0_f32, (0, 0.0_f32));
    for range in ranges {
        if range.includes("application/openmetrics-text", "1.0.0") {
            open_metrics = open_metrics.max(range.quality);
        }
        // The most specific range counts, in any order.
        let specificity = [("*/*", 1), ("text/*", 2), ("text/plain", 3)];
        let specificity = specificity
            .iter()
            .find(|(name, _)| range.includes(name, "0.0.4"));
        if let Some((_, specificity)) = specificity {
            text = match specificity.cmp(&text.0) {
                Ordering::Less => text,
                Ordering::Equal => (text.0, text.1.max(range.quality)),
                Ordering::Greater => (*specificity, range.quality),
            };
        }
    }
    match open_metrics > 0.0 && open_metrics >= text.1 {
        true => MetricsFormat::OpenMetrics,
        false => MetricsFormat::Text,
    }
}

/// One element of `Accept`.
struct MediaRange<'a> {
    name: &'a str,
    version: Option<&'a str>,
    /// From 0 (not acceptable) to 1.
    quality: f32,
}

impl<'a> MediaRange<'a> {
    /// `None`: its quality is not a number from 0 to 1.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (name, mut version, mut quality) = (parts.next()?, None, 1.0);
        for (parameter, value) in parts.filter_map(|part| part.split_once('=')) {
            if parameter.eq_ignore_ascii_case("version") {
                version = Some(value.trim_matches('"'));
            } else if parameter.eq_ignore_ascii_case("q") {
                quality = value.parse().ok()?;
            }
        }
        (0.0..=1.0).contains(&quality).then_some(Self {
            name,
            version,
            quality,
        })
    }

    /// Whether the range includes this media type in this version.
    fn includes(&self, name: &str, version: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) && self.version.is_none_or(|wanted| wanted == version)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn chooses_the_format_that_the_client_prefers() {
        use MetricsFormat::{OpenMetrics, Text};
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, OpenMetrics),
            (prometheus_3, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.1",
                OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text", OpenMetrics),
            (
                "*/*, text/plain;q=0.2, application/openmetrics-text;q=0.3",
                OpenMetrics,
            ),
            (
                "text/plain;version=1.0.0, application/openmetrics-text;q=0.3",
                OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text;q=0.9", Text),
            ("*/*, application/openmetrics-text;q=0.9", Text),
            (
                "text/*;q=0.5, */*;q=0.1, application/openmetrics-text;q=0.4",
                Text,
            ),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=0.000, text/plain;q=0", Text),
            ("application/openmetrics-text;q=2", Text),
            ("application/openmetrics-text;q=x", Text),
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/*", Text),
            ("text/html, */*;q=0.8", Text),
            ("", Text),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(negotiate(&headers), format, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()), Text);
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_static("text/plain;q=0.5"));
        let named = HeaderValue::from_static("application/openmetrics-text;q=0.6");
        headers.append(ACCEPT, named);
        assert_eq!(negotiate(&headers), OpenMetrics, "two header lines");
    }
}

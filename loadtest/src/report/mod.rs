//! The report: a self-contained HTML page.

use std::fmt::Write as _;

use crate::format::{escape, percent, time};
use crate::summary::{EndpointFigures, Fault, Finding, Moment, Percentiles, Summary, UsageSample};
use crate::verdict::PERCENTILES;

mod chart;

use chart::{Axis, Line};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The report as HTML.
pub fn html(run: &Summary) -> String {
    let (class, word) = if run.passed {
        ("good", "passed")
    } else {
        ("bad", "failed")
    };
    let mut page = String::new();
    let setting = &run.setting;
    let _ = write!(
        page,
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Keywright load test: {word}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style><main>\
         <header><h1>Load test <span class=\"{class}\">{word}</span></h1>\
         <p>{} · {} · locks: {}<br>{}</p></header>",
        escape(&setting.load),
        escape(&setting.service),
        escape(&setting.fleet),
        escape(&setting.place),
    );
    tiles(&mut page, run);
    verdict(&mut page, &run.verdict);
    endpoints(&mut page, &run.endpoints);
    page.push_str("<section><h2>Second by second</h2>");
    seconds(&mut page, run);
    page.push_str("</section>");
    server_usage(&mut page, run);
    page.push_str("<section><h2>How long writes took</h2><div class=\"two\">");
    chart::histogram(&mut page, "Time to accept", &run.accept_buckets);
    chart::histogram(&mut page, "Time to confirm", &run.confirm_buckets);
    page.push_str("</div></section>");
    tables(&mut page, run);
    let _ = writeln!(page, "</main><script>{SCRIPT}</script></html>");
    page
}

fn seconds(page: &mut String, run: &Summary) {
    let line = |name, class, value: fn(&Moment) -> Option<f64>| Line {
        name,
        class,
        values: run.moments.iter().map(value).collect(),
    };
    let faults = &run.setting.faults;
    fault_tracks(page, faults, run.moments.len(), run.seconds);
    let windows = windows(faults);
    chart::lines(
        page,
        "Writes accepted, and answers other than 200, in each second",
        Axis::Count,
        &[
            line("writes accepted", "a", |m| Some(number(m.writes))),
            line("intended refusals", "b", |m| {
                Some(number(m.intended_refusals))
            }),
            line("other answers", "c", |m| Some(number(m.others()))),
        ],
        &windows,
    );
    chart::lines(
        page,
        "Time to accept",
        Axis::Milliseconds,
        &[
            line("median", "a", |m| measured(&m.accept, m.accept.p50)),
            line("p99", "b", |m| measured(&m.accept, m.accept.p99)),
        ],
        &windows,
    );
    chart::lines(
        page,
        "Time to confirm, by the second in which it was seen",
        Axis::Milliseconds,
        &[
            line("median", "a", |m| measured(&m.confirm, m.confirm.p50)),
            line("p99", "b", |m| measured(&m.confirm, m.confirm.p99)),
        ],
        &windows,
    );
}

/// CPU and memory of the server's process over the same seconds as the other charts.
fn server_usage(page: &mut String, run: &Summary) {
    page.push_str("<section><h2>Server CPU and memory</h2>");
    let Some(usage) = &run.server_usage else {
        page.push_str(
            "<p>Not sampled: the load test did not start the server. To sample a server on the same machine, name its \
             process with --server-pid.</p></section>",
        );
        return;
    };
    let _ = write!(
        page,
        "<p>Process {}, sampled once a second: {:.2} s of CPU in all, {:.1} MiB resident at most. Helper processes, such as a \
         broker, are not included.</p>",
        usage.pid,
        usage.cpu_seconds,
        mebibytes(usage.max_resident_bytes),
    );
    let by_second = |value: fn(&UsageSample) -> f64| {
        let mut values = vec![None; run.moments.len()];
        for sample in &usage.samples {
            let place = usize::try_from(sample.second).ok();
            if let Some(place) = place.and_then(|place| values.get_mut(place)) {
                *place = Some(value(sample));
            }
        }
        values
    };
    let windows = windows(&run.setting.faults);
    let cpu = Line {
        name: "CPU",
        class: "a",
        values: by_second(|sample| sample.cpu_cores),
    };
    let title = "Server CPU, in cores that were busy";
    chart::lines(page, title, Axis::CpuCores, &[cpu], &windows);
    let memory = Line {
        name: "resident memory",
        class: "a",
        values: by_second(|sample| mebibytes(sample.resident_bytes)),
    };
    let title = "Server memory, in MiB that are resident";
    chart::lines(page, title, Axis::Mebibytes, &[memory], &windows);
    page.push_str("</section>");
}

fn mebibytes(bytes: u64) -> f64 {
    number(bytes) / (1024.0 * 1024.0)
}

fn endpoints(page: &mut String, endpoints: &[EndpointFigures]) {
    page.push_str(
        "<section><h2>By endpoint</h2><p>Times run from sending a request to its complete answer, refusals included. Failures \
         are broken connections and answers that the request should not get; intended refusals are answers that the client \
         expects because its request is wrong on purpose or repeats one in progress.</p><table class=\"stacked\"><tr><th>Endpoint<th>Requests<th>Per second<th>p50<th>p95<th>p99\
         <th>max<th>Failures<th>Intended refusals</tr>",
    );
    for endpoint in endpoints {
        let _ = write!(
            page,
            "<tr><td>{} {}",
            endpoint.method,
            escape(&endpoint.route)
        );
        let cells = [
            ("requests", endpoint.count.to_string()),
            ("per second", format!("{:.1}", endpoint.per_second)),
            ("p50", time(endpoint.p50)),
            ("p95", time(endpoint.p95)),
            ("p99", time(endpoint.p99)),
            ("max", time(endpoint.max)),
            ("failures", endpoint.failures.to_string()),
            ("intended refusals", endpoint.intended_refusals.to_string()),
        ];
        for (label, value) in cells {
            let failed = label == "failures" && endpoint.failures > 0;
            let class = if failed { "n bad" } else { "n" };
            let _ = write!(page, "<td class=\"{class}\" data-label=\"{label}\">{value}");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></section>");
}

fn measured(times: &Percentiles, value: f64) -> Option<f64> {
    (times.count > 0).then_some(value)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
const fn number(count: u64) -> f64 {
    count as f64
}

fn tiles(page: &mut String, run: &Summary) {
    let tiles = [
        ("writes a second", format!("{:.1}", run.writes_per_second)),
        ("accepted within, p99", time(run.accept.p99)),
        ("confirmed within, p99", time(run.confirm.p99)),
        ("not confirmed", percent(run.unconfirmed_share)),
        ("turned away", percent(run.turned_away_share)),
        ("missing", run.missing.to_string()),
    ];
    page.push_str("<div class=\"tiles\">");
    for (what, value) in tiles {
        let _ = write!(page, "<div><b>{value}</b><span>{what}</span></div>");
    }
    page.push_str("</div>");
}

fn verdict(page: &mut String, findings: &[Finding]) {
    page.push_str("<section><h2>Verdict</h2><table class=\"stacked verdict\"><tr><th>What<th>Measured<th>Limit<th></tr>");
    for finding in findings {
        let (class, word) = if finding.holds {
            ("good", "holds")
        } else {
            ("bad", "fails")
        };
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"n\" data-label=\"measured\">{}<td class=\"n\" data-label=\"limit\">{}\
             <td><span class=\"{class}\">{word}</span></tr>",
            escape(&finding.what),
            escape(&finding.measured),
            escape(&finding.limit),
        );
    }
    page.push_str("</table></section>");
}

/// The faults of the locks, on the same time axis as the charts.
fn fault_tracks(page: &mut String, faults: &[Fault], seconds: usize, load: f64) {
    page.push_str(
        "<figure><figcaption>Load and faults of the locks</figcaption><div class=\"tracks\">",
    );
    let mut track = |label: &str, class: &str, from: f64, until: f64| {
        let (from, until) = (chart::x(from, seconds), chart::x(until, seconds));
        let _ = write!(
            page,
            "<div class=\"track\"><i class=\"{class}\" style=\"left:{:.2}%;width:{:.2}%\"></i><span>{}</span></div>",
            from * 100.0,
            (until - from) * 100.0,
            escape(label)
        );
    };
    track("load", "load", 0.0, load);
    for fault in faults {
        let until = fault.until.unwrap_or(load);
        track(&fault.what, "fault", fault.from, until);
    }
    page.push_str("</div></figure>");
}

/// The shaded ranges of the charts, in seconds.
fn windows(faults: &[Fault]) -> Vec<(f64, f64)> {
    let window = |fault: &Fault| Some((fault.from, fault.until?));
    faults.iter().filter_map(window).collect()
}

fn tables(page: &mut String, run: &Summary) {
    page.push_str(
        "<section class=\"two\"><div><h2>Percentiles</h2><table><tr><th><th>accept<th>confirm<th>visible to the client</tr>",
    );
    for (name, of) in PERCENTILES {
        let _ = write!(
            page,
            "<tr><td>{name}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}</tr>",
            time(of(&run.accept)),
            time(of(&run.confirm)),
            time(of(&run.seen))
        );
    }
    let _ = write!(
        page,
        "<tr><td>writes<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}</tr></table></div><div><h2>Answers</h2><table>",
        run.accept.count, run.confirm.count, run.seen.count
    );
    for (status, n) in &run.statuses {
        let name = match status {
            0 => "connection broke".to_owned(),
            status => status.to_string(),
        };
        let _ = write!(page, "<tr><td>{name}<td class=\"n\">{n}</tr>");
    }
    page.push_str("</table></div></section>");
    for (title, shown, count) in [
        ("Missing", &run.missing_shown, run.missing),
        ("Unexpected answers", &run.unexpected_shown, run.unexpected),
    ] {
        if count > 0 {
            let _ = write!(page, "<section><h2>{title}: {count}</h2><ul>");
            for line in shown {
                let _ = write!(page, "<li>{}", escape(line));
            }
            page.push_str("</ul></section>");
        }
    }
}

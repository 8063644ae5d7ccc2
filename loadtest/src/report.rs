//! The report: one page that needs nothing else, to be looked at and shown.

use std::fmt::Write as _;

use crate::limits::{Finding, percent, time};
use crate::summary::{Buckets, Fault, Percentiles, Summary};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// A line of a chart: what it is, its class, and its values by the second; `None`: nothing was measured in it.
type Line<'a> = (&'a str, &'a str, Vec<Option<f64>>);

type Part = fn(&Percentiles) -> f64;

/// The page.
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
    let seconds = run.moments.len();
    let of =
        |value: fn(&crate::summary::Moment) -> Option<f64>| run.moments.iter().map(value).collect();
    page.push_str("<section><h2>Second by second</h2>");
    faults(&mut page, &setting.faults, seconds, run.seconds);
    let windows = windows(&setting.faults, seconds);
    let mut chart = |title, lines: &[Line<'_>], scale| {
        chart(&mut page, title, lines, scale, &windows);
    };
    chart(
        "Writes accepted, and answers other than 200, in each second",
        &[
            ("writes accepted", "a", of(|m| Some(number(m.writes)))),
            (
                "intended refusals",
                "b",
                of(|m| Some(number(m.intended_refusals))),
            ),
            ("other answers", "c", of(|m| Some(number(m.others())))),
        ],
        Scale::Linear,
    );
    chart(
        "Time to accept",
        &[
            ("median", "a", of(|m| measured(&m.accept, m.accept.p50))),
            ("p99", "b", of(|m| measured(&m.accept, m.accept.p99))),
        ],
        Scale::Time,
    );
    chart(
        "Time to confirm, by the second in which it was seen",
        &[
            ("median", "a", of(|m| measured(&m.confirm, m.confirm.p50))),
            ("p99", "b", of(|m| measured(&m.confirm, m.confirm.p99))),
        ],
        Scale::Time,
    );
    page.push_str("</section><section><h2>How long writes took</h2><div class=\"two\">");
    histogram(&mut page, "Time to accept", &run.accept_buckets);
    histogram(&mut page, "Time to confirm", &run.confirm_buckets);
    page.push_str("</div></section>");
    tables(&mut page, run);
    page.push_str("</main></html>\n");
    page
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
    page.push_str("<section><h2>Verdict</h2><table><tr><th>What<th>Measured<th>Limit<th></tr>");
    for finding in findings {
        let (class, word) = if finding.holds {
            ("good", "holds")
        } else {
            ("bad", "fails")
        };
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{}<td><span class=\"{class}\">{word}</span></tr>",
            escape(&finding.what),
            escape(&finding.measured),
            escape(&finding.limit),
        );
    }
    page.push_str("</table></section>");
}

/// The fault script over the charts' own axis of time.
fn faults(page: &mut String, faults: &[Fault], seconds: usize, load: f64) {
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let height = 20.0 * (faults.len() as f64 + 1.0) + 4.0;
    let _ = write!(
        page,
        "<figure><figcaption>What was done to it</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">"
    );
    let mut band = |row: f64, label: &str, class: &str, from: f64, until: f64| {
        let (x, end) = (at(from, seconds), at(until, seconds));
        let y = row * 20.0 + 2.0;
        // A label that would leave the picture stands before the end of its band.
        let (anchor, label_x) = match x > WIDTH * 0.7 {
            true => ("end", end - 6.0),
            false => ("start", x + 6.0),
        };
        let _ = write!(
            page,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\" rx=\"3\" class=\"{class}\"/>\
             <text x=\"{label_x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" class=\"in\">{}</text>",
            end - x,
            y + 12.0,
            escape(label)
        );
    };
    band(0.0, "load", "load", 0.0, load);
    for (row, fault) in (1_u32..).zip(faults) {
        let until = fault.until.unwrap_or(load);
        band(f64::from(row), &fault.what, "fault", fault.from, until);
    }
    page.push_str("</svg></figure>");
}

/// Where charts are shaded: from, to.
fn windows(faults: &[Fault], seconds: usize) -> Vec<(f64, f64)> {
    let window = |fault: &Fault| Some((at(fault.from, seconds), at(fault.until?, seconds)));
    faults.iter().filter_map(window).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    /// Milliseconds, each ten times the one below.
    Time,
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a load test")]
fn at(second: f64, seconds: usize) -> f64 {
    let last = (seconds.max(2) - 1) as f64;
    LEFT + second.min(last) / last * (WIDTH - LEFT - RIGHT)
}

fn chart(page: &mut String, title: &str, lines: &[Line<'_>], scale: Scale, windows: &[(f64, f64)]) {
    let values = || {
        lines
            .iter()
            .flat_map(|(.., values)| values.iter().flatten().copied())
    };
    let most = values().fold(0.0, f64::max).max(1.0);
    let least = values().fold(f64::MAX, f64::min).clamp(0.01, most);
    let (bottom, top) = match scale {
        Scale::Linear => (0.0, most * 1.08),
        Scale::Time => (
            least.log10().floor(),
            (most.log10().ceil()).max(least.log10().floor() + 1.0),
        ),
    };
    let y = |value: f64| {
        let value = if scale == Scale::Time {
            value.max(0.001).log10()
        } else {
            value
        };
        TOP + (1.0 - (value - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM)
    };
    let _ = write!(
        page,
        "<figure><figcaption>{title} <span class=\"key\">{}</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">",
        lines
            .iter()
            .map(|(name, class, _)| format!("<i class=\"{class}\"></i>{name}"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    for (from, until) in windows {
        let _ = write!(
            page,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\" class=\"window\"/>",
            until - from,
            HEIGHT - TOP - BOTTOM
        );
    }
    let marks: Vec<(f64, String)> = match scale {
        Scale::Linear => {
            let step = step(top / 4.0);
            let marks = (0..=8)
                .map(|n| f64::from(n) * step)
                .filter(|mark| *mark <= top);
            marks.map(|mark| (mark, format!("{mark}"))).collect()
        }
        Scale::Time => {
            #[expect(clippy::cast_possible_truncation, reason = "powers of ten")]
            let powers = bottom as i32..=top as i32;
            powers
                .map(|power| (10_f64.powi(power), short_time(10_f64.powi(power))))
                .collect()
        }
    };
    for (mark, label) in marks {
        let y = y(mark);
        let _ = write!(
            page,
            "<path d=\"M{LEFT} {y:.1}H{:.1}\" class=\"grid\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"y\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
    }
    let seconds = lines
        .iter()
        .map(|(.., values)| values.len())
        .max()
        .unwrap_or(0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "seconds of a load test"
    )]
    let every = (step(seconds as f64 / 8.0) as usize).max(1);
    for second in (0..seconds).step_by(every) {
        let _ = write!(
            page,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"x\">{second} s</text>",
            at(number(second as u64), seconds),
            HEIGHT - 8.0
        );
    }
    for (_, class, values) in lines {
        let mut path = String::new();
        let mut pen_down = false;
        for (second, value) in values.iter().enumerate() {
            let Some(value) = value else {
                pen_down = false;
                continue;
            };
            let letter = if pen_down { 'L' } else { 'M' };
            let (x, y) = (at(number(second as u64), seconds), y(*value));
            // A moment alone is a dot.
            let _ = write!(path, "{letter}{x:.1} {y:.1}h0.01");
            pen_down = true;
        }
        let _ = write!(page, "<path d=\"{path}\" class=\"line {class}\"/>");
    }
    page.push_str("</svg></figure>");
}

/// A round number near this one: 1, 2 or 5 times a power of ten.
fn step(near: f64) -> f64 {
    let power = 10_f64.powf(near.max(1e-9).log10().floor());
    let factor = near / power;
    let round = match factor {
        _ if factor <= 1.0 => 1.0,
        _ if factor <= 2.0 => 2.0,
        _ if factor <= 5.0 => 5.0,
        _ => 10.0,
    };
    power * round
}

fn short_time(millis: f64) -> String {
    match millis {
        _ if millis >= 1000.0 => format!("{} s", millis / 1000.0),
        _ if millis >= 1.0 => format!("{millis} ms"),
        _ => format!("{} µs", (millis * 1000.0).round()),
    }
}

fn histogram(page: &mut String, title: &str, buckets: &Buckets) {
    let (width, height) = (420.0, 200.0);
    let _ = write!(
        page,
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">"
    );
    let most = buckets.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1);
    #[expect(clippy::cast_precision_loss, reason = "some dozens")]
    let bar = (width - 20.0) / buckets.len().max(1) as f64;
    let every = buckets.len().div_ceil(5).max(1);
    for (place, (until, n)) in buckets.iter().enumerate() {
        let x = 10.0 + number(place as u64) * bar;
        let high = number(*n) / number(most) * (height - 40.0);
        let _ = write!(
            page,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{high:.1}\" rx=\"1.5\" class=\"bar\">\
             <title>up to {}: {n}</title></rect>",
            x + 0.75,
            height - 26.0 - high,
            (bar - 1.5).max(1.0),
            time(*until),
        );
        if place % every == 0 {
            let _ = write!(
                page,
                "<text x=\"{:.1}\" y=\"{:.1}\" class=\"x\">{}</text>",
                (x + bar / 2.0).clamp(26.0, width - 26.0),
                height - 8.0,
                time(*until)
            );
        }
    }
    page.push_str("</svg></figure>");
}

fn tables(page: &mut String, run: &Summary) {
    page.push_str(
        "<section class=\"two\"><div><h2>Percentiles</h2><table><tr><th><th>accept<th>confirm<th>see it</tr>",
    );
    let rows: [(&str, Part); 5] = [
        ("median", |p| p.p50),
        ("p90", |p| p.p90),
        ("p99", |p| p.p99),
        ("p99.9", |p| p.p999),
        ("longest", |p| p.max),
    ];
    for (name, of) in rows {
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

const STYLE: &str = ":root{--fg:#1c2430;--dim:#667085;--bg:#f6f7f9;--card:#fff;--rule:#e4e7ec;--a:#2563eb;--b:#d97706;--c:#b42318;\
--good:#067647;--bad:#b42318}@media(prefers-color-scheme:dark){:root{--fg:#e6e9ef;--dim:#98a2b3;--bg:#12161c;--card:#1b212a;\
--rule:#2c3440;--a:#6ea8fe;--b:#f5b04c;--c:#f97066;--good:#47cd89;--bad:#f97066}}\
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}\
main{max-width:940px;margin:0 auto;padding:28px 20px 60px}h1{font-size:28px;margin:0}h2{font-size:17px;margin:0 0 10px}\
header p,td,li{overflow-wrap:anywhere}header p{color:var(--dim);margin:6px 0 20px}h1 span{font-size:18px;vertical-align:4px;padding:2px 12px;border-radius:20px;color:#fff}\
h1 .good{background:#067647}h1 .bad{background:#b42318}td span{white-space:nowrap}td .good{color:var(--good);font-weight:600}td .bad{color:var(--bad);font-weight:700}\
.tiles{display:grid;grid-template-columns:repeat(6,1fr);gap:10px;margin-bottom:16px}.tiles div,section{background:var(--card);\
border:1px solid var(--rule);border-radius:10px;padding:14px 16px}.tiles b{display:block;font-size:20px;font-variant-numeric:tabular-nums}\
.tiles span{color:var(--dim);font-size:12.5px}section{margin-top:16px}figure{margin:0 0 14px}figcaption{font-size:13.5px;color:var(--dim);margin:4px 0}\
svg{width:100%;height:auto;display:block}.grid{stroke:var(--rule);fill:none}text{font:11px system-ui,sans-serif;fill:var(--dim)}.y{text-anchor:end}\
.x{text-anchor:middle}.in{fill:var(--fg)}.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}.line.a{stroke:var(--a)}\
.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}.bar{fill:var(--a)}.load{fill:var(--a);opacity:.22}.fault{fill:var(--b);opacity:.28}.window{fill:var(--b);opacity:.09}\
.key{float:right}.key i{display:inline-block;width:14px;height:3px;margin:0 5px 3px 12px;border-radius:2px}i.a{background:var(--a)}\
i.b{background:var(--b)}i.c{background:var(--c)}table{border-collapse:collapse;width:100%;font-size:14px}td,th{text-align:left;padding:5px 8px;\
border-top:1px solid var(--rule)}th{color:var(--dim);font-weight:500;border-top:0}.n{font-variant-numeric:tabular-nums}\
.two>*{min-width:0}.two{display:grid;grid-template-columns:1fr 1fr;gap:24px}@media(max-width:700px){.two{grid-template-columns:1fr}.tiles{grid-template-columns:repeat(2,1fr)}}";

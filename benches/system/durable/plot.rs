//! The table as a plot.

use std::fmt::Write;

use super::Latency;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 44.0;
const BAR: f64 = 18.0;

/// The color of text, which is legible on white and on black.
const GREY: &str = "#737d88";

/// Draws two bars for each store.
pub(crate) fn svg(rows: &[Latency]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Latency of a durable 202 over HTTP on each store, at half of the highest load" font-family="sans-serif" font-size="12" fill="{GREY}" stroke="none">"#
    );
    let (p50, p99) = ("#7cc9a2", "#2da06a");
    for (x, fill, name) in [(LEFT, p50, "p50"), (LEFT + 60.0, p99, "p99")] {
        let _ = writeln!(
            out,
            r#"<rect x="{x:.1}" y="12" width="12" height="12" rx="2" fill="{fill}"/><text x="{:.1}" y="22">{name}</text>"#,
            x + 17.0
        );
    }
    let longest = rows
        .iter()
        .map(|row| row.p99)
        .fold(f64::MIN_POSITIVE, f64::max);
    let group = (HEIGHT - TOP - 20.0) / rows.len().max(1) as f64;
    for (index, row) in rows.iter().enumerate() {
        let top = TOP + group * index as f64;
        let _ = writeln!(
            out,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            top + BAR + 5.0,
            row.store
        );
        for (place, millis, fill) in [(0.0, row.p50, p50), (1.0, row.p99, p99)] {
            let width = (WIDTH - LEFT - RIGHT) * millis / longest;
            let y = top + place * (BAR + 2.0);
            let _ = writeln!(
                out,
                r#"<rect x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{BAR}" rx="2" fill="{fill}"/><text x="{:.1}" y="{:.1}">{millis:.2} ms</text>"#,
                LEFT + width + 6.0,
                y + 13.0
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

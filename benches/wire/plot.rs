//! The table as a plot.

use std::fmt::Write;

use super::{contender::Contender, table::Row};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
const BAR: f64 = 24.0;

/// The color of text, which is legible on white and on black.
const GREY: &str = "#737d88";
const GAP: f64 = 4.0;

fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Limit => "#9aa4af",
        Contender::Floor => "#b08800",
        Contender::Ours => "#2da06a",
        Contender::InAxum => "#7cc9a2",
        Contender::Hand => "#c2503d",
        Contender::Careful => "#d98a5f",
    }
}

/// Draws a group of bars for each workload.
pub(crate) fn svg(rows: &[Row]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="CPU time that the limit takes for a request, by that of each contender" font-family="sans-serif" font-size="12" fill="{GREY}" stroke="none">"#
    );
    axes(&mut out);
    legend(&mut out);
    let group = (WIDTH - LEFT - RIGHT) / rows.len().max(1) as f64;
    for (index, row) in rows.iter().enumerate() {
        let middle = LEFT + group * (index as f64 + 0.5);
        bars(&mut out, row, middle);
    }
    out.push_str("</svg>\n");
    out
}

/// Returns the vertical position of a ratio.
fn height(ratio: f64) -> f64 {
    let bottom = HEIGHT - BOTTOM;
    bottom - ratio * (bottom - TOP) / 1.05
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    );
}

fn axes(out: &mut String) {
    let right = WIDTH - RIGHT;
    for step in 0..=5 {
        let ratio = f64::from(step) / 5.0;
        let y = height(ratio);
        let opacity = if step == 0 { 1.0 } else { 0.3 };
        let _ = writeln!(
            out,
            r#"<line stroke="{GREY}" stroke-opacity="{opacity}" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#
        );
        text(out, LEFT - 6.0, y + 4.0, "end", &format!("{ratio:.1}"));
    }
    let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
    let _ = writeln!(
        out,
        r#"<text transform="translate(14 {middle:.1}) rotate(-90)" text-anchor="middle">CPU efficiency, limit = 1</text>"#
    );
    text(
        out,
        f64::midpoint(LEFT, right),
        HEIGHT - 8.0,
        "middle",
        "workload (higher is better)",
    );
}

fn legend(out: &mut String) {
    let mut x = LEFT;
    for contender in Contender::ALL {
        let fill = colour(contender);
        let _ = writeln!(
            out,
            r#"<rect x="{x:.1}" y="12" width="12" height="12" rx="2" fill="{fill}"/>"#
        );
        text(out, x + 17.0, 22.0, "start", contender.name());
        x += 34.0 + 7.0 * contender.name().len() as f64;
    }
}

fn bars(out: &mut String, row: &Row, middle: f64) {
    let bottom = HEIGHT - BOTTOM;
    let width = row.cells.len() as f64 * (BAR + GAP) - GAP;
    let mut x = middle - width / 2.0;
    for cell in &row.cells {
        let (y, fill) = (height(cell.ratio), colour(cell.contender));
        let _ = writeln!(
            out,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{BAR}" height="{:.1}" rx="2" fill="{fill}"/>"#,
            bottom - y
        );
        let ratio = format!("{:.2}", cell.ratio);
        text(out, x + BAR / 2.0, y - 4.0, "middle", &ratio);
        x += BAR + GAP;
    }
    text(out, middle, bottom + 18.0, "middle", row.workload.name());
}

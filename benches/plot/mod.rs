//! Where plots go: beside the page that shows them.

use std::{fs, path::Path};

/// Writes `docs/NAME.svg`, and `docs/NAME.plot`, which is the same as a link reference
/// definition of Markdown, for pages that have no files beside them.
pub(crate) fn write(name: &str, svg: &str) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let plot = docs.join(name);
    let url: String = svg.bytes().map(encoded).collect();
    let definition = format!("[{name}]: data:image/svg+xml,{url}\n");
    fs::write(plot.with_extension("svg"), svg).expect("the plot can be written");
    fs::write(plot.with_extension("plot"), definition).expect("the plot can be written");
}

/// RFC 3986, section 2.1.
fn encoded(byte: u8) -> String {
    match byte.is_ascii_alphanumeric() || b"-._~/:=,".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}

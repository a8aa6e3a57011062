//! Plots, which are written beside the page that shows them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the folder of the pages and their plots.
pub(crate) fn docs() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut docs = package.ancestors().map(|folder| folder.join("docs"));
    docs.find(|docs| docs.is_dir())
        .expect("the folder of the pages")
}

/// Writes a plot as `NAME.svg`, and as `NAME.plot`, which is the same as a link reference
/// definition of Markdown, for pages that have no files beside them.
pub(crate) fn write(svg: &Path, plot: &str) {
    let name = svg.file_stem().unwrap_or_default().to_string_lossy();
    let url: String = plot.bytes().map(encode).collect();
    let definition = format!("[{name}]: data:image/svg+xml,{url}\n");
    fs::write(svg, plot).expect("the plot can be written");
    fs::write(svg.with_extension("plot"), definition).expect("the plot can be written");
}

/// Percent-encodes a byte (RFC 3986, section 2.1).
fn encode(byte: u8) -> String {
    match byte.is_ascii_alphanumeric() || b"-._~/:=,".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}

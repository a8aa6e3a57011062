//! Medians and percentiles.

/// Returns the value below which `share` of the values lie.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

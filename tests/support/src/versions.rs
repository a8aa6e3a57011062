//! Records of one version, from several calls.

use tower_operations::{RecordedResponse, store::Record};

/// Asserts that two records of one version have the same content. The record of a write may lack
/// the body of its result.
#[track_caller]
pub fn assert_same_version(first: &Record<RecordedResponse>, second: &Record<RecordedResponse>) {
    let [without, other] = [first, second].map(Record::without_result);
    assert_eq!(without, other, "the content of a version changed");
    let [result, other] = [first, second].map(|record| record.operation().response());
    let [length, other_length] =
        [result, other].map(|response| response.map(RecordedResponse::body_len));
    assert_eq!(length, other_length, "the result of a version changed");
    let [body, other] = [result, other].map(|response| response?.body());
    if body.is_some() && other.is_some() {
        assert_eq!(body, other, "the result of a version changed");
    }
}

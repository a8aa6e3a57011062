use super::*;

#[test]
fn a_taken_id_already_exists_and_is_no_reason_to_try_again() {
    let id = "q3".parse().unwrap();
    let answer = Google::default().error(&ApiError::IdTaken { id });
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let body: serde_json::Value = serde_json::from_slice(answer.body().data()).unwrap();
    assert_eq!(body["error"]["status"], "ALREADY_EXISTS");
}

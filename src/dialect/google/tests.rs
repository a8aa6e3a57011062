use super::*;

#[test]
fn taken_ids_are_answered_with_already_exists() {
    let id = "q3".parse().unwrap();
    let answer = Google::default().error(&ApiError::IdTaken { id });
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let body: serde_json::Value = serde_json::from_slice(answer.body().data()).unwrap();
    assert_eq!(body["error"]["status"], "ALREADY_EXISTS");
}

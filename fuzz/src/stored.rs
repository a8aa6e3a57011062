//! What stores and queues keep: any bytes are read or refused, and what is read is
//! written and read again as the same.

use bytes::Bytes;
use http::Request;
use tower_operations::{
    BufferedBody, Operation, QueuedRequest, RecordedResponse, fuzzing, operation::Stored,
};

pub fn check(data: &[u8]) {
    let Some((selector, data)) = data.split_first() else {
        return;
    };
    let data = Bytes::copy_from_slice(data);
    match selector % 6 {
        0 => request(&data),
        1 => queued(&data),
        2 => response(data),
        3 => head(data),
        4 => operation(&data),
        _ => rows(&data),
    }
}

fn request(data: &Bytes) {
    let Some(read) = fuzzing::stored_request(data) else {
        return;
    };
    let bytes = fuzzing::store_request(read.clone()).expect("it was short enough");
    let again = fuzzing::stored_request(&bytes).expect("what is written can be read");
    assert_same(&read, &again);
}

fn assert_same(one: &Request<BufferedBody>, other: &Request<BufferedBody>) {
    assert_eq!(one.method(), other.method());
    assert_eq!(one.uri(), other.uri());
    assert_eq!(one.version(), other.version());
    assert_eq!(one.headers(), other.headers());
    assert_eq!(one.body().data(), other.body().data());
    assert_eq!(one.body().trailers(), other.body().trailers());
}

fn queued(data: &Bytes) {
    let Ok(read) = QueuedRequest::from_bytes(data) else {
        return;
    };
    let again = QueuedRequest::from_bytes(&read.to_bytes()).expect("what is written can be read");
    assert_eq!(again.id(), read.id());
    assert_eq!(again.owner(), read.owner());
    assert_eq!(again.to_bytes(), read.to_bytes());
}

fn response(data: Bytes) {
    let Ok(read) = RecordedResponse::from_bytes(data) else {
        return;
    };
    let again = RecordedResponse::from_bytes(read.to_bytes().unwrap()).unwrap();
    assert_eq!(again, read);
    let response = read.to_response();
    let recorded = RecordedResponse::new(response);
    assert_eq!(recorded.status(), read.status());
    assert_eq!(recorded.body(), read.body());
    let _ = recorded.into_outcome();
}

fn head(data: Bytes) {
    let Some(read) = fuzzing::record(data, None) else {
        return;
    };
    // What is too deep, or longer than was read, is not written.
    let Some(bytes) = fuzzing::head(&read) else {
        return;
    };
    let again = fuzzing::record(bytes.clone(), None).expect("what is written can be read");
    assert_eq!(again, read);
    assert_eq!(fuzzing::head(&again), Some(bytes));
}

/// An operation as a client reads it.
fn operation(data: &Bytes) {
    let Ok(read) = serde_json::from_slice::<Operation<serde_json::Value>>(data) else {
        return;
    };
    let text = serde_json::to_vec(&read).expect("what was read can be written");
    let Ok(again) = serde_json::from_slice::<Operation<serde_json::Value>>(&text) else {
        panic!(
            "what is written can be read: {}",
            String::from_utf8_lossy(&text)
        );
    };
    assert_eq!(serde_json::to_vec(&again).unwrap(), text);
}

/// Rows of the store in a file.
fn rows(data: &[u8]) {
    for again in [
        tower_operations_redb::fuzzing::cell_row,
        tower_operations_redb::fuzzing::key_row,
    ] {
        if let Some(written) = again(data) {
            assert_eq!(again(&written).as_ref(), Some(&written));
        }
    }
}

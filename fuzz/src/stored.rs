//! Stored and queued data: any bytes are read or refused, and a value that was read is
//! written and read back as an equal value.

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
    let bytes = fuzzing::store_request(read.clone()).expect("the request was short enough");
    let reread = fuzzing::stored_request(&bytes).expect("what is written can be read");
    assert_same(&read, &reread);
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
    let reread = QueuedRequest::from_bytes(&read.to_bytes()).expect("what is written can be read");
    assert_eq!(reread.id(), read.id());
    assert_eq!(reread.owner(), read.owner());
    assert_eq!(reread.to_bytes(), read.to_bytes());
}

fn response(data: Bytes) {
    let Ok(read) = RecordedResponse::from_bytes(data) else {
        return;
    };
    let reread = RecordedResponse::from_bytes(read.to_bytes().unwrap()).unwrap();
    assert_eq!(reread, read);
    let response = read.to_response().expect("the body was read");
    let recorded = RecordedResponse::new(response);
    assert_eq!(recorded.status(), read.status());
    assert_eq!(recorded.body(), read.body());
    let _ = recorded.into_outcome();
}

fn head(data: Bytes) {
    let Some(read) = fuzzing::record(data, None) else {
        return;
    };
    // A record that is too deep, or longer than the input, is not written.
    let Some(bytes) = fuzzing::head(&read) else {
        return;
    };
    let reread = fuzzing::record(bytes.clone(), None).expect("what is written can be read");
    assert_eq!(reread, read);
    assert_eq!(fuzzing::head(&reread), Some(bytes));
}

/// Checks an operation as a client reads it.
fn operation(data: &Bytes) {
    let Ok(read) = serde_json::from_slice::<Operation<serde_json::Value>>(data) else {
        return;
    };
    let text = serde_json::to_vec(&read).expect("what was read can be written");
    let Ok(reread) = serde_json::from_slice::<Operation<serde_json::Value>>(&text) else {
        panic!(
            "what is written can be read: {}",
            String::from_utf8_lossy(&text)
        );
    };
    assert_eq!(serde_json::to_vec(&reread).unwrap(), text);
}

/// Checks the rows of `RedbStore`.
fn rows(data: &[u8]) {
    for rewrite in [
        tower_operations_redb::fuzzing::cell_row,
        tower_operations_redb::fuzzing::key_row,
    ] {
        if let Some(written) = rewrite(data) {
            assert_eq!(rewrite(&written).as_ref(), Some(&written));
        }
    }
}

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::operation::InvalidId;

fn ask(method: &Method, uri: &str) -> Result<(String, Action), ApiError> {
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (uri, None),
    };
    let headers = HeaderMap::new();
    Plain::default()
        .parse(&RequestView::new(method, path, query, &headers))
        .map(|ask| match ask {
            PollRequest::Operation { id, action, .. } => (id.to_string(), action),
            PollRequest::List(_) => panic!("lists are off"),
        })
}

#[test]
fn the_id_is_the_last_segment_or_the_one_before_result() {
    let is = |uri: &str, id: &str, action| {
        assert_eq!(ask(&Method::GET, uri), Ok((id.into(), action)), "{uri}");
    };
    is("/q3", "q3", Action::Status);
    is("/q3/", "q3", Action::Status);
    is("/a/b/q3", "q3", Action::Status);
    is("/q3/result", "q3", Action::Result);
    is("/q3/result/", "q3", Action::Result);
    is("/?id=q3", "q3", Action::Status);
    is("/result?id=q3", "q3", Action::Result);
    assert_eq!(
        ask(&Method::DELETE, "/q3"),
        Ok(("q3".into(), Action::Cancel(OnTerminal::RefuseUnlessMatched)))
    );
}

#[test]
fn missing_and_invalid_ids_are_errors() {
    let get = |uri: &str| ask(&Method::GET, uri).unwrap_err();
    for uri in ["", "/", "/?id=", "/?x=1", "/result"] {
        assert_eq!(get(uri), ApiError::MissingId, "{uri}");
    }
    for uri in [
        "/..", "/a%00", "/a%2Fb", "/%", "/?id=%zz", "/?id=..", "/events", "//",
    ] {
        assert!(
            matches!(get(uri), ApiError::InvalidId { .. } | ApiError::MissingId),
            "{uri}"
        );
    }
    let long = "x".repeat(10_000);
    let too_long = ApiError::invalid_id(&long, InvalidId::TooLong);
    assert_eq!(get(&format!("/{long}")), too_long);
    let (id, name) = ("q3".parse().unwrap(), "/".into());
    assert_eq!(get("/q3//"), ApiError::NoSubResource { id, name });
}

#[test]
fn every_resource_lists_its_methods() {
    let allow = |method, uri| ask(method, uri).unwrap_err().allow();
    assert_eq!(allow(&Method::OPTIONS, "/q3"), Some(RESOURCE));
    assert_eq!(allow(&Method::POST, "/q3"), Some(RESOURCE));
    assert_eq!(allow(&Method::DELETE, "/q3/result"), Some(READ));
}

#[test]
fn the_wait_of_the_url_precedes_that_of_the_header() {
    let mut headers = HeaderMap::new();
    headers.insert("prefer", HeaderValue::from_static("wait=9"));
    let wait = |query| {
        let request = RequestView::new(&Method::GET, "/q3", query, &headers);
        Plain::default().parse(&request).map(|ask| match ask {
            PollRequest::Operation { wait, .. } => wait.map(|wait| wait.as_secs()),
            PollRequest::List(_) => panic!("lists are off"),
        })
    };
    assert_eq!(wait(None), Ok(Some(9)));
    assert_eq!(wait(Some("wait=5")), Ok(Some(5)));
    assert_eq!(wait(Some("wait=0")), Ok(None));
    for bad in ["wait=", "wait=x", "wait=-1", "wait=1.5", "wait=%zz"] {
        let value = bad.strip_prefix("wait=").unwrap();
        assert_eq!(wait(Some(bad)), Err(ApiError::invalid_wait(value)), "{bad}");
    }
}

proptest! {
    #[test]
    fn paths_never_cause_a_panic(path in "\\PC{0,60}", query in prop::option::of("\\PC{0,60}")) {
        let headers = HeaderMap::new();
        let _ = Plain::default().parse(&RequestView::new(&Method::GET, &path, query.as_deref(), &headers));
    }
}

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::operation::InvalidId;

fn ask(method: &Method, uri: &str) -> Result<(String, Intent), Fault> {
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (uri, None),
    };
    let headers = HeaderMap::new();
    Plain::default()
        .ask(&Inquiry::new(method, path, query, &headers))
        .map(|ask| match ask {
            Ask::About { id, intent, .. } => (id.to_string(), intent),
            Ask::List(_) => panic!("lists are off"),
        })
}

#[test]
fn the_id_is_the_last_segment_or_the_one_before_result() {
    let is = |uri: &str, id: &str, intent| {
        assert_eq!(ask(&Method::GET, uri), Ok((id.into(), intent)), "{uri}");
    };
    is("/q3", "q3", Intent::Status);
    is("/q3/", "q3", Intent::Status);
    is("/a/b/q3", "q3", Intent::Status);
    is("/q3/result", "q3", Intent::Result);
    is("/q3/result/", "q3", Intent::Result);
    is("/?id=q3", "q3", Intent::Status);
    is("/result?id=q3", "q3", Intent::Result);
    assert_eq!(
        ask(&Method::DELETE, "/q3"),
        Ok((
            "q3".into(),
            Intent::Cancel(WhenFinished::RefuseUnlessMatched)
        ))
    );
}

#[test]
fn what_is_no_id_is_said_to_be_none() {
    let get = |uri: &str| ask(&Method::GET, uri).unwrap_err();
    for uri in ["", "/", "/?id=", "/?x=1", "/result"] {
        assert_eq!(get(uri), Fault::MissingId, "{uri}");
    }
    for uri in [
        "/..", "/a%00", "/a%2Fb", "/%", "/?id=%zz", "/?id=..", "/events", "//",
    ] {
        assert!(
            matches!(get(uri), Fault::InvalidId { .. } | Fault::MissingId),
            "{uri}"
        );
    }
    let long = "x".repeat(10_000);
    let too_long = Fault::invalid_id(&long, InvalidId::TooLong);
    assert_eq!(get(&format!("/{long}")), too_long);
    let (id, name) = ("q3".parse().unwrap(), "/".into());
    assert_eq!(get("/q3//"), Fault::NoSubResource { id, name });
}

#[test]
fn every_resource_says_its_methods() {
    let allow = |method, uri| ask(method, uri).unwrap_err().allow();
    assert_eq!(allow(&Method::OPTIONS, "/q3"), Some(RESOURCE));
    assert_eq!(allow(&Method::POST, "/q3"), Some(RESOURCE));
    assert_eq!(allow(&Method::DELETE, "/q3/result"), Some(READ));
}

#[test]
fn the_url_says_how_long_before_the_header_does() {
    let mut headers = HeaderMap::new();
    headers.insert("prefer", HeaderValue::from_static("wait=9"));
    let wait = |query| {
        let inquiry = Inquiry::new(&Method::GET, "/q3", query, &headers);
        Plain::default().ask(&inquiry).map(|ask| match ask {
            Ask::About { wait, .. } => wait.map(|wait| wait.as_secs()),
            Ask::List(_) => panic!("lists are off"),
        })
    };
    assert_eq!(wait(None), Ok(Some(9)));
    assert_eq!(wait(Some("wait=5")), Ok(Some(5)));
    assert_eq!(wait(Some("wait=0")), Ok(None));
    for bad in ["wait=", "wait=x", "wait=-1", "wait=1.5", "wait=%zz"] {
        let value = bad.strip_prefix("wait=").unwrap();
        assert_eq!(wait(Some(bad)), Err(Fault::invalid_wait(value)), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_path_makes_it_panic(path in "\\PC{0,60}", query in prop::option::of("\\PC{0,60}")) {
        let headers = HeaderMap::new();
        let _ = Plain::default().ask(&Inquiry::new(&Method::GET, &path, query.as_deref(), &headers));
    }
}

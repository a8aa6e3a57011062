use http::{Response, StatusCode};

use super::*;
use crate::{
    operation::{BufferedBody, RecordedResponse},
    store::{LeaseConfig, NewOperation, Step},
};

fn next<T>(step: Step<T>) -> Record<T> {
    match step {
        Step::Next(next) => next,
        Step::Done | Step::Lost => panic!("no step"),
    }
}

/// Returns the records of one operation from its creation to its end, with every possible
/// member.
fn life() -> Vec<Record<RecordedResponse>> {
    let at = |second: u64| moment(1_800_000_000_000 + second * 1000);
    let new = NewOperation::new("invoice-7".parse().unwrap())
        .with_owner(Some(Owner::new("\u{fc}ber \"alles\"")))
        .with_method(Method::POST)
        .with_name(Some("render".into()))
        .with_lease(LeaseConfig::new(
            NodeId::named("node 1"),
            Duration::from_secs(30),
        ));
    let node = NodeId::named("node 1");
    let token = FencingToken::from_number(7);
    let pending = Record::create(&new, at(0)).with_holder(token, Some(node));
    let running = next(pending.started(token, at(1)));
    let progress = Progress::from_count(1, 3)
        .with_unit("pages")
        .with_message("\u{1f980}");
    let reported = next(running.reported(token, progress, at(2)));
    let taken = next(reported.reclaimed(&NodeId::named("node 2")));
    let problem = Problem::new(StatusCode::CONFLICT)
        .with_detail("taken")
        .with("code", 0.1);
    let response = Response::builder()
        .status(StatusCode::CONFLICT)
        .header("content-type", "text/plain")
        .header("x-name", b"gr\xfcn".as_slice())
        .body(BufferedBody::from("no"));
    let response = RecordedResponse::new(response.unwrap());
    let failed = Outcome::Failed(Failure::from(problem).with_response(response));
    let ttl = Duration::from_secs(60);
    let ended = next(taken.finished(taken.token(), failed, None, at(3), ttl));
    let succeeded = next(running.finished(token, Outcome::Succeeded(None), None, at(3), ttl));
    let stamp = running.stamp().unwrap();
    let canceled = next(running.force_finished(stamp, Outcome::Canceled, at(3), ttl));
    let ours = Outcome::failed(FailureKind::NotDispatched);
    let ours = next(pending.finished(token, ours, None, at(3), ttl));
    vec![
        pending, running, reported, taken, ended, succeeded, canceled, ours,
    ]
}

/// Returns a record for every further end: each kind of failure, and a cancellation with a
/// reason.
fn ends() -> Vec<Record<RecordedResponse>> {
    let (running, at) = (&life()[1], moment(1_800_000_003_000));
    let ttl = Duration::from_secs(60);
    let failed = FailureKind::ALL.iter().map(|kind| {
        let failed = Outcome::failed(*kind);
        next(running.finished(running.token(), failed, None, at, ttl))
    });
    let canceled = Outcome::CanceledFor("no longer \"needed\"".into());
    let stamp = running.stamp().unwrap();
    let canceled = next(running.force_finished(stamp, canceled, at, ttl));
    failed.chain([canceled]).collect()
}

/// Returns the ends that releases had which wrote format 1.
fn early_ends() -> Vec<Record<RecordedResponse>> {
    let mut ends = ends();
    ends.retain(|record| {
        let kind = record.operation().failure().and_then(Failure::kind);
        let is_later = |kind| {
            matches!(
                kind,
                FailureKind::ResultNotStored | FailureKind::RequestUnreadable
            )
        };
        !kind.is_some_and(is_later)
    });
    ends
}

/// Returns a record for each form of a response.
fn responses() -> Vec<Record<RecordedResponse>> {
    let (running, at) = (&life()[1], moment(1_800_000_003_000));
    let json = format!("[{}]", vec!["3"; 10_000].join(","));
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("7"));
    let mut secret = http::HeaderValue::from_static("token");
    secret.set_sensitive(true);
    let bodies = [
        ("application/json", BufferedBody::from(json)),
        (
            "image/png",
            BufferedBody::new("\u{7f}".into(), Some(trailers)),
        ),
        ("text/plain", BufferedBody::default()),
    ];
    let records = bodies.map(|(media_type, body)| {
        let response = Response::builder()
            .header("content-type", media_type)
            .header("x-secret", secret.clone())
            .header("x-twice", "a")
            .header("x-twice", "b");
        let response = RecordedResponse::new(response.body(body).unwrap());
        let outcome = Outcome::Succeeded(Some(response));
        let ttl = Duration::from_secs(60);
        next(running.finished(running.token(), outcome, None, at, ttl))
    });
    records.into()
}

fn cell(record: &Record<RecordedResponse>) -> Cell {
    Cell {
        head: encode(record).unwrap().into(),
        result: result(record).unwrap(),
    }
}

#[test]
fn records_survive_a_round_trip() {
    for record in life() {
        let back = decode::<RecordedResponse>(cell(&record)).unwrap();
        assert_eq!(back, record);
    }
}

/// Returns the cell as releases wrote it that stored a response as a whole.
fn whole_cell(head: &str, record: &Record<RecordedResponse>) -> Cell {
    let response = record.operation().response();
    Cell {
        head: Bytes::copy_from_slice(head.as_bytes()),
        result: response.map(|response| response.to_bytes().unwrap()),
    }
}

/// Law 10: written records remain readable.
#[test]
fn written_records_have_not_changed() {
    assert_writes(include_str!("../golden/format-2.jsonl"), &life());
}

/// Law 10: kinds and reasons are separate members with stable names.
#[test]
fn written_kinds_and_reasons_have_not_changed() {
    assert_writes(include_str!("../golden/format-2-ends.jsonl"), &ends());
}

fn assert_writes(written: &str, records: &[Record<RecordedResponse>]) {
    assert_eq!(written.lines().count(), records.len());
    for (line, record) in written.lines().zip(records) {
        assert_eq!(line, String::from_utf8(cell(record).head.into()).unwrap());
        let read = decode_part::<RecordedResponse>(cell(record)).unwrap();
        assert_eq!((&read.record, read.is_whole), (record, true));
    }
}

/// Law 10: every member of a response has a stable name.
#[test]
fn written_responses_have_not_changed() {
    assert_writes(
        include_str!("../golden/format-2-responses.jsonl"),
        &responses(),
    );
}

/// Law 10: the first releases wrote no kinds, and stored a response as a whole.
#[test]
fn records_of_the_first_releases_are_read() {
    for (lines, records) in [
        (include_str!("../golden/format-1.jsonl"), life()),
        (include_str!("../golden/format-1-kinds.jsonl"), life()),
        (include_str!("../golden/format-1-ends.jsonl"), early_ends()),
    ] {
        assert_eq!(lines.lines().count(), records.len());
        for (line, record) in lines.lines().zip(&records) {
            let old = whole_cell(line, record);
            assert_eq!(&decode::<RecordedResponse>(old).unwrap(), record);
        }
    }
}

#[test]
fn a_head_says_whether_there_is_a_response_since_format_2() {
    for (line, record) in include_str!("../golden/format-1-kinds.jsonl")
        .lines()
        .zip(life())
    {
        let state = record.operation().state();
        let unread = Cell::new(Bytes::copy_from_slice(line.as_bytes()), None);
        let read = decode_part::<RecordedResponse>(unread).unwrap();
        // A failure of this crate has no response.
        let failure = record.operation().failure();
        let is_ours = failure.is_some_and(|it| it.kind().is_some());
        let may_have_result = matches!(state, State::Succeeded | State::Failed) && !is_ours;
        assert_eq!(read.is_whole, !may_have_result);
        let unread = Cell::new(cell(&record).head, None);
        let read = decode_part::<RecordedResponse>(unread).unwrap();
        let (read, is_whole) = (read.record, read.is_whole);
        let response = record.operation().response();
        let has_response = read.operation().response().is_some();
        assert_eq!((has_response, is_whole), (response.is_some(), true));
        assert_eq!(
            missing_body(&read),
            response.map(RecordedResponse::body_len)
        );
    }
}

/// Returns a head as the first releases wrote it, for a failure with this problem.
fn failed_of_old(problem: &Problem, response: Option<RecordedResponse>) -> Cell {
    let record = life().pop().unwrap();
    let mut head: serde_json::Value = serde_json::from_slice(&cell(&record).head).unwrap();
    let members = head.as_object_mut().unwrap();
    members.remove("kind").unwrap();
    members.insert("problem".into(), serde_json::to_value(problem).unwrap());
    Cell {
        head: head.to_string().into(),
        result: response.map(|response| response.to_bytes().unwrap()),
    }
}

fn failure_in(cell: Cell) -> Failure<RecordedResponse> {
    let record = decode::<RecordedResponse>(cell).unwrap();
    record.operation().failure().unwrap().clone()
}

#[test]
fn old_failures_of_this_crate_and_of_services_are_distinguished() {
    let answered = |status| {
        let mut response = Response::new(BufferedBody::from("{}"));
        *response.status_mut() = status;
        Some(RecordedResponse::new(response))
    };
    for kind in FailureKind::ALL {
        let problem = Problem::from(*kind);
        let ours = failure_in(failed_of_old(&problem, None));
        assert_eq!(ours, Failure::from(*kind));
        let theirs = failure_in(failed_of_old(&problem, answered(kind.status())));
        assert_eq!(theirs.kind(), None);
    }
    let own = Problem::new(StatusCode::CONFLICT);
    assert_eq!(failure_in(failed_of_old(&own, None)).kind(), None);
    let lie = Problem::new(StatusCode::OK);
    let told = failure_in(failed_of_old(&lie, answered(StatusCode::CONFLICT)));
    assert_eq!(told.problem.status(), Some(StatusCode::CONFLICT));
}

#[test]
fn records_are_read_whose_id_has_become_a_reserved_word() {
    for word in ["result", "events", "a word"] {
        let mut head: serde_json::Value = serde_json::from_slice(&cell(&life()[1]).head).unwrap();
        head["id"] = word.into();
        let read = decode::<RecordedResponse>(Cell {
            head: head.to_string().into(),
            result: None,
        });
        assert_eq!(read.unwrap().operation().id().to_string(), word);
    }
}

#[test]
fn problems_of_applications_have_no_kind_whatever_their_type() {
    let running = &life()[1];
    let outcome = Outcome::failed(Problem::from(FailureKind::NotDispatched));
    let ended = running.finished(running.token(), outcome, None, moment(0), Duration::MAX);
    assert_eq!(failure_in(cell(&next(ended))).kind(), None);
}

#[test]
fn failures_survive_a_round_trip() {
    let running = &life()[1];
    for status in [200, 302, 503] {
        let mut response = Response::new(BufferedBody::from("no data"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let problem = Problem::new(StatusCode::CONFLICT);
        let failure = Failure::from(problem).with_response(RecordedResponse::new(response));
        let outcome = Outcome::Failed(failure.clone());
        let ended = running.finished(running.token(), outcome, None, moment(0), Duration::MAX);
        assert_eq!(failure_in(cell(&next(ended))), failure);
    }
}

#[test]
fn unknown_kinds_of_newer_releases_are_read_as_none() {
    let mut head: serde_json::Value =
        serde_json::from_slice(&cell(&life().pop().unwrap()).head).unwrap();
    head["kind"] = "evaporated".into();
    let failure = failure_in(Cell {
        head: head.to_string().into(),
        result: None,
    });
    assert_eq!(failure.kind(), None);
    assert_eq!(failure.problem, FailureKind::NotDispatched.into());
}

#[test]
fn records_that_could_not_be_read_are_not_written() {
    let deep = |levels| (0..levels).fold(serde_json::json!(1), |deep, _| [deep].into());
    let failed = |levels| {
        let problem = Problem::new(StatusCode::CONFLICT).with("deep", deep(levels));
        let running = &life()[1];
        let outcome = Outcome::failed(problem);
        next(running.finished(running.token(), outcome, None, moment(0), Duration::MAX))
    };
    assert_eq!(
        decode::<RecordedResponse>(cell(&failed(100))).unwrap(),
        failed(100)
    );
    assert!(!encode(&failed(127)).unwrap_err().is_transient());
}

#[test]
fn additions_of_newer_releases_are_ignored_and_changes_are_errors() {
    let record = life().remove(1);
    let mut head: serde_json::Value = serde_json::from_slice(&cell(&record).head).unwrap();
    head["color"] = "green".into();
    let of = |head: &serde_json::Value| Cell {
        head: head.to_string().into(),
        result: None,
    };
    assert_eq!(decode::<RecordedResponse>(of(&head)).unwrap(), record);
    for (member, value) in [
        ("format", serde_json::json!(3)),
        ("state", serde_json::json!("paused")),
        ("version", serde_json::json!(0)),
        ("id", serde_json::json!("")),
        ("method", serde_json::json!("\u{e9}")),
    ] {
        let mut head = head.clone();
        head[member] = value;
        let error = decode::<RecordedResponse>(of(&head)).unwrap_err();
        assert!(!error.is_transient(), "{member}");
    }
}

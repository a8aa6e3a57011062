use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Serialize, Serializer};
use tower_operations::{Operation, OperationId, State};

use crate::{EventBody, WebhookId};

/// The event that an operation has ended.
///
/// The body is thin: it says which operation has ended, how, and where it is read. It has neither the
/// result nor the problem, since a receiver may see less than the owner of the operation.
///
/// Id and location identify the operation. If the application sets no
/// [`owner`](tower_operations::Operations::owner), a receiver that has them can read, cancel and
/// delete the operation.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use tower_operations::{Metadata, Operation, Outcome, Snapshot};
/// use tower_operations_webhooks::Event;
///
/// let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_250);
/// let metadata = Metadata::default().with_name("report").with_finished_at(at);
/// let outcome = Outcome::Succeeded(Some("not shown"));
/// let operation = Operation::from_parts("q3".parse()?, Snapshot::new(outcome.into(), metadata));
///
/// let event = Event::from_operation(&operation).expect("the operation has ended");
/// let body = event.with_location("https://api.example.com/operations/q3").to_json();
/// assert_eq!(
///     body.bytes(),
///     concat!(
///         r#"{"type":"operation.succeeded","timestamp":"2026-01-01T00:00:00.250Z","#,
///         r#""data":{"id":"q3","state":"succeeded","name":"report","#,
///         r#""location":"https://api.example.com/operations/q3"}}"#,
///     ),
/// );
/// # Ok::<(), tower_operations::InvalidId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    event_type: EventType,
    timestamp: Rfc3339,
    data: EventData,
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum EventType {
    #[serde(rename = "operation.succeeded")]
    Succeeded,
    #[serde(rename = "operation.failed")]
    Failed,
    #[serde(rename = "operation.canceled")]
    Canceled,
}

/// The data of an event: members of the operation's JSON, and its location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct EventData {
    id: OperationId,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Rfc3339>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Rfc3339>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Rfc3339>,
}

/// A time, written after RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rfc3339(SystemTime);

/// The last second that RFC 3339 can represent: its years have four digits.
const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);

impl Rfc3339 {
    fn new(time: SystemTime) -> Self {
        Self(time.clamp(UNIX_EPOCH, UNIX_EPOCH + YEAR_9999))
    }
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(self.0))
    }
}

/// The body in the form that Standard Webhooks recommends.
#[derive(Serialize)]
struct StandardEvent<'a> {
    #[serde(rename = "type")]
    event_type: EventType,
    timestamp: Rfc3339,
    data: &'a EventData,
}

/// The body in the structured mode of CloudEvents.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: EventType,
    subject: &'a OperationId,
    time: Rfc3339,
    datacontenttype: &'static str,
    data: &'a EventData,
}

impl Event {
    /// Returns the event that the operation has ended; `None` if it has not.
    ///
    /// The time of the event is that of the end, and the same for each attempt. If a store keeps no
    /// times, it is the present time.
    #[must_use]
    pub fn from_operation<T>(operation: &Operation<T>) -> Option<Self> {
        let event_type = match operation.state() {
            State::Succeeded => EventType::Succeeded,
            State::Failed => EventType::Failed,
            State::Canceled => EventType::Canceled,
            State::Pending | State::Running => return None,
        };
        let metadata = operation.metadata();
        let ended_at = metadata.finished_at().or(metadata.updated_at());
        let ended_at = ended_at.unwrap_or_else(tower_operations::engine::wall_clock);
        Some(Self {
            event_type,
            timestamp: Rfc3339::new(ended_at),
            data: EventData {
                id: operation.id().clone(),
                state: operation.state(),
                name: metadata.name().map(Into::into),
                location: None,
                created_at: metadata.created_at().map(Rfc3339::new),
                updated_at: metadata.updated_at().map(Rfc3339::new),
                expires_at: metadata.expires_at().map(Rfc3339::new),
            },
        })
    }

    /// Sets the URL at which the operation is read.
    #[must_use]
    pub fn with_location(mut self, location: impl Into<Box<str>>) -> Self {
        self.data.location = Some(location.into());
        self
    }

    /// Returns the body `{"type", "timestamp", "data"}`.
    #[must_use]
    pub fn to_json(&self) -> EventBody {
        EventBody::json(json(&StandardEvent {
            event_type: self.event_type,
            timestamp: self.timestamp,
            data: &self.data,
        }))
    }

    /// Returns the body as an event of CloudEvents 1.0, in structured mode. The source is a URI reference
    /// that names the sender, for example `https://api.example.com/operations`. The subject is the id of the
    /// operation.
    #[must_use]
    pub fn to_cloud_event(&self, id: &WebhookId, source: &str) -> EventBody {
        EventBody::cloud_event(json(&CloudEvent {
            specversion: "1.0",
            id: id.as_str(),
            source,
            event_type: self.event_type,
            subject: &self.data.id,
            time: self.timestamp,
            datacontenttype: "application/json",
            data: &self.data,
        }))
    }
}

fn json(event: &impl Serialize) -> Bytes {
    let text = serde_json::to_vec(event).expect("an event has no map and no fallible part");
    text.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tower_operations::{Metadata, Outcome, Problem, Snapshot, Status};

    use super::*;

    fn operation(status: Status<u32>) -> Operation<u32> {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let metadata = Metadata::default()
            .with_name("a \"report\"")
            .with_created_at(at(1000))
            .with_updated_at(at(2345))
            .with_finished_at(at(2345))
            .with_expires_at(at(4000));
        Operation::from_parts("a.b".parse().unwrap(), Snapshot::new(status, metadata))
    }

    fn parsed(body: &EventBody) -> Value {
        serde_json::from_slice(body.bytes()).unwrap()
    }

    #[test]
    fn each_end_is_an_event() {
        let problem = Problem::new(http::StatusCode::CONFLICT).with_detail("not for receivers");
        for (outcome, state) in [
            (Outcome::Succeeded(Some(42)), "succeeded"),
            (Outcome::failed(problem), "failed"),
            (Outcome::Canceled, "canceled"),
            (Outcome::CanceledFor("not for receivers".into()), "canceled"),
        ] {
            let event = Event::from_operation(&operation(outcome.into())).unwrap();
            let expected = json!({
                "type": format!("operation.{state}"),
                "timestamp": "1970-01-01T00:00:02.345Z",
                "data": {
                    "id": "a.b",
                    "state": state,
                    "name": "a \"report\"",
                    "created_at": "1970-01-01T00:00:01.000Z",
                    "updated_at": "1970-01-01T00:00:02.345Z",
                    "expires_at": "1970-01-01T00:00:04.000Z",
                },
            });
            assert_eq!(parsed(&event.to_json()), expected);
        }
        for status in [Status::Pending, Status::Running] {
            assert_eq!(Event::from_operation(&operation(status)), None);
        }
    }

    #[test]
    fn the_data_is_that_of_the_operation() {
        let operation = operation(Outcome::Canceled.into());
        let event = Event::from_operation(&operation).unwrap();
        let expected = serde_json::to_value(&operation).unwrap();
        assert_eq!(parsed(&event.to_json())["data"], expected);
    }

    #[test]
    fn an_event_can_be_a_cloud_event() {
        let event = Event::from_operation(&operation(Outcome::Canceled.into())).unwrap();
        let event = event.with_location("/operations/a.b");
        let body = event.to_cloud_event(&"msg_1".parse().unwrap(), "https://api.example.com");
        assert_eq!(body.content_type(), "application/cloudevents+json");
        let value = parsed(&body);
        assert_eq!(value["data"]["location"], "/operations/a.b");
        assert_eq!(value["data"], parsed(&event.to_json())["data"]);
        let mut head = value;
        head.as_object_mut().unwrap().remove("data");
        let expected = json!({
            "specversion": "1.0",
            "id": "msg_1",
            "source": "https://api.example.com",
            "type": "operation.canceled",
            "subject": "a.b",
            "time": "1970-01-01T00:00:02.345Z",
            "datacontenttype": "application/json",
        });
        assert_eq!(head, expected);
    }

    #[test]
    fn times_outside_of_the_format_do_not_panic() {
        let metadata = Metadata::default()
            .with_created_at(UNIX_EPOCH - Duration::from_secs(1))
            .with_finished_at(UNIX_EPOCH + Duration::from_secs(1 << 50));
        let snapshot = Snapshot::new(Outcome::<u32>::Canceled.into(), metadata);
        let operation = Operation::from_parts("a".parse().unwrap(), snapshot);
        let value = parsed(&Event::from_operation(&operation).unwrap().to_json());
        assert_eq!(value["timestamp"], "9999-12-31T23:59:59.000Z");
        assert_eq!(value["data"]["created_at"], "1970-01-01T00:00:00.001Z");
    }

    #[test]
    fn an_operation_without_times_has_an_event() {
        let operation = Operation::from_parts("a".parse().unwrap(), Outcome::Succeeded(Some(1)));
        let value = parsed(&Event::from_operation(&operation).unwrap().to_json());
        assert_eq!(value["data"], json!({ "id": "a", "state": "succeeded" }));
        let timestamp = value["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(timestamp).unwrap() <= SystemTime::now());
    }
}

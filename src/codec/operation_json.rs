//! The flat JSON of an operation: `id`, `state`, `name`, `result`, `problem`, `reason`,
//! `progress` and the times, each only if present.
//!
//! The JSON is written by hand, since serde cannot embed the bytes of a recorded body.
//! `Serialize` and `Deserialize` of [`Operation`] use the same form.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    json_syntax::{is_shallow, push_string},
    timestamp::{Rfc3339, Timestamp, serde_rfc3339},
};
use crate::operation::{
    Embedding, Metadata, Operation, OperationId, OperationView, Outcome, PayloadView, Problem,
    Progress, RecordedResponse, Snapshot, State, Status,
};

/// Writes the JSON to a new buffer with room for `more` further bytes.
pub(crate) fn operation_json(
    operation: &OperationView<'_>,
    inline_limit: usize,
    more: usize,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::with_capacity(length(operation) + more);
    push_operation(operation, inline_limit, &mut text)?;
    Ok(text)
}

pub(crate) fn push_operation(
    operation: &OperationView<'_>,
    inline_limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    out.extend_from_slice(b"{\"id\":\"");
    operation.id().push_to(out);
    out.extend_from_slice(b"\",\"state\":\"");
    out.extend_from_slice(operation.state().as_str().as_bytes());
    out.push(b'"');
    let metadata = operation.metadata();
    if let Some(name) = metadata.name() {
        out.extend_from_slice(b",\"name\":");
        push_string(name, out);
    }
    if operation.state() == State::Succeeded {
        let before = out.len();
        out.extend_from_slice(b",\"result\":");
        if !push_result(operation, inline_limit, out)? {
            out.truncate(before);
        }
    }
    if let Some(problem) = operation.problem() {
        out.extend_from_slice(b",\"problem\":");
        serde_json::to_writer(&mut *out, problem)?;
    }
    if let Some(reason) = operation.reason() {
        out.extend_from_slice(b",\"reason\":");
        push_string(reason, out);
    }
    if let Some(progress) = metadata.progress() {
        out.extend_from_slice(b",\"progress\":");
        serde_json::to_writer(&mut *out, progress)?;
    }
    let mut clock = Rfc3339::new();
    for (name, at) in times(metadata) {
        if let Some(at) = at {
            // The member is composed on the stack and appended in one piece.
            let mut member = TIME;
            member[2..12].copy_from_slice(name);
            member[15..39].copy_from_slice(clock.text(at));
            out.extend_from_slice(&member);
        }
    }
    out.push(b'}');
    Ok(())
}

/// Returns the length of the JSON. It is exact if a result is already JSON and there is no
/// problem or progress; a buffer without spare capacity becomes a body without another
/// allocation.
fn length(operation: &OperationView<'_>) -> usize {
    let around = r#"{"id":"","state":""}"#.len();
    let names = operation.id().text_len() + operation.state().as_str().len();
    let result = match operation.recorded() {
        Some(recorded) => ",\"result\":".len() + recorded.body().map_or(0, <[u8]>::len),
        None => 0,
    };
    let metadata = operation.metadata();
    let more = match operation.problem().is_some() || metadata.progress().is_some() {
        true => 256,
        false => 0,
    };
    let quoted = |member: &str, text: Option<&str>| text.map_or(0, |it| member.len() + it.len());
    let name = quoted(",\"name\":\"\"", metadata.name());
    let reason = quoted(",\"reason\":\"\"", operation.reason());
    let times = times(metadata)
        .iter()
        .filter(|(_, at)| at.is_some())
        .count();
    around + names + name + result + reason + more + times * TIME.len()
}

const TIME: [u8; 40] = *br#","__________":"0000-00-00T00:00:00.000Z""#;

fn times(metadata: &Metadata) -> [(&'static [u8; 10], Option<Timestamp>); 3] {
    [
        (b"created_at", metadata.created_at),
        (b"updated_at", metadata.updated_at),
        (b"expires_at", metadata.expires_at),
    ]
}

pub(crate) fn push_result(
    operation: &OperationView<'_>,
    inline_limit: usize,
    out: &mut Vec<u8>,
) -> Result<bool, serde_json::Error> {
    match operation.response() {
        None => Ok(false),
        Some(PayloadView::Response(recorded)) => write_recorded(recorded, inline_limit, out),
        Some(PayloadView::Json(value)) => {
            let before = out.len();
            value.to_json(out)?;
            let fits = out.len() - before <= inline_limit;
            if !fits {
                out.truncate(before);
            }
            Ok(fits)
        }
    }
}

fn write_recorded(
    recorded: &RecordedResponse,
    inline_limit: usize,
    out: &mut Vec<u8>,
) -> Result<bool, serde_json::Error> {
    let Some(body) = recorded.body().filter(|it| it.len() <= inline_limit) else {
        return Ok(false);
    };
    match recorded.embed() {
        Embedding::JsonOfAnyDepth if !is_shallow(body) => return Ok(false),
        Embedding::Json | Embedding::JsonOfAnyDepth => out.extend_from_slice(body),
        Embedding::Text => serde_json::to_writer(out, &String::from_utf8_lossy(body))?,
        Embedding::No => return Ok(false),
    }
    Ok(true)
}

/// The flat form for serde.
#[derive(Serialize, Deserialize)]
struct FlatOperation<Id, T, P, G, S> {
    id: Id,
    state: State,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    name: Option<S>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    result: Option<T>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    problem: Option<P>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    reason: Option<S>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    progress: Option<G>,
    #[serde(flatten)]
    times: Times,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Serialize, Deserialize)]
struct Times {
    #[serde(
        default,
        with = "serde_rfc3339",
        skip_serializing_if = "Option::is_none"
    )]
    created_at: Option<SystemTime>,
    #[serde(
        default,
        with = "serde_rfc3339",
        skip_serializing_if = "Option::is_none"
    )]
    updated_at: Option<SystemTime>,
    #[serde(
        default,
        with = "serde_rfc3339",
        skip_serializing_if = "Option::is_none"
    )]
    expires_at: Option<SystemTime>,
}

impl<T: Serialize> Serialize for Operation<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata = self.metadata();
        FlatOperation {
            id: self.id(),
            state: self.state(),
            name: metadata.name(),
            result: self.result(),
            problem: self.problem(),
            reason: self.reason(),
            progress: metadata.progress(),
            times: Times {
                created_at: metadata.created_at(),
                updated_at: metadata.updated_at(),
                expires_at: metadata.expires_at(),
            },
        }
        .serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Operation<T> {
    /// # Errors
    /// Returns an error for an unknown state, a result without success, a problem without
    /// failure, a failure without a problem, or a reason without a cancellation.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = FlatOperation::<OperationId, T, Problem, Progress, Box<str>>::deserialize(
            deserializer,
        )?;
        if flat.reason.is_some() && flat.state != State::Canceled {
            return Err(de::Error::custom("only a canceled operation has a reason"));
        }
        let status = match (flat.state, flat.result, flat.problem) {
            (State::Pending, None, None) => Status::Pending,
            (State::Running, None, None) => Status::Running,
            (State::Succeeded, result, None) => Outcome::Succeeded(result).into(),
            (State::Failed, None, Some(problem)) => Outcome::failed(problem).into(),
            (State::Canceled, None, None) => match flat.reason {
                Some(reason) => Outcome::CanceledFor(reason).into(),
                None => Outcome::Canceled.into(),
            },
            (State::Failed, None, None) => {
                return Err(de::Error::custom("a failed operation has a problem"));
            }
            (_, Some(_), _) => {
                return Err(de::Error::custom("only a succeeded operation has a result"));
            }
            (_, _, Some(_)) => {
                return Err(de::Error::custom("only a failed operation has a problem"));
            }
        };
        let mut metadata = Metadata::default();
        let Times {
            created_at,
            updated_at,
            expires_at,
        } = flat.times;
        if let Some(at) = created_at {
            metadata = metadata.with_created_at(at);
        }
        if let Some(at) = updated_at {
            metadata = metadata.with_updated_at(at);
        }
        if let Some(at) = expires_at {
            metadata = metadata.with_expires_at(at);
        }
        if let Some(name) = flat.name {
            metadata = metadata.with_name(name);
        }
        if let Some(progress) = flat.progress {
            metadata = metadata.with_progress(progress);
        }
        Ok(Self::from_parts(flat.id, Snapshot { status, metadata }))
    }
}

#[cfg(test)]
mod tests;

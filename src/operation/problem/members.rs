//! The JSON members of a problem.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use serde_json::Value;

use super::{Members, Problem};

pub(super) const STANDARD: [&str; 5] = ["type", "title", "status", "detail", "instance"];

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Members {
            kind,
            title,
            status,
            detail,
            instance,
            extensions,
        } = &*self.0;
        let mut map = serializer.serialize_map(None)?;
        if let Some(kind) = kind {
            map.serialize_entry("type", kind)?;
        }
        if let Some(title) = title {
            map.serialize_entry("title", title)?;
        }
        if let Some(status) = status {
            map.serialize_entry("status", &status.as_u16())?;
        }
        if let Some(detail) = detail {
            map.serialize_entry("detail", detail)?;
        }
        if let Some(instance) = instance {
            map.serialize_entry("instance", instance)?;
        }
        for (name, value) in extensions {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Object(mut members) = Value::deserialize(deserializer)? else {
            return Err(de::Error::custom("a problem is a JSON object"));
        };
        let mut text = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Some(text.into_boxed_str()),
            _ => None,
        };
        let [kind, title, detail, instance] =
            ["type", "title", "detail", "instance"].map(&mut text);
        let status = members
            .remove("status")
            .and_then(|status| status.as_u64())
            .and_then(|status| u16::try_from(status).ok())
            .and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Self(Arc::new(Members {
            kind,
            title,
            status,
            detail,
            instance,
            extensions: members,
        })))
    }
}

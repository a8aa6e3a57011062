//! Bytes and text: stored results, header fields, the JSON of operations, times and numbers.

mod base64;
mod digits;
mod header_block;
mod json_syntax;
mod operation_json;
mod response_head;
mod stored;
mod timestamp;

pub(crate) use base64::push_base64;
pub(crate) use digits::{push_number, put_number};
pub(crate) use header_block::{HeaderBlock, HeaderFields, has_field, put_fields};
pub(crate) use json_syntax::{is_json, is_json_down_to, push_string};
pub(crate) use operation_json::{operation_json, push_operation, push_result};
pub(crate) use response_head::ResponseHead;
pub use stored::Stored;
pub(crate) use timestamp::{Timestamp, http_date, push_rfc3339};

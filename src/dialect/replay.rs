use std::{fmt, sync::Arc};

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{self, CACHE_CONTROL},
};

use crate::operation::{RecordedResponse, WholeBody};

/// Which header fields of a recorded response the result resource repeats.
///
/// By default all but those of [`not_replayed`].
#[derive(Clone)]
pub struct Replay(Arc<dyn Fn(&HeaderName) -> bool + Send + Sync>);

/// The fields that belong to the moment of the first answer, or to its
/// connection: `Set-Cookie`, `Date`, `Access-Control-*`, `Accept-Ranges` and
/// `Alt-Svc`.
#[must_use]
pub fn not_replayed(name: &HeaderName) -> bool {
    [
        header::SET_COOKIE,
        header::DATE,
        header::ACCEPT_RANGES,
        header::ALT_SVC,
    ]
    .contains(name)
        || name.as_str().starts_with("access-control-")
}

impl Default for Replay {
    fn default() -> Self {
        Self::only(|name| !not_replayed(name))
    }
}

impl Replay {
    /// Repeats the fields for which `keep` holds.
    #[must_use]
    pub fn only(keep: impl Fn(&HeaderName) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(keep))
    }

    /// The recorded response as it was, without the fields that are not
    /// repeated, and with `Cache-Control: private, no-store`. What is no final response,
    /// of a status from 200 to 599, is sent as 500.
    #[must_use]
    pub fn response(&self, recorded: &RecordedResponse) -> Response<WholeBody> {
        let mut response = recorded.to_response();
        if !recorded.is_final() {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        let headers = response.headers_mut();
        let dropped: Vec<HeaderName> = headers
            .keys()
            .filter(|name| !(self.0)(name))
            .cloned()
            .collect();
        for name in dropped {
            headers.remove(name);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        response
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

use std::{fmt, sync::Arc, time::SystemTime};

use http::Method;

use super::{Progress, State};
use crate::codec::Timestamp;

/// The metadata of an operation: times, progress, the method of the request and a name.
/// Every part is optional, since a custom store may not keep it.
///
/// Times are stored in whole milliseconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) updated_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    pub(crate) expires_at: Option<Timestamp>,
    progress: Option<Box<Progress>>,
    method: Option<CompactMethod>,
    name: Option<Arc<str>>,
}

/// A method that takes less space than [`Method`].
#[derive(Clone, PartialEq)]
enum CompactMethod {
    /// A standard method, by its index in [`USUAL`].
    Usual(u8),
    Other(Box<Method>),
}

static USUAL: [Method; 9] = [
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];

impl From<Method> for CompactMethod {
    fn from(method: Method) -> Self {
        match USUAL.iter().position(|usual| *usual == method) {
            Some(place) => Self::Usual(place as u8),
            None => Self::Other(Box::new(method)),
        }
    }
}

impl CompactMethod {
    fn method(&self) -> &Method {
        match self {
            Self::Usual(place) => &USUAL[usize::from(*place)],
            Self::Other(method) => method,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Usual(_) => 0,
            Self::Other(method) => size_of::<Method>() + method.as_str().len(),
        }
    }
}

impl fmt::Debug for CompactMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.method().fmt(f)
    }
}

macro_rules! times {
    ($($field:ident, $with:ident, $what:literal;)*) => {
        $(
            #[doc = concat!("Returns when the operation ", $what, ".")]
            #[must_use]
            pub fn $field(&self) -> Option<SystemTime> {
                self.$field.map(Into::into)
            }

            #[doc = concat!("Sets when the operation ", $what, ".")]
            #[must_use]
            pub fn $with(mut self, at: SystemTime) -> Self {
                self.$field = Some(at.into());
                self
            }
        )*
    };
}

impl Metadata {
    times! {
        created_at, with_created_at, "was accepted";
        updated_at, with_updated_at, "last changed";
        started_at, with_started_at, "left `pending` for `running`";
        finished_at, with_finished_at, "reached its terminal state";
        expires_at, with_expires_at, "expires";
    }

    /// Returns the progress.
    #[must_use]
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_deref()
    }

    /// Sets the progress.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Returns the method of the accepted request.
    #[must_use]
    pub fn method(&self) -> Option<&Method> {
        self.method.as_ref().map(CompactMethod::method)
    }

    /// Sets the method of the accepted request.
    #[must_use]
    pub fn with_method(mut self, method: Method) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Returns the name that the application gave to this kind of operation.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Sets the name of this kind of operation.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Returns the time of the last change in milliseconds after 1970; 0 if it is unknown.
    pub(crate) fn updated_millis(&self) -> u64 {
        self.updated_at.map_or(0, Timestamp::millis)
    }

    /// Returns the metadata from before the operation ended: as of the change at `at`, with
    /// the given progress.
    pub(crate) fn before_its_end(
        &self,
        at: Option<SystemTime>,
        progress: Option<Progress>,
        had_started: bool,
    ) -> Self {
        Self {
            updated_at: at.map(Into::into),
            started_at: self.started_at.filter(|_| had_started),
            finished_at: None,
            expires_at: None,
            progress: progress.map(Box::new),
            ..self.clone()
        }
    }

    /// Returns the metadata from when the operation was accepted.
    pub(crate) fn as_created(&self) -> Self {
        Self {
            created_at: self.created_at,
            updated_at: self.created_at,
            method: self.method.clone(),
            name: self.name.clone(),
            ..Self::default()
        }
    }

    /// Records the time of the transition to `state`.
    pub(super) fn moved_to(&mut self, state: State, at: SystemTime) {
        let at = Some(at.into());
        self.updated_at = at;
        match state {
            State::Pending => {}
            State::Running => self.started_at = at,
            State::Succeeded | State::Failed | State::Canceled => self.finished_at = at,
        }
    }

    /// Returns the size on the heap in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let progress = self.progress.as_ref();
        let method = self.method.as_ref();
        progress.map_or(0, |progress| size_of::<Progress>() + progress.heap_bytes())
            + method.map_or(0, CompactMethod::heap_bytes)
    }
}

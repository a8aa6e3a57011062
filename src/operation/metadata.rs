use std::{num::NonZeroU8, sync::Arc, time::SystemTime};

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
    method: Option<StandardMethod>,
    /// The parts that few operations have; `None` if there are none. Clones share them.
    rare: Option<Arc<RareMetadata>>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct RareMetadata {
    progress: Option<Box<Progress>>,
    name: Option<Arc<str>>,
    /// A method that is not a standard one.
    method: Option<Method>,
}

impl RareMetadata {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A standard method, by its position in [`STANDARD`], counted from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
struct StandardMethod(NonZeroU8);

static STANDARD: [Method; 9] = [
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

impl StandardMethod {
    fn from_method(method: &Method) -> Option<Self> {
        let place = STANDARD.iter().position(|standard| standard == method)?;
        NonZeroU8::new(place as u8 + 1).map(Self)
    }

    fn method(self) -> &'static Method {
        &STANDARD[usize::from(self.0.get()) - 1]
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

    /// Sets when the operation was accepted and last changed, and when it was started if it is
    /// running.
    pub(crate) fn with_times_of_creation(mut self, at: SystemTime, is_running: bool) -> Self {
        let at = Some(at.into());
        (self.created_at, self.updated_at) = (at, at);
        self.started_at = at.filter(|_| is_running);
        self
    }

    /// Returns the progress.
    #[must_use]
    pub fn progress(&self) -> Option<&Progress> {
        self.rare.as_ref()?.progress.as_deref()
    }

    /// Sets the progress.
    #[must_use]
    pub fn with_progress(self, progress: Progress) -> Self {
        self.with_rare(|rare| rare.progress = Some(Box::new(progress)))
    }

    /// Returns the method of the accepted request.
    #[must_use]
    pub fn method(&self) -> Option<&Method> {
        match self.method {
            Some(standard) => Some(standard.method()),
            None => self.rare.as_ref()?.method.as_ref(),
        }
    }

    /// Sets the method of the accepted request.
    #[must_use]
    pub fn with_method(mut self, method: Method) -> Self {
        self.method = StandardMethod::from_method(&method);
        match self.method {
            Some(_) if self.rare.is_none() => self,
            Some(_) => self.with_rare(|rare| rare.method = None),
            None => self.with_rare(|rare| rare.method = Some(method)),
        }
    }

    /// Returns the name that the application gave to this kind of operation.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.rare.as_ref()?.name.as_deref()
    }

    /// Sets the name of this kind of operation.
    #[must_use]
    pub fn with_name(self, name: impl Into<Arc<str>>) -> Self {
        self.with_rare(|rare| rare.name = Some(name.into()))
    }

    /// Changes the parts that few operations have.
    fn with_rare(mut self, change: impl FnOnce(&mut RareMetadata)) -> Self {
        let rare = Arc::make_mut(self.rare.get_or_insert_default());
        change(rare);
        if rare.is_empty() {
            self.rare = None;
        }
        self
    }

    /// Replaces the progress, also by none.
    fn replacing_progress(self, progress: Option<Progress>) -> Self {
        match (&self.rare, &progress) {
            (None, None) => self,
            _ => self.with_rare(|rare| rare.progress = progress.map(Box::new)),
        }
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
            ..self.clone()
        }
        .replacing_progress(progress)
    }

    /// Returns the metadata from when the operation was accepted.
    pub(crate) fn as_created(&self) -> Self {
        Self {
            created_at: self.created_at,
            updated_at: self.created_at,
            method: self.method,
            rare: self.rare.clone(),
            ..Self::default()
        }
        .replacing_progress(None)
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
        let Some(rare) = &self.rare else { return 0 };
        let progress = rare.progress.as_ref();
        let method = rare.method.as_ref();
        size_of::<RareMetadata>()
            + progress.map_or(0, |progress| size_of::<Progress>() + progress.heap_bytes())
            + method.map_or(0, |method| method.as_str().len())
    }
}

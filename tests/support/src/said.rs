//! Log lines, collected for a test.

use std::{
    fmt, io,
    sync::{Arc, Mutex},
};

use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{layer::Context, prelude::*};

/// The events at a level or above, as one line each.
#[derive(Clone)]
pub struct Said {
    lines: Arc<Mutex<Vec<String>>>,
    from: Level,
}

impl Said {
    pub fn from(from: Level) -> (Self, tracing::subscriber::DefaultGuard) {
        let said = Self {
            lines: Arc::default(),
            from,
        };
        let subscriber = tracing_subscriber::registry().with(said.clone());
        (said, tracing::subscriber::set_default(subscriber))
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Said {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!(" {field}={value:?}"));
            }
        }
        if *event.metadata().level() <= self.from {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.lines.lock().unwrap().push(line.0);
        }
    }
}

/// The log output as it is written.
#[derive(Clone, Default)]
pub struct LogOutput(Arc<Mutex<Vec<u8>>>);

impl LogOutput {
    /// Collects the output of this thread until the guard is dropped.
    pub fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the output since the last call.
    pub fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for LogOutput {
    fn write(&mut self, some: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

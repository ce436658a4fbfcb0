//! Events of the log for the admin API: those that have a name.

use std::{collections::BTreeMap, error::Error, fmt, sync::Arc, time::SystemTime};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::admin::{EventLog, EventRecord, Level};

/// Hands events over. Whatever the log's level is, those of level info and above.
#[derive(Debug)]
pub struct EventLayer(pub Arc<EventLog>);

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let level = match level {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            _ => return,
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(name) = fields.0.remove("event") else {
            return;
        };
        self.0.add(EventRecord {
            at: SystemTime::now(),
            level,
            name,
            message: fields.0.remove("message").unwrap_or_default(),
            fields: fields.0,
        });
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0.insert(field.name(), value.to_string());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Registry, layer::SubscriberExt as _};

    use super::*;

    #[test]
    fn what_has_a_name_is_handed_over_with_its_fields() {
        let log = Arc::new(EventLog::new(SystemTime::UNIX_EPOCH));
        let subscriber = Registry::default().with(EventLayer(Arc::clone(&log)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(event = "server_down", backend = %"web", eligible = 2, "server {} is down", "a");
            tracing::info!("nameless");
            tracing::debug!(event = "detail", "not for operators");
        });
        let found = log.after(Some(0), 10, |_| true);
        let [(1, event)] = &found.events[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            (event.name.as_str(), event.level, event.message.as_str()),
            ("server_down", Level::Warning, "server a is down")
        );
        let fields: Vec<_> = event
            .fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(fields, [("backend", "web"), ("eligible", "2")]);
    }
}

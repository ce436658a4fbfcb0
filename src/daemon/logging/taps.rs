//! The logging thread's part of other places than the journal: it makes the lines and hands them over in batches.

use std::{sync::Arc, time::SystemTime};

#[cfg(feature = "otlp")]
use super::record;
use super::{
    access,
    output::JsonLines,
    outputs::{Routes, sender},
    queue::LogQueueState,
    sink::{Batch, Place, Sink},
    syslog,
};
use crate::{
    base::AccessRecord,
    config::{AccessLog, LogFormat, SyslogServer},
};

/// Lines that are made, by place.
pub struct Taps {
    routes: Arc<Routes>,
    batches: Vec<(Arc<Sink>, Batch)>,
    json: JsonLines,
    sender: syslog::Sender,
}

/// A record in the forms that are wanted, each made once.
struct Forms<'a> {
    at: SystemTime,
    record: &'a AccessRecord,
    text: Option<Vec<u8>>,
    json: Option<Vec<u8>>,
}

impl Taps {
    /// Those of the routes in effect.
    pub fn new(shared: &LogQueueState) -> Self {
        Self {
            routes: shared.routes(),
            batches: Vec::new(),
            json: JsonLines::new(),
            sender: sender(),
        }
    }

    /// Goes by the routes that are in effect now. What is made must have been handed over.
    pub fn follow(&mut self, shared: &LogQueueState) {
        self.routes = shared.routes();
        // the last lines of a place are with its actor, which ends by itself
        self.batches.clear();
    }

    /// Makes the lines of a record that ended at a time; which records go to the journal.
    pub fn take(&mut self, at: SystemTime, record: &AccessRecord) -> AccessLog {
        let route = self.routes.of(&record.frontend);
        let mut forms = Forms {
            at,
            record,
            text: None,
            json: None,
        };
        for sink in &route.sinks {
            let known = self
                .batches
                .iter()
                .position(|(known, _)| Arc::ptr_eq(known, sink));
            let index = known.unwrap_or_else(|| {
                self.batches.push((Arc::clone(sink), Batch::default()));
                self.batches.len() - 1
            });
            if let Some((sink, batch)) = self.batches.get_mut(index) {
                write(batch, &sink.state().place, &mut forms, &self.json, &self.sender);
            }
        }
        route.journal
    }

    /// Hands over what is made.
    pub fn flush(&mut self) {
        for (sink, batch) in &mut self.batches {
            if batch.len() > 0 {
                sink.hand_over(std::mem::take(batch));
            }
        }
    }
}

/// Adds the line of a record in the form of a place.
fn write(batch: &mut Batch, place: &Place, forms: &mut Forms<'_>, json: &JsonLines, sender: &syslog::Sender) {
    let (at, reason) = (forms.at, forms.record.reason);
    match place {
        Place::File(_, format) => {
            batch.bytes.extend_from_slice(forms.of(*format, json));
            batch.bytes.push(b'\n');
        }
        Place::Syslog(SyslogServer::Unix(_), facility, format) => {
            let text = forms.of(*format, json);
            sender.write_local(&mut batch.bytes, *facility, reason, text);
        }
        Place::Syslog(_, facility, format) => {
            let text = forms.of(*format, json);
            sender.write(&mut batch.bytes, at, *facility, reason, text);
        }
        #[cfg(feature = "otlp")]
        Place::Otlp(_) => record::write(&mut batch.bytes, at, forms.record),
    }
    batch.end_line();
}

impl Forms<'_> {
    fn of(&mut self, format: LogFormat, json: &JsonLines) -> &[u8] {
        let (at, record) = (self.at, self.record);
        match format {
            LogFormat::Text => self
                .text
                .get_or_insert_with(|| access::Line(record).to_string().into_bytes()),
            LogFormat::Json => self.json.get_or_insert_with(|| json.line(at, record)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Facility, HostPort},
        daemon::logging::sink::Message,
    };

    #[test]
    fn each_place_gets_its_own_form_of_a_line() {
        let to = HostPort {
            host: "192.0.2.9".parse().unwrap(),
            port: 514,
        };
        let udp = SyslogServer::Udp(to);
        let unix = SyslogServer::Unix("unix:/dev/log".parse().unwrap());
        let (at, record) = (SystemTime::UNIX_EPOCH, access::tests::record());
        let mut forms = Forms {
            at,
            record: &record,
            text: None,
            json: None,
        };
        let (json, sender) = (JsonLines::new(), syslog::Sender::new("lb", 7));
        let mut line = |place: Place| {
            let mut batch = Batch::default();
            write(&mut batch, &place, &mut forms, &json, &sender);
            assert_eq!(batch.len(), 1);
            String::from_utf8(batch.bytes).unwrap()
        };
        let text = access::Line(&record).to_string();
        assert_eq!(
            line(Place::File("/x".into(), LogFormat::Text)),
            format!("{text}\n")
        );
        let json = line(Place::File("/x".into(), LogFormat::Json));
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&read["frontend"], &read["bytes_out"]),
            (&"fnt".into(), &212.into())
        );
        assert!(json.ends_with("}\n") && json.lines().count() == 1, "{json}");
        assert_eq!(
            line(Place::Syslog(udp, Facility::Daemon, LogFormat::Text)),
            format!("<30>1 1970-01-01T00:00:00.000Z lb convey 7 access - {text}")
        );
        assert_eq!(
            line(Place::Syslog(unix, Facility::Daemon, LogFormat::Text)),
            format!("<30>convey[7]: {text}")
        );
    }

    #[test]
    fn what_is_made_is_handed_over_at_once() {
        let shared = LogQueueState::default();
        let (sink, mut inbox) = Sink::new(Place::File("/x".into(), LogFormat::Text));
        let mut taps = Taps::new(&shared);
        taps.batches.push((Arc::clone(&sink), Batch::default()));
        // of a frontend that no configuration has: the journal's alone
        assert_eq!(
            taps.take(SystemTime::UNIX_EPOCH, &access::tests::record()),
            AccessLog::All
        );
        taps.flush();
        taps.batches[0].1 = crate::daemon::logging::sink::tests::batch(&["a\n", "b\n"]);
        taps.flush();
        drop((sink, taps));
        let Some(Message::Batch(batch)) = inbox.blocking_recv() else {
            panic!("a batch")
        };
        assert_eq!(batch.bytes, b"a\nb\n");
        assert!(inbox.blocking_recv().is_none(), "an empty one is not handed over");
    }
}

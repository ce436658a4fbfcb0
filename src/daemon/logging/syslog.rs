//! Messages of syslog: RFC 5424 for other hosts, and what syslog(3) writes for the socket of this one.

use std::{io::Write as _, time::SystemTime};

use super::time::Utc;
use crate::{base::TerminationReason, config::Facility};

/// How the program is called.
const APP_NAME: &str = "convey";

/// The kind of message, by which receivers tell it from others.
const MESSAGE_ID: &str = "access";

/// Longest name of a host (RFC 5424, section 6).
const HOST_BYTES: usize = 255;

/// Who sends.
#[derive(Debug, Clone)]
pub struct Sender {
    host: String,
    pid: u32,
}

impl Sender {
    /// This process on a host of this name.
    pub fn new(host: &str, pid: u32) -> Self {
        let printable = |c: &char| c.is_ascii_graphic();
        let host: String = host.chars().filter(printable).take(HOST_BYTES).collect();
        Self {
            host: if host.is_empty() { "-".to_owned() } else { host },
            pid,
        }
    }

    /// Writes a message of RFC 5424 about a connection that ended so.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        at: SystemTime,
        facility: Facility,
        reason: TerminationReason,
        text: &[u8],
    ) {
        let (priority, time) = (priority(facility, reason), Utc::from(at));
        // a Vec takes everything
        let _ = write!(
            out,
            "<{priority}>1 {time} {} {APP_NAME} {} {MESSAGE_ID} - ",
            self.host, self.pid
        );
        out.extend_from_slice(text);
    }

    /// Writes a message as this host's own programs do, without a time: who receives it knows that.
    pub fn write_local(&self, out: &mut Vec<u8>, facility: Facility, reason: TerminationReason, text: &[u8]) {
        let _ = write!(out, "<{}>{APP_NAME}[{}]: ", priority(facility, reason), self.pid);
        out.extend_from_slice(text);
    }
}

/// The number before a message (RFC 5424, section 6.2.1).
const fn priority(facility: Facility, reason: TerminationReason) -> u8 {
    const WARNING: u8 = 4;
    const INFO: u8 = 6;
    let severity = if reason.is_orderly() { INFO } else { WARNING };
    facility as u8 * 8 + severity
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_233_922_371_443)
    }

    #[test]
    fn a_message_has_the_header_of_rfc_5424_and_connections_that_failed_are_warnings() {
        let sender = Sender::new("lb1.example.com", 77);
        let mut out = Vec::new();
        sender.write(
            &mut out,
            at(),
            Facility::Local0,
            TerminationReason::Normal,
            b"text",
        );
        sender.write(
            &mut out,
            at(),
            Facility::Daemon,
            TerminationReason::NoServer,
            b"{}",
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<134>1 2009-02-06T12:12:51.443Z lb1.example.com convey 77 access - text\
             <28>1 2009-02-06T12:12:51.443Z lb1.example.com convey 77 access - {}"
        );
    }

    #[test]
    fn a_host_without_a_usable_name_is_a_dash() {
        for (name, shown) in [("", "-"), ("ü", "-"), ("a b\n", "ab")] {
            let mut out = Vec::new();
            Sender::new(name, 1).write(&mut out, at(), Facility::User, TerminationReason::Normal, b"");
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains(&format!("443Z {shown} convey 1 ")), "{text}");
        }
    }

    #[test]
    fn the_socket_of_this_host_gets_what_its_programs_write() {
        let mut out = Vec::new();
        let sender = Sender::new("lb1", 77);
        sender.write_local(&mut out, Facility::Daemon, TerminationReason::Normal, b"text");
        assert_eq!(out, b"<30>convey[77]: text");
    }
}

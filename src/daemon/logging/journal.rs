//! Whether standard error is the journal, and the layer that writes to it.

use std::{env, io};

use nix::sys::stat::fstat;
use tracing_journald::{Layer, Priority, PriorityMappings};

/// The layer for journald, if standard error is connected to it.
///
/// Priorities are syslog's own of the same name; fields get the prefix `CONVEY_`, the message none.
pub fn layer() -> Option<Layer> {
    if !stderr_is_journal() {
        return None;
    }
    // without a journal to talk to, the stream that standard error is still takes text
    let layer = Layer::new().ok()?;
    Some(
        layer
            .with_syslog_identifier("convey".into())
            .with_field_prefix(Some("CONVEY".into()))
            .with_priority_mappings(PriorityMappings {
                error: Priority::Error,
                warn: Priority::Warning,
                info: Priority::Informational,
                debug: Priority::Debug,
                trace: Priority::Debug,
            }),
    )
}

/// systemd.exec(5), `$JOURNAL_STREAM`: device and inode of the stream, to be compared, because the variable is
/// inherited even by processes whose standard error was redirected since.
fn stderr_is_journal() -> bool {
    let Some(stream) = env::var("JOURNAL_STREAM").ok().as_deref().and_then(parse_stream) else {
        return false;
    };
    fstat(io::stderr()).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == stream)
}

fn parse_stream(text: &str) -> Option<(u64, u64)> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_two_numbers() {
        assert_eq!(parse_stream("8:1234"), Some((8, 1234)));
        for odd in ["", "8", "8:", ":1", "a:b", "8:1:2", "-8:1"] {
            assert_eq!(parse_stream(odd), None, "{odd}");
        }
    }
}

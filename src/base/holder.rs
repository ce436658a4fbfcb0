//! Who holds what only one process can have.

use std::fmt;

/// A process that holds what only one can have: the control socket, or the packet modes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Its process id, if the kernel knows it.
    pub pid: Option<i32>,
    /// Its configuration file, if it is a Convey that answers.
    pub config_file: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.config_file {
            Some(_) => f.write_str("a running convey")?,
            None => f.write_str("another process")?,
        }
        match (self.pid, &self.config_file) {
            (Some(pid), Some(file)) => write!(f, " (process {pid}, configuration {file})"),
            (Some(pid), None) => write!(f, " ({pid})"),
            (None, Some(file)) => write!(f, " (configuration {file})"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convey_is_named_by_its_process_and_file_and_a_stranger_by_his_process() {
        let mut holder = Holder {
            pid: Some(7),
            config_file: Some("/etc/convey/convey.toml".to_owned()),
        };
        assert_eq!(
            holder.to_string(),
            "a running convey (process 7, configuration /etc/convey/convey.toml)"
        );
        holder.config_file = None;
        assert_eq!(holder.to_string(), "another process (7)");
    }
}

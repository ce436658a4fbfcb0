//! What this process takes of the machine: CPU time by thread, memory, descriptors.

use std::{collections::BTreeMap, fs, io, time::Duration};

use nix::unistd::{SysconfVar, sysconf};

use super::rlimit;

/// What the process takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// CPU time by the name of the thread; of threads of one name together.
    pub threads: BTreeMap<String, Duration>,
    /// CPU time of all threads, those that have ended included.
    pub cpu: Duration,
    /// Threads.
    pub thread_count: usize,
    /// Memory in RAM, in bytes.
    pub resident: u64,
    /// Address space, in bytes.
    pub virtual_memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

impl Usage {
    /// Reads it of /proc/self.
    ///
    /// # Errors
    /// /proc cannot be read or understood.
    pub fn read() -> io::Result<Self> {
        let unknown = || io::Error::other("a file of /proc/self is not as proc(5) has it");
        let tick = ticks_per_second();
        let mut usage = Self::default();
        let (_, cpu) = parse_stat(&fs::read_to_string("/proc/self/stat")?, tick).ok_or_else(unknown)?;
        usage.cpu = cpu;
        for entry in fs::read_dir("/proc/self/task")? {
            // one that has ended meanwhile
            let Ok(text) = fs::read_to_string(entry?.path().join("stat")) else {
                continue;
            };
            let (name, cpu) = parse_stat(&text, tick).ok_or_else(unknown)?;
            usage.thread_count += 1;
            *usage.threads.entry(name).or_default() += cpu;
        }
        let pages = fs::read_to_string("/proc/self/statm")?;
        let mut pages = pages
            .split_ascii_whitespace()
            .map(|count| count.parse::<u64>().ok());
        let mut bytes = || Some(pages.next()??.saturating_mul(page_bytes()));
        usage.virtual_memory = bytes().ok_or_else(unknown)?;
        usage.resident = bytes().ok_or_else(unknown)?;
        usage.descriptors = rlimit::open_files()?;
        Ok(usage)
    }
}

/// Name and CPU time (user and system, fields 14 and 15) of a line of proc_pid_stat(5). Pure.
fn parse_stat(line: &str, ticks_per_second: u64) -> Option<(String, Duration)> {
    // a name may have spaces and parentheses
    let (begin, end) = (line.find('(')?, line.rfind(')')?);
    let name = line.get(begin + 1..end)?.to_owned();
    let mut fields = line.get(end + 1..)?.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.checked_add(ticks()?)?;
    let millis = ticks.checked_mul(1_000)?.checked_div(ticks_per_second)?;
    Some((name, Duration::from_millis(millis)))
}

fn ticks_per_second() -> u64 {
    configured(SysconfVar::CLK_TCK, 100)
}

fn page_bytes() -> u64 {
    configured(SysconfVar::PAGE_SIZE, 4_096)
}

fn configured(what: SysconfVar, otherwise: u64) -> u64 {
    let value = sysconf(what).ok().flatten();
    value
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_spaces_and_parentheses() {
        let line = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 150 250 0 0 20 0 3 0 9 1 1";
        assert_eq!(
            parse_stat(line, 100),
            Some(("a) b (c)".to_owned(), Duration::from_secs(4)))
        );
        for bad in [
            "",
            "42",
            "42 (x",
            "42 (x) S 1",
            ") (",
            "1 (x) S 1 1 1 0 1 1 1 0 0 0 a b",
        ] {
            assert_eq!(parse_stat(bad, 100), None, "{bad}");
        }
    }

    #[test]
    fn this_process_has_memory_descriptors_and_threads() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident > 100_000 && usage.virtual_memory >= usage.resident);
        assert!(usage.descriptors >= 3 && usage.thread_count >= 1);
        assert!(!usage.threads.is_empty());
    }
}

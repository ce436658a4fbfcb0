//! One family's table raw, by the programs `iptables` or `ip6tables`.

use std::{
    collections::BTreeSet,
    io,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use iptables::IPTables;

use super::{
    FirewallError, Variant,
    chain::{CHAIN, ChainChange, FROM, HeldRules},
    program::{Program, program, text_of},
};
use crate::sys::memfd;

/// Seconds that a program waits for the lock of another one (iptables-legacy), instead of for ever.
const WAIT: &str = "-w 5";
/// How often a change is tried: another program may change the table at the same moment, and iptables-legacy writes
/// back the whole table as it read it, so that one of two changes is lost when they do not share a lock.
const TRIES: u32 = 8;
/// Waited after the first try that failed; twice, three times as long after the next ones.
const PAUSE: Duration = Duration::from_millis(5);

/// The programs of a family: one for single commands, one for all changes at once.
fn programs(variant: Variant, v6: bool) -> (Program, Program) {
    match (variant, v6) {
        (Variant::Default, false) => (program!("iptables"), program!("iptables-restore")),
        (Variant::Default, true) => (program!("ip6tables"), program!("ip6tables-restore")),
        (Variant::Nft, false) => (program!("iptables-nft"), program!("iptables-nft-restore")),
        (Variant::Nft, true) => (program!("ip6tables-nft"), program!("ip6tables-nft-restore")),
        (Variant::Legacy, false) => (program!("iptables-legacy"), program!("iptables-legacy-restore")),
        (Variant::Legacy, true) => (program!("ip6tables-legacy"), program!("ip6tables-legacy-restore")),
    }
}

/// One family's table raw.
pub struct Tables {
    iptables: IPTables,
    restore: Program,
}

impl Tables {
    /// Finds the programs.
    ///
    /// # Errors
    /// [`FirewallError::Missing`].
    pub fn find(variant: Variant, v6: bool) -> Result<Self, FirewallError> {
        let (single, restore) = programs(variant, v6);
        let iptables = IPTables {
            cmd: single.find()?,
            has_check: true,
            // its own `--wait` has no end: WAIT goes into each command instead
            has_wait: false,
            is_numeric: false,
        };
        Ok(Self { iptables, restore })
    }

    /// What is there of ours. A kernel or namespace without the table has nothing; looking does not create it.
    ///
    /// # Errors
    /// The program failed.
    pub fn read(&self) -> Result<HeldRules, FirewallError> {
        // the whole table: iptables-nft answers "incompatible" instead of "no chain" for one that is not there
        match self.run("-S") {
            Ok(listing) => Ok(HeldRules::parse(&listing)),
            Err(FirewallError::Failed { message, .. }) if says_no_table(&message) => Ok(HeldRules::default()),
            Err(error) => Err(error),
        }
    }

    /// Makes the chain hold these rules and be jumped to; whether that took a change. With `only_adding` nothing that is
    /// there goes.
    ///
    /// All of a change comes into force at once or not at all, and is looked at afterwards.
    ///
    /// # Errors
    /// The program failed, or the change did not last.
    pub fn settle(&self, wanted: &BTreeSet<&str>, only_adding: bool) -> Result<bool, FirewallError> {
        let mut failure = None;
        for tried in 0..=TRIES {
            thread::sleep(PAUSE * tried);
            let held = self.read()?;
            let change = ChainChange::between(&held, wanted, only_adding);
            if change.is_nothing() {
                return Ok(tried > 0);
            }
            // the kernel refuses a change, too, when another program made one since the table was read
            failure = self.restore(&change.script()).err();
        }
        Err(failure.unwrap_or_else(|| self.unstable()))
    }

    /// Takes jumps, rules and chain out, if there are any; whether there were. Goes on after an error.
    ///
    /// # Errors
    /// Everything that failed in the last try.
    pub fn clear(&self) -> Result<bool, Vec<FirewallError>> {
        let mut errors = Vec::new();
        for tried in 0..=TRIES {
            thread::sleep(PAUSE * tried);
            let held = self.read().map_err(|error| vec![error])?;
            if held.is_nothing() {
                return Ok(tried > 0);
            }
            let jumps = (0..held.jumps).map(|_| format!("-D {FROM} -j {CHAIN}"));
            let chain = (held.rules.iter()).flat_map(|_| [format!("-F {CHAIN}"), format!("-X {CHAIN}")]);
            errors = (jumps.chain(chain))
                .filter_map(|command| self.run(&command).err())
                .collect();
        }
        if errors.is_empty() {
            errors.push(self.unstable());
        }
        Err(errors)
    }

    /// Whether the program is that of the nft variant.
    ///
    /// # Errors
    /// The program failed.
    pub fn is_nft(&self) -> Result<bool, FirewallError> {
        let failed = |message: String| FirewallError::Failed {
            command: format!("{} --version", self.iptables.cmd),
            message,
        };
        let output = Command::new(self.iptables.cmd).arg("--version").output();
        let version = text_of(&output.map_err(|error| failed(error.to_string()))?).map_err(failed)?;
        Ok(version.contains("nf_tables"))
    }

    fn run(&self, command: &str) -> Result<String, FirewallError> {
        let shown = || format!("{} -t raw {command}", self.iptables.cmd);
        let failed = |message: String| FirewallError::Failed {
            command: shown(),
            message,
        };
        let output = (self.iptables)
            .execute("raw", &format!("{WAIT} {command}"))
            .map_err(|error| failed(error.to_string()))?;
        text_of(&output).map_err(failed)
    }

    fn restore(&self, script: &str) -> Result<(), FirewallError> {
        let program = self.restore.find()?;
        let failed = |message: String| FirewallError::Failed {
            command: format!("{program} --noflush"),
            message,
        };
        let run = || -> io::Result<Output> {
            // a file and not a pipe: nobody waits for anybody, however long script and complaints are
            let input = memfd::sealed(script.as_bytes())?;
            rewind(&input)?;
            Command::new(program)
                .arg("--noflush")
                .args(WAIT.split(' '))
                .stdin(Stdio::from(input))
                .output()
        };
        let output = run().map_err(|error| failed(error.to_string()))?;
        text_of(&output).map(drop).map_err(failed)
    }

    fn unstable(&self) -> FirewallError {
        FirewallError::Failed {
            command: format!("{} -t raw", self.iptables.cmd),
            message: format!(
                "chain {CHAIN} differed from what was written {TRIES} times: another program is changing table raw"
            ),
        }
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables")
            .field("program", &self.iptables.cmd)
            .finish_non_exhaustive()
    }
}

fn rewind(file: &impl std::os::fd::AsFd) -> io::Result<()> {
    nix::unistd::lseek(file, 0, nix::unistd::Whence::SeekSet)?;
    Ok(())
}

/// Whether a complaint means that this kernel or namespace has no table raw of the family.
fn says_no_table(message: &str) -> bool {
    message.contains("can't initialize")
        && ["does not exist", "not supported", "No such file"]
            .iter()
            .any(|reason| message.contains(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_nowhere_is_named_with_its_package() {
        let error = program!("iptables-of-nowhere").find().unwrap_err();
        assert_eq!(
            error.to_string(),
            "iptables-of-nowhere is not installed: apt install iptables"
        );
    }

    #[test]
    fn a_kernel_without_the_table_is_told_from_a_missing_permission() {
        for (message, absent) in [
            (
                "iptables v1.8.9 (legacy): can't initialize iptables table `raw': Table does not exist (do you need to insmod?)",
                true,
            ),
            (
                "ip6tables v1.8.9 (legacy): can't initialize ip6tables table `raw': Address family not supported by protocol",
                true,
            ),
            (
                "iptables v1.8.9 (legacy): can't initialize iptables table `raw': Permission denied (you must be root)",
                false,
            ),
            (
                "Fatal: can't open lock file /run/xtables.lock: Permission denied",
                false,
            ),
        ] {
            assert_eq!(says_no_table(message), absent, "{message}");
        }
    }
}

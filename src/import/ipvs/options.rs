//! One line of `ipvsadm`.

use super::said;
use crate::import::{
    DirectiveId,
    lvs::{Method, Said},
};

/// Which service a command is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// An address.
    Address(Protocol, String),
    /// A firewall mark.
    Mark(String),
}

/// The protocol of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// `-t`.
    Tcp,
    /// `-u`.
    Udp,
    /// `--sctp-service`.
    Sctp,
}

/// What a line does.
#[derive(Debug, Clone)]
pub enum Command {
    /// `-A`.
    AddService,
    /// `-E`.
    EditService,
    /// `-D`.
    DeleteService,
    /// `-a`.
    AddServer,
    /// `-e`.
    EditServer,
    /// `-d`.
    DeleteServer,
    /// `-C`.
    Clear,
    /// `--set`: seconds of TCP, of TCP after a FIN, of UDP.
    Set([Said<u64>; 3]),
    /// `--start-daemon` and `--stop-daemon`.
    Synchronise,
    /// What changes nothing.
    Look,
}

/// A line.
#[derive(Debug)]
pub struct Options {
    /// Its directive.
    pub id: DirectiveId,
    /// What it does.
    pub command: Command,
    /// The service.
    pub target: Option<Said<Target>>,
    /// `-r`.
    pub server: Option<Said<String>>,
    /// `-s`.
    pub scheduler: Option<Said<String>>,
    /// `-b`.
    pub flags: Vec<Said<String>>,
    /// `-p`, with a number or without.
    pub persistent: Option<Said<Option<u64>>>,
    /// `-M`.
    pub netmask: Option<Said<String>>,
    /// `--pe`.
    pub engine: Option<Said<String>>,
    /// `-o`.
    pub one_packet: Option<Said<()>>,
    /// `-g`, `-i`, `-m`.
    pub method: Option<Said<Method>>,
    /// `-w`.
    pub weight: Option<Said<u64>>,
    /// `-x`.
    pub upper: Option<Said<u64>>,
    /// `-y`.
    pub lower: Option<Said<u64>>,
    /// `--tun-type` and its like.
    pub tunnel: Vec<Said<()>>,
}

/// Options with a value after them, or behind `=`, short ones also without a blank between.
const WITH_VALUE: [(&str, &str); 18] = [
    ("-t", "--tcp-service"),
    ("-u", "--udp-service"),
    ("", "--sctp-service"),
    ("-f", "--fwmark-service"),
    ("-s", "--scheduler"),
    ("-M", "--netmask"),
    ("", "--pe"),
    ("-b", "--sched-flags"),
    ("-r", "--real-server"),
    ("-w", "--weight"),
    ("-x", "--u-threshold"),
    ("-y", "--l-threshold"),
    ("", "--tun-type"),
    ("", "--tun-port"),
    ("", "--syncid"),
    ("", "--sync-maxlen"),
    ("", "--mcast-interface"),
    ("", "--mcast-group"),
];

/// Reads a line, with `ipvsadm` at its beginning or without.
///
/// # Errors
/// Why it is no command of `ipvsadm`, in words for a note.
pub fn read(id: DirectiveId, line: &str) -> Result<Options, String> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    while let Some(first) = words.first() {
        let is_program = *first == "sudo" || first.rsplit('/').next() == Some("ipvsadm");
        if !is_program {
            break;
        }
        words.remove(0);
    }
    if !words.first().is_some_and(|word| word.starts_with('-')) {
        return Err(
            "this is not a command of ipvsadm: what a script makes of variables `ipvsadm -Sn` prints"
                .to_owned(),
        );
    }
    let mut options = Options {
        id,
        command: Command::Look,
        target: None,
        server: None,
        scheduler: None,
        flags: Vec::new(),
        persistent: None,
        netmask: None,
        engine: None,
        one_packet: None,
        method: None,
        weight: None,
        upper: None,
        lower: None,
        tunnel: Vec::new(),
    };
    let mut rest = words.into_iter().peekable();
    while let Some(word) = rest.next() {
        if let Some((option, value)) = split(word) {
            let value = match value.or_else(|| rest.next_if(|next| !is_option(next))) {
                Some(value) => value,
                None if option == "-w" => "1",
                None => return Err(format!("{option} has no value")),
            };
            options.with_value(option, value)?;
            continue;
        }
        match word {
            "--set" => {
                let mut time = || {
                    let seconds = rest.next().and_then(|text| text.parse().ok());
                    seconds.map(|seconds| said(id, line, seconds))
                };
                let times = [time(), time(), time()];
                let [Some(tcp), Some(fin), Some(udp)] = times else {
                    return Err("--set has three times in seconds".to_owned());
                };
                options.command = Command::Set([tcp, fin, udp]);
            }
            _ if word == "--persistent" || word.starts_with("-p") => {
                let joined = word.strip_prefix("-p").filter(|_| !word.starts_with("--"));
                let joined = joined.filter(|value| !value.is_empty());
                let value = joined.or_else(|| rest.next_if(|next| !is_option(next)));
                let seconds = match value.map(str::parse) {
                    None => None,
                    Some(Ok(seconds)) => Some(seconds),
                    Some(Err(_)) => return Err("-p has a number of seconds".to_owned()),
                };
                let words = format!("-p {}", value.unwrap_or_default());
                options.persistent = Some(said(id, words.trim_end(), seconds));
            }
            _ => options.without_value(word, &mut rest)?,
        }
    }
    Ok(options)
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

/// An option that has a value, and that value if it is in the same word.
fn split(word: &str) -> Option<(&'static str, Option<&str>)> {
    WITH_VALUE.iter().find_map(|(short, long)| {
        let name = if short.is_empty() { long } else { short };
        if let Some(rest) = word.strip_prefix(long) {
            if rest.is_empty() {
                return Some((*name, None));
            }
            return rest.strip_prefix('=').map(|value| (*name, Some(value)));
        }
        if short.is_empty() || word.starts_with("--") {
            return None;
        }
        let value = word.strip_prefix(short)?;
        Some((*name, (!value.is_empty()).then_some(value)))
    })
}

impl Options {
    fn with_value(&mut self, option: &'static str, value: &str) -> Result<(), String> {
        let id = self.id;
        let words = format!("{option} {value}");
        let number = || {
            let number: Result<u64, _> = value.parse();
            number.map_err(|_| format!("{words} is not a number"))
        };
        let address = |protocol| Target::Address(protocol, value.to_owned());
        match option {
            "-t" => self.target = Some(said(id, &words, address(Protocol::Tcp))),
            "-u" => self.target = Some(said(id, &words, address(Protocol::Udp))),
            "--sctp-service" => self.target = Some(said(id, &words, address(Protocol::Sctp))),
            "-f" => self.target = Some(said(id, &words, Target::Mark(value.to_owned()))),
            "-s" => self.scheduler = Some(said(id, &words, value.to_owned())),
            "-M" => self.netmask = Some(said(id, &words, value.to_owned())),
            "--pe" => self.engine = Some(said(id, &words, value.to_owned())),
            "-b" => {
                let flags = value.split(',').filter(|flag| !flag.is_empty());
                self.flags
                    .extend(flags.map(|flag| said(id, &words, flag.to_owned())));
            }
            "-r" => self.server = Some(said(id, &words, value.to_owned())),
            "-w" => self.weight = Some(said(id, &words, number()?)),
            "-x" => self.upper = Some(said(id, &words, number()?)),
            "-y" => self.lower = Some(said(id, &words, number()?)),
            "--tun-type" if value == "ipip" => {}
            "--tun-type" | "--tun-port" => self.tunnel.push(said(id, &words, ())),
            // of the daemon that synchronises connections, of which a note is made as a whole
            _ => {}
        }
        Ok(())
    }

    fn without_value<'a>(
        &mut self,
        word: &'a str,
        rest: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    ) -> Result<(), String> {
        let id = self.id;
        let command = match word {
            "-A" | "--add-service" => Command::AddService,
            "-E" | "--edit-service" => Command::EditService,
            "-D" | "--delete-service" => Command::DeleteService,
            "-a" | "--add-server" => Command::AddServer,
            "-e" | "--edit-server" => Command::EditServer,
            "-d" | "--delete-server" => Command::DeleteServer,
            "-C" | "--clear" => Command::Clear,
            "--start-daemon" | "--stop-daemon" => {
                // master or backup
                rest.next_if(|next| !is_option(next));
                Command::Synchronise
            }
            "-R" | "--restore" | "-S" | "--save" | "-L" | "-l" | "--list" | "-Z" | "--zero" | "-h"
            | "--help" => Command::Look,
            "-g" | "--gatewaying" => return self.reach(word, Method::Route),
            "-m" | "--masquerading" => return self.reach(word, Method::Masquerade),
            "-i" | "--ipip" => return self.reach(word, Method::Tunnel),
            "-o" | "--ops" => {
                self.one_packet = Some(said(id, word, ()));
                return Ok(());
            }
            "-n" | "--numeric" | "-6" | "--ipv6" | "--tun-nocsum" => return Ok(()),
            "--tun-csum" | "--tun-remcsum" => {
                self.tunnel.push(said(id, word, ()));
                return Ok(());
            }
            _ => return Err(format!("{word} is not an option of ipvsadm 1.31")),
        };
        self.command = command;
        Ok(())
    }

    fn reach(&mut self, word: &str, method: Method) -> Result<(), String> {
        self.method = Some(said(self.id, word, method));
        Ok(())
    }
}

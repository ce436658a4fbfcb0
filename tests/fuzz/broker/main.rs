//! Any messages from a daemon that somebody has taken over, to the broker's own loop.
//!
//! A line of the input is a message, as it is; what follows a tab in it comes with it in a sealed memfd each, or is a unix
//! socket (`@web.sock`: of a process before this one, or of the daemon's) or the text of a configuration (`=0`). `=0` to `=9`
//! put another configuration file in place, the first line's before the broker starts; `!` makes the firewall fail, or work
//! again; `%` is another process that takes the packet modes, or gives them up; `-web.sock` is the daemon closing a socket.
//! Messages have `/fuzz/` for the target's own directory ([`place`]), and `"$read"` for the identity of the configuration file
//! as it was last read.
//!
//! The broker must end at the first message that no daemon sends, and answer every other one. What it grants is held to
//! a policy of this target's own ([`permitted`]), and what becomes of the directory to what was granted ([`answers`]).

#![no_main]

mod answers;
mod configurations;
mod permitted;
mod place;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    rc::Rc,
    sync::LazyLock,
};

use convey::{
    config::{MAX_CONFIG_BYTES, PacketService},
    privilege::fuzzing::{Broker, Reply, Request, Verb, decode, encode},
    sys::{fdpass, memfd},
};
use libfuzzer_sys::fuzz_target;

use answers::Judge;
use configurations::ALL;
use permitted::{Kernel, Permitted};
use place::Place;

thread_local! {
    static PLACE: Place = Place::new();
}

fuzz_target!(init: LazyLock::force(&ALL), |input: &[u8]| PLACE.with(|place| play(place, input)));

fn play(place: &Place, input: &[u8]) {
    place.clear();
    let mut lines = input.split(|byte| *byte == b'\n').take(64).peekable();
    let first = lines.next_if(|line| configuration(line).is_some());
    let written = first.and_then(configuration).unwrap_or(0);
    place.write_config(&ALL[written].text);
    // of a file that is no configuration nobody starts
    let (start, config) = match ALL[written].config() {
        Some(config) => (written, config),
        None => (0, ALL[0].config().expect("a configuration")),
    };
    let permitted = Rc::new(RefCell::new(Permitted::new(start)));
    let path = place::directory().join(place::CONFIG);
    let kernel = Box::new(Kernel(Rc::clone(&permitted)));
    let mut broker = Broker::new(path, config.clone(), configurations::parse, kernel);
    let mut judge = Judge::new(place, permitted, written);
    for line in lines {
        match line {
            [] => {}
            b"!" => judge.permitted.borrow_mut().firewall_fails ^= true,
            b"%" => judge.permitted.borrow_mut().has_rival ^= true,
            [b'-', name @ ..] => judge.held.close(&String::from_utf8_lossy(name)),
            line => {
                if let Some(number) = configuration(line) {
                    judge.written = number;
                    place.write_config(&ALL[number].text);
                } else if !send(&mut broker, &mut judge, line) {
                    break;
                }
            }
        }
    }
    drop(broker);
    judge.finish();
}

/// The number of a configuration that a text stands for.
fn configuration(text: &[u8]) -> Option<usize> {
    match text {
        [b'=', number @ b'0'..=b'9'] => Some(usize::from(number - b'0')),
        _ => None,
    }
}

/// What comes with a message.
enum Part {
    /// These bytes, in a sealed memfd.
    Text(Vec<u8>),
    /// A unix socket, and where it listens.
    Socket(OwnedFd, Option<String>),
}

/// A request as it is judged.
struct Asked {
    request: Request,
    /// The services or texts that come with it.
    services: Vec<PacketService>,
    texts: Vec<Vec<u8>>,
    /// Where the socket that comes with it listens.
    socket: Option<String>,
}

/// Sends a message and checks what comes of it. Gives whether the broker goes on.
fn send(broker: &mut Broker, judge: &mut Judge<'_>, line: &[u8]) -> bool {
    let mut parts = line.split(|byte| *byte == b'\t');
    let message = place::in_place(parts.next().unwrap_or_default());
    let read = judge.read.as_deref().unwrap_or("null");
    let message = place::replaced(&message, b"\"$read\"", read.as_bytes());
    if message.is_empty() || message.len() > fdpass::MAX_MESSAGE_BYTES {
        return true;
    }
    let parts: Vec<Part> = parts.take(4).map(|part| made(judge, part)).collect();
    let asked = asked(&message, &parts);
    judge.prepare(asked.as_ref().map(|asked| &asked.request.verb));
    let (ours, theirs) = fdpass::pair().expect("a socketpair");
    let fds: Vec<OwnedFd> = (parts.into_iter())
        .map(|part| match part {
            Part::Text(bytes) => memfd::sealed(&bytes).expect("a memfd"),
            Part::Socket(socket, _) => socket,
        })
        .collect();
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    fdpass::send(ours.as_fd(), &message, &borrowed).expect("a sent message");
    // a socket is a socket: std's type has the call for it
    let ours = UnixStream::from(ours);
    ours.shutdown(Shutdown::Write).expect("an end of the messages");
    let open = descriptors();
    let status = broker.answer_all(theirs.as_fd());
    close_left(&open, &fds);
    drop(theirs);
    let mut replies = replies(&ours);
    let Some(asked) = asked else {
        assert_eq!(status, 70, "went on after {}", message.escape_ascii());
        assert!(replies.is_empty(), "answered {}", message.escape_ascii());
        judge.nothing_else();
        return false;
    };
    assert_eq!(status, 0, "ended by {:?}", asked.request);
    assert_eq!(replies.len(), 1, "replies to {:?}", asked.request);
    let (reply, fds) = replies.remove(0);
    assert_eq!(
        (reply.number, fds.len()),
        (asked.request.number, reply.outcome.descriptors())
    );
    judge.check(&asked, &reply.outcome, fds);
    true
}

/// What a part of a line stands for.
fn made(judge: &mut Judge<'_>, part: &[u8]) -> Part {
    if let Some(number) = configuration(part) {
        return Part::Text(ALL[number].text.clone().into_bytes());
    }
    match part.strip_prefix(b"@") {
        Some(name) => {
            let name = String::from_utf8_lossy(name);
            let socket = judge.held.socket(&name);
            Part::Socket(socket, judge.held.has(&name).then(|| name.into_owned()))
        }
        None => Part::Text(part.to_vec()),
    }
}

/// The request that a message is, with what comes with it; `None` if no daemon sends it.
fn asked(message: &[u8], parts: &[Part]) -> Option<Asked> {
    let request: Request = decode(message).ok()?;
    let again = encode(&request).expect("a message that fits");
    assert_eq!(decode::<Request>(&again).expect("a message"), request);
    let mut asked = Asked {
        request,
        services: Vec::new(),
        texts: Vec::new(),
        socket: None,
    };
    match (&asked.request.verb, parts) {
        (Verb::Serve, [Part::Text(bytes)]) => asked.services = decode(bytes).ok()?,
        (Verb::WriteConfig, [Part::Text(before), Part::Text(text)]) => {
            asked.texts = vec![before.clone(), text.clone()];
            if asked.texts.iter().any(|text| text.len() > MAX_CONFIG_BYTES) {
                return None;
            }
        }
        (Verb::TakeOverSocket(_), [Part::Socket(_, name)]) => asked.socket.clone_from(name),
        // whatever it is: nobody listens there
        (Verb::TakeOverSocket(_), [Part::Text(_)]) => {}
        (Verb::Serve | Verb::WriteConfig | Verb::TakeOverSocket(_), _) => return None,
        (_, []) => {}
        (_, _) => return None,
    }
    (asked.request.number != 0).then_some(asked)
}

/// All replies but what is said unasked.
fn replies(socket: &UnixStream) -> Vec<(Reply, Vec<OwnedFd>)> {
    let all = std::iter::from_fn(|| fdpass::receive(socket.as_fd()).ok());
    let decoded = all.map(|(bytes, fds)| {
        let reply: Reply = decode(&bytes).expect("a reply in its form");
        (reply, fds)
    });
    decoded.filter(|(reply, _)| reply.number != 0).collect()
}

/// The numbers of all open descriptors.
fn descriptors() -> BTreeSet<RawFd> {
    let all = fs::read_dir("/proc/self/fd").expect("the descriptors");
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Closes what the broker has left open of what it was sent: it does not close what may not be what it should be, and in its own
/// process the end does.
fn close_left(open: &BTreeSet<RawFd>, sent: &[OwnedFd]) {
    if sent.is_empty() {
        return;
    }
    let file = |number: RawFd| {
        let metadata = fs::metadata(format!("/proc/self/fd/{number}")).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let sent: Vec<_> = sent.iter().map(|fd| file(fd.as_raw_fd())).collect();
    for number in descriptors().difference(open).copied() {
        let of = file(number);
        if of.is_some() && sent.contains(&of) {
            nix::unistd::close(number).expect("a closed descriptor");
        }
    }
}

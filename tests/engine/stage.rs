//! A host whose interfaces have the program, and what a service manager keeps of it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use convey::{
    config::model::XdpMode,
    engine::xdp::{
        attach::{Attached, Interface},
        layout::HANDED,
        load::{self, Loaded, Predecessor},
        object::OBJECT,
    },
    sys::bpf::{Map, map_identity, program_identity},
};

use crate::{
    lab::{Host, Lab},
    site::{kept, limits},
};

/// Flows that there is room for.
pub const FLOWS: u32 = 1_024;

/// A host with an interface of each kind, and what a service manager keeps.
pub struct Stage {
    pub host: Host,
    pub kept: Vec<(String, OwnedFd)>,
    pub lab: Lab,
}

impl Stage {
    /// `pair` takes the program in the driver, `plain` behind it.
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let host = lab.host("host");
        host.run("ip link add pair type veth peer name other && ip link set pair up && ip link set other up");
        host.run("ip link add plain type bridge && ip link set plain up");
        Self {
            host,
            kept: Vec::new(),
            lab,
        }
    }

    pub fn attach(&mut self, loaded: &mut Loaded, name: &str, mode: XdpMode) -> Attached {
        self.host.inside(|| {
            let index = nix::net::if_::if_nametoindex(name).expect("the interface");
            let to = Interface {
                index,
                name,
                is_loopback: false,
                is_veth: false,
            };
            let attached = loaded.attach(&to, mode);
            if let Some((name, link)) = loaded.kept_link(index) {
                self.kept
                    .push((name, link.try_clone_to_owned().expect("a descriptor")));
            }
            attached
        })
    }

    pub fn detach(&self, loaded: &mut Loaded, name: &str) -> Option<String> {
        loaded.detach(self.index(name))
    }

    pub fn index(&self, name: &str) -> u32 {
        let name = name.to_owned();
        self.host
            .inside(move || nix::net::if_::if_nametoindex(name.as_str()).expect("the interface"))
    }

    /// What is kept of a program that is attached at `pair` in the driver and at `plain` behind it, and of its links.
    pub fn keep(&mut self) -> u32 {
        let mut loaded = load::load(OBJECT, limits(FLOWS)).expect("a program");
        self.kept = kept(&loaded);
        self.attach(&mut loaded, "pair", XdpMode::Native);
        self.attach(&mut loaded, "plain", XdpMode::Auto);
        let program = id_of(&loaded);
        assert_eq!(self.at("pair"), Some(("driver".to_owned(), program)));
        assert_eq!(self.at("plain"), Some(("stack".to_owned(), program)));
        program
    }

    /// As the service manager hands it out: it has copies.
    pub fn predecessor(&self) -> Predecessor {
        Predecessor::of(copies(&self.kept))
    }

    pub fn take_over(&self, object: &[u8]) -> Result<Loaded, String> {
        let predecessor = self.predecessor();
        self.host
            .inside(|| load::take_over(predecessor, object, limits(FLOWS)))
            .map_err(|error| error.to_string())
    }

    /// Where a program is attached to an interface, and its number.
    pub fn at(&self, name: &str) -> Option<(String, u32)> {
        let text = self.host.run(&format!("ip -j -d link show {name}"));
        let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let xdp = &said[0]["xdp"];
        let id = xdp["prog"]["id"].as_u64()?;
        let mode = match xdp["mode"].as_u64() {
            Some(1) => "driver",
            Some(2) => "stack",
            other => panic!("{other:?}"),
        };
        Some((mode.to_owned(), id.try_into().expect("a number")))
    }

    /// The service manager forgets what has this name.
    pub fn forget(&mut self, names: &[String]) {
        self.kept.retain(|(kept, _)| !names.contains(kept));
    }
}

pub fn copies(kept: &[(String, OwnedFd)]) -> Vec<(String, OwnedFd)> {
    let copy = |(name, fd): &(String, OwnedFd)| (name.clone(), fd.try_clone().expect("a descriptor"));
    kept.iter().map(copy).collect()
}

pub fn program(loaded: &Loaded) -> OwnedFd {
    let mut handed = loaded.hand_out().expect("descriptors");
    let at = HANDED.iter().position(|name| *name == "convey").expect("one");
    handed.swap_remove(at)
}

pub fn id_of(loaded: &Loaded) -> u32 {
    program_identity(program(loaded).as_fd()).expect("a program").id
}

/// The same program as far as it does anything, in another object file.
pub fn another_object() -> Vec<u8> {
    [OBJECT, b"another"].concat()
}

pub fn map_named(loaded: &Loaded, name: &str) -> Map {
    let named = |fd: &BorrowedFd<'_>| map_identity(*fd).is_some_and(|map| map.name == name);
    let fd = loaded.kept().into_iter().find(named).expect("the map");
    Map::new(fd.try_clone_to_owned().expect("a descriptor")).expect("a map")
}

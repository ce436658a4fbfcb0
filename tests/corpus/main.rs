//! The packet corpus: packet in, verdict and packets out, one English line a case (DESIGN §9.2).
//!
//! Cases are data: `cases/*.toml`, in the worlds of `worlds.toml`, packets in the words of [`words`]. Nothing in them
//! depends on how packets are moved: the pure path plays them, and the program of the xdp engine with its slow path, which
//! takes root.
//!
//! ```toml
//! [[case]]
//! what = "a SYN opens a flow and leaves with our address and the client's own port, which is a NAT port"
//! world = "nat4"
//!
//! [[case.step]]
//! in = "tcp 203.0.113.5:61005 > 198.51.100.1:80 flags=S"
//! verdict = "to_server"
//! out = "10.0.0.254:61005 > 10.0.0.11:8080"
//! ```
//!
//! A step is a packet (`in` in words or `hex`, by the interface `from`, default `clients`; `patch` writes hexadecimal
//! bytes over the frame at an offset, `truncate` cuts it), or a change of the world (`set`), after some time (`wait`).
//! What must hold then:
//!
//! | key | means |
//! |---|---|
//! | `verdict` | label of the reason that is counted, or `kept`; `one\|other` where a flood may meet either |
//! | `out` | the packet as it leaves: what differs from the one that came in, besides TTL − 1 and the link addresses |
//! | `by` | interface that it leaves by; default `servers` or `clients`, as the verdict says |
//! | `answers` | `rst seq=… ack=…`, `port_unreachable`, `too_big MTU`, `time_exceeded`: to the sender of `in` |
//! | `split` | the fragments that it leaves in, instead of `out`, each as what differs |
//! | `released` | `STEP: what differs`: packets of earlier steps (from 1) that are sent now |
//! | `counts` | further counters that change, by how much |
//! | `flows`, `waiting` | how many flows there are and how many fragments wait, afterwards |
//!
//! Everything else must not happen: no other answer, no other counter, and bytes are counted for frontend and server
//! exactly as forwarded. `$name` for a source port or a whole destination stands for what an earlier `out` had in that
//! place; a name is bound when it is seen first, other names stand for other values, and `$_` for any that has no name. `times` repeats a step, with `{40000+n}` counting
//! up.

mod case;
mod conversation;
mod dice;
mod differential;
mod engine;
mod expect;
mod kernel;
mod numbering;
mod random;
mod scenes;
mod talks;
mod words;
mod world;

use std::{fs, io, path::Path, process::Command, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};

use case::File;
use engine::Pure;
use kernel::Kernel;
use world::Worlds;

fn main() -> io::Result<()> {
    let args = Arguments::from_args();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let worlds: Arc<Worlds> = Arc::new(read(&here.join("worlds.toml"))?);
    let mut paths = fs::read_dir(here.join("cases"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let cannot = prepare_network();
    if let Some(why) = &cannot {
        eprintln!("SKIPPED: the cases cannot be played by the program in the kernel: {why}");
    }
    let (mut trials, mut in_kernel) = (Vec::new(), Vec::new());
    for path in &paths {
        let file: File = read(path)?;
        let kind = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for case in file.case {
            let case = Arc::new(case);
            let (pure, all) = (Arc::clone(&case), Arc::clone(&worlds));
            let run = move || {
                case::run(&pure, &all, |max_flows| Box::new(Pure::new(max_flows))).map_err(Failed::from)
            };
            trials.push(Trial::test(case.what.clone(), run).with_kind(kind.clone()));
            let all = Arc::clone(&worlds);
            let name = case.what.clone();
            let run = move || {
                case::run(&case, &all, |max_flows| Box::new(Kernel::new(max_flows))).map_err(Failed::from)
            };
            in_kernel.push(Trial::test(name, run).with_kind(format!("{kind}, xdp")));
        }
    }
    trials.push(Trial::test(
        "there are at least 120 cases, each said in its own words",
        {
            let mut names: Vec<_> = trials.iter().map(|trial| trial.name().to_owned()).collect();
            move || {
                let count = names.len();
                names.sort();
                names.dedup();
                if count < 120 || names.len() < count {
                    return Err(format!("{count} cases, {} names", names.len()).into());
                }
                Ok(())
            }
        },
    ));
    for plan in scenes::STRANGERS {
        let worlds = Arc::clone(&worlds);
        let run = move || differential::run(&worlds, plan, || random::Strangers).map_err(Failed::from);
        let name = format!(
            "random packets of the world {} meet with the same by program and by path",
            plan.world
        );
        in_kernel.push(Trial::test(name, run).with_kind("xdp"));
    }
    for (plan, scene) in scenes::TALKS {
        let worlds = Arc::clone(&worlds);
        let run = move || differential::run(&worlds, plan, || talks::Talks::new(scene)).map_err(Failed::from);
        let name = format!(
            "conversations in the world {} go on alike by program and by path",
            plan.world
        );
        in_kernel.push(Trial::test(name, run).with_kind("xdp"));
    }
    let in_kernel = in_kernel.into_iter();
    let in_kernel: Vec<_> = in_kernel
        .map(|trial| trial.with_ignored_flag(cannot.is_some()))
        .collect();
    trials.extend(in_kernel);
    libtest_mimic::run(&args, trials).exit()
}

/// Goes to a network namespace with an interface of each index that the cases use: 1 is the loopback's. Why that cannot be.
fn prepare_network() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        return Some(format!("no network namespace: {error}"));
    }
    let made = Command::new("ip")
        .args(["link", "add", "servers", "index", "2", "type", "bridge"])
        .status();
    match made {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("ip link add: {status}")),
        Err(error) => Some(format!("ip: {error}")),
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = fs::read_to_string(path)?;
    toml::from_str(&text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

//! Any frames, in any order and at any time, through packet parsing and `flow::Path`, while servers, next hops and
//! configuration change. The worlds are those of the packet corpus, whose cases are the seeds.
//!
//! Bytes by themselves would seldom be a packet of a flow: checksums are put right, and there are words for an answer to
//! what has been forwarded, for a packet that comes again, and for an ICMP error about one ([`input`]). What must hold
//! after each is in [`site`].

#![no_main]

#[path = "../../corpus/case.rs"]
mod case;
#[path = "../../corpus/engine.rs"]
mod engine;
#[path = "../../corpus/expect.rs"]
mod expect;
mod forge;
mod input;
#[path = "../../corpus/numbering.rs"]
mod numbering;
mod seeds;
mod site;
#[path = "../../corpus/words.rs"]
mod words;
#[path = "../../corpus/world.rs"]
mod world;

use std::{fs, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;

use site::Site;
use world::Worlds;

static WORLDS: LazyLock<Worlds> =
    LazyLock::new(|| toml::from_str(include_str!("../../corpus/worlds.toml")).expect("the corpus's worlds"));

/// With this set, the seeds are written to the directory that it names, and nothing else is done.
const SEEDS: &str = "CONVEY_FUZZ_SEEDS";

fuzz_target!(
    init: if let Some(dir) = std::env::var_os(SEEDS) {
        write_seeds(Path::new(&dir));
        std::process::exit(0);
    },
    |bytes: &[u8]| {
        let Some((world, rest)) = bytes.split_first() else { return };
        let mut site = Site::new(&WORLDS, *world);
        for step in input::steps(rest) {
            site.play(&step);
        }
        site.end();
    }
);

fn write_seeds(dir: &Path) {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/cases");
    let mut count = 0;
    for entry in fs::read_dir(&cases).expect("the corpus's cases") {
        let path = entry.expect("a directory entry").path();
        let text = fs::read_to_string(&path).expect("a file of cases");
        let file: case::File = toml::from_str(&text).expect("cases");
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        for (index, case) in file.case.iter().enumerate() {
            let seed = seeds::of(case, &WORLDS).unwrap_or_else(|wrong| panic!("{}: {wrong}", case.what));
            fs::write(dir.join(format!("{name}-{index}")), seed).expect("a written seed");
            count += 1;
        }
    }
    println!("{count} seeds");
}

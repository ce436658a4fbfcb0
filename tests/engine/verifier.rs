//! What the kernel's verifier makes of the program: a growth that nobody meant shows here, long before some kernel refuses it.

use std::{fs, os::fd::AsFd as _};

use convey::sys::bpf::{ProgramInfo, program_info};

use crate::{Test, site::Site, tests};

pub const TESTS: &[Test] = tests![the_verifier_has_as_much_to_do_with_the_program_as_it_had];

/// Instructions that a kernel's verifier went through for `convey`, `touch` and `order`, with CAP_PERFMON.
const KNOWN: [(&str, [u32; 3]); 2] = [
    ("6.1.", [50_344, 1_693, 6_995]),
    ("6.18.", [51_827, 1_693, 13_045]),
];
/// What others may go through: a kernel refuses a program at a million.
const MOST: u32 = 200_000;
/// What the program may come to, in bytes of the machine that it is compiled for.
const COMPILED: u32 = 120_000;

const NOTHING: &str = "[global]\n";

fn the_verifier_has_as_much_to_do_with_the_program_as_it_had() {
    let site = Site::new(NOTHING);
    let maps = &site.map.maps;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    let kernel = kernel.trim();
    let known = KNOWN.iter().find(|(version, _)| kernel.starts_with(version));
    for (at, (name, program)) in [
        ("convey", &maps.convey),
        ("touch", &maps.touch),
        ("order", &maps.order),
    ]
    .into_iter()
    .enumerate()
    {
        let ProgramInfo {
            verified,
            translated,
            compiled,
        } = program_info(program.as_fd()).expect("what the kernel says");
        println!(
            "{name} on {kernel}: {verified} instructions verified, {translated} bytes, {compiled} compiled"
        );
        assert!(verified > 0 && verified <= MOST, "{name}: {verified}");
        assert!(compiled <= COMPILED, "{name}: {compiled} bytes");
        if let Some((_, of)) = known {
            // a tenth either way is no growth, such as another clang brings about
            let (least, most) = (of[at] - of[at] / 10, of[at] + of[at] / 10);
            assert!(
                (least..=most).contains(&verified),
                "{name}: {verified} instructions, {} were known: if that is meant, it is to be noted here",
                of[at]
            );
        }
    }
}

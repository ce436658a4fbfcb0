//! Twice the file costs twice the time: whoever may write a large configuration, good or bad, must not hold up the daemon.

use std::fmt::Write as _;

use convey::config::{self, Config, Options};
use libtest_mimic::{Failed, Trial};
use nix::time::{ClockId, clock_gettime};

use crate::text;

/// What a file of so many parts looks like.
type File = fn(usize) -> String;

/// What is done with it.
type Work = fn(&str);

/// Frontends, or servers, of the smaller of both files. Files with syntax errors are small enough to be looked at whole
/// (256 KiB), which the larger must be, too; of what is found 10,000 are kept.
const PARTS: usize = 4_000;
const BROKEN_PARTS: usize = 1_500;

/// Routes of a frontend are 1,000 at most, in the larger.
const ROUTES: usize = 500;

pub fn trials() -> Vec<Trial> {
    let files: [(&str, usize, File); 17] = [
        ("a_backend_for_each_frontend", PARTS, backend_each),
        ("one_backend_for_all_frontends", PARTS, one_backend),
        ("packet_modes", PARTS, packet_modes),
        ("missing_backends", PARTS, missing_backends),
        ("one_address_for_all", PARTS, one_address),
        ("ranges_of_one_address", PARTS, ranges),
        ("ranges_that_overlap", PARTS, overlapping_ranges),
        ("two_routes_for_each_frontend", PARTS, routes_each),
        ("routes_of_one_frontend", ROUTES, routes_of_one),
        ("fallbacks_in_rows", PARTS, fallback_rows),
        ("a_circle_of_fallbacks", PARTS, fallback_circle),
        ("unknown_keys", PARTS, unknown_keys),
        ("wrong_values", PARTS, wrong_values),
        ("one_line", BROKEN_PARTS, one_line),
        ("wrong_ports", PARTS, wrong_ports),
        ("no_toml", BROKEN_PARTS, no_toml),
        ("a_key_again_and_again", BROKEN_PARTS, repeated_key),
    ];
    let reading = files.map(|(name, parts, file)| growth("reading", name, parts, file, read));
    let works: [(&str, Work); 3] = [
        ("printing", |file| drop(config::print(&loaded(file)))),
        ("comparing", |file| {
            let (one, other) = (loaded(file), loaded(&file.replace(":8080", ":8081")));
            assert!(!config::diff(&one, &other).changes.is_empty());
        }),
        ("listing_services", |file| {
            assert!(!loaded(file).packet_services().is_empty());
        }),
    ];
    let working = works.map(|(name, work)| growth(name, "packet_modes", PARTS, packet_modes, work));
    reading.into_iter().chain(working).collect()
}

fn growth(kind: &str, name: &str, parts: usize, file: File, work: Work) -> Trial {
    Trial::test(
        format!("{kind}_{name}_costs_in_proportion_to_the_file"),
        move || costs_in_proportion(file, parts, work),
    )
}

/// Twice the file costs at most 2.6 times the CPU time of this thread (DESIGN §9). Sorting is n log n, and a cache has its
/// end; the rest of the margin is noise. What is quadratic costs four times.
fn costs_in_proportion(file: File, parts: usize, work: Work) -> Result<(), Failed> {
    let (half, whole) = (file(parts), file(2 * parts));
    let mut best = (i64::MAX, i64::MAX);
    // other work on this machine only adds: the best of some, but of no more than are needed
    for turn in 0..12 {
        best.0 = best.0.min(cost(&half, work)?);
        best.1 = best.1.min(cost(&whole, work)?);
        if turn >= 2 && best.1 * 10 <= best.0 * 26 {
            return Ok(());
        }
    }
    Err(format!(
        "{parts} parts: {} us, twice as many: {} us",
        best.0 / 1_000,
        best.1 / 1_000
    )
    .into())
}

/// CPU time of this thread that it takes, in nanoseconds.
fn cost(file: &str, work: Work) -> Result<i64, Failed> {
    let before = cpu()?;
    work(file);
    Ok(cpu()? - before)
}

/// To the nanosecond, where /proc only knows what the scheduler's last tick did.
fn cpu() -> Result<i64, Failed> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// As `convey check` and the daemon do it: what is found is shown.
fn read(file: &str) {
    let source = text(file);
    match config::load(&source, Options::default()) {
        Ok(loaded) => drop(config::render(&loaded.warnings, &source, false)),
        Err(found) => drop(config::render(&found, &source, false)),
    }
}

fn loaded(file: &str) -> Config {
    match config::load(&text(file), Options::default()) {
        Ok(loaded) => loaded.config,
        Err(found) => panic!("{found:?}"),
    }
}

/// An address of its own for each number.
fn address(network: u8, number: usize) -> String {
    let [.., a, b, c] = number.to_be_bytes();
    format!("{network}.{a}.{b}.{c}:8080")
}

fn frontend(out: &mut String, number: usize, rest: &str) {
    let addr = address(10, number + 1);
    let _ = writeln!(out, "[frontends.f{number}]\nlisten_addr = \"{addr}\"\n{rest}");
}

fn backend_with_servers(out: &mut String, servers: usize) {
    out.push_str("[backends.b.servers]\n");
    for number in 0..servers {
        let _ = writeln!(out, "s{number} = {{ addr = \"{}\" }}", address(11, number + 1));
    }
}

fn backends(out: &mut String, count: usize) {
    for number in 0..count {
        let addr = address(11, number + 1);
        let _ = writeln!(out, "[backends.b{number}]\nservers.s = {{ addr = \"{addr}\" }}");
    }
}

fn backend_each(parts: usize) -> String {
    let mut out = String::new();
    (0..parts).for_each(|n| frontend(&mut out, n, &format!("backend = \"b{n}\"")));
    backends(&mut out, parts);
    out
}

fn one_backend(parts: usize) -> String {
    let mut out = String::new();
    (0..parts).for_each(|n| frontend(&mut out, n, "backend = \"b\""));
    backend_with_servers(&mut out, parts);
    out
}

fn packet_modes(parts: usize) -> String {
    let mut out = String::new();
    (0..parts).for_each(|n| {
        let mode = if n % 2 == 0 { "passthrough" } else { "dsr" };
        frontend(&mut out, n, &format!("mode = \"{mode}\"\nbackend = \"b{n}\""));
    });
    backends(&mut out, parts);
    out
}

fn missing_backends(parts: usize) -> String {
    let mut out = String::new();
    (0..parts).for_each(|n| frontend(&mut out, n, &format!("backend = \"x{n}\"")));
    backends(&mut out, parts);
    out
}

/// Two for each frontend: one hides a name of the other, and leads to the backend before.
fn routes_each(parts: usize) -> String {
    let mut out = String::new();
    for n in 0..parts {
        let routes = format!(
            "backend = \"b{n}\"\n[[frontends.f{n}.routes]]\nsni = \"*.example.com\"\nbackend = \"b{}\"\n\
             [[frontends.f{n}.routes]]\nsni = \"a.b.example.com\"\nsource = \"10.0.0.0/8\"\nreject = true",
            n.saturating_sub(1)
        );
        frontend(&mut out, n, &routes);
    }
    backends(&mut out, parts);
    out
}

/// Each to a backend of its own, by names that only differ at their beginning, of as many addresses.
fn routes_of_one(parts: usize) -> String {
    let listen: Vec<String> = (0..parts)
        .map(|n| format!("\"{}\"", address(10, n + 1)))
        .collect();
    let mut out = format!("[frontends.f]\nlisten_addr = [{}]\n", listen.join(", "));
    for n in 0..parts {
        let _ = writeln!(
            out,
            "[[frontends.f.routes]]\nsni = [\"a{n}.b.c.d.example.com\", \"*.a{n}.example.com\"]\n\
             destination = \":{}\"\nbackend = \"b{n}\"",
            n + 1
        );
    }
    backends(&mut out, parts);
    out
}

/// Rows of nine, which is one too many.
fn fallback_rows(parts: usize) -> String {
    with_fallbacks(parts, |n| (n % 10 < 9).then_some(n + 1))
}

fn fallback_circle(parts: usize) -> String {
    with_fallbacks(parts, |n| Some((n + 1) % parts))
}

fn with_fallbacks(parts: usize, next: impl Fn(usize) -> Option<usize>) -> String {
    let mut out = String::new();
    for n in 0..parts {
        frontend(&mut out, n, &format!("backend = \"b{n}\""));
        let addr = address(11, n + 1);
        let _ = writeln!(out, "[backends.b{n}]\nservers.s = {{ addr = \"{addr}\" }}");
        if let Some(next) = next(n).filter(|next| *next < parts) {
            let _ = writeln!(out, "fallback = \"b{next}\"");
        }
    }
    out
}

/// Frontends with two ports of one address each.
fn ranges(parts: usize) -> String {
    ranges_of(parts, 1)
}

/// Each overlaps those before it.
fn overlapping_ranges(parts: usize) -> String {
    ranges_of(parts, 20_000)
}

fn ranges_of(parts: usize, more: usize) -> String {
    let mut out = String::new();
    for number in 0..parts {
        let first = 1 + 2 * number;
        let _ = writeln!(
            out,
            "[frontends.f{number}]\nlisten_addr = \"10.0.0.1:{first}-{}\"\nmode = \"passthrough\"\nbackend = \"b{number}\"",
            first + more
        );
    }
    backends(&mut out, parts);
    out
}

fn one_address(parts: usize) -> String {
    let mut out = String::new();
    for number in 0..parts {
        let _ = writeln!(
            out,
            "[frontends.f{number}]\nlisten_addr = \"10.0.0.1:80\"\nbackend = \"b\""
        );
    }
    backend_with_servers(&mut out, parts);
    out
}

fn unknown_keys(parts: usize) -> String {
    let mut out = String::new();
    (0..parts).for_each(|n| frontend(&mut out, n, &format!("backend = \"b\"\nbakend{n} = 1")));
    backend_with_servers(&mut out, parts);
    out
}

fn wrong_values(parts: usize) -> String {
    let mut out = String::new();
    (0..parts).for_each(|n| {
        frontend(
            &mut out,
            n,
            "backend = 7\nmode = \"proxi\"\nidle_timeout = \"soon\"",
        );
    });
    backend_with_servers(&mut out, parts);
    out
}

fn one_line(parts: usize) -> String {
    let mut out = String::from("frontends = { ");
    for number in 0..parts {
        let _ = write!(
            out,
            "f{number} = {{ listen_addr = \"nowhere\", mode = \"proxi\" }}, "
        );
    }
    out + "}\n"
}

fn wrong_ports(parts: usize) -> String {
    let mut out = String::new();
    for port in 1..=parts {
        let listen = format!("[\"192.0.2.1:{port}\", \"[2001:db8::1]:{port}\"]");
        let _ = writeln!(
            out,
            "[frontends.f{port}]\nlisten_addr = {listen}\nmode = \"dsr\"\nbackend = \"b\""
        );
    }
    backend_with_servers(&mut out, parts);
    out
}

fn no_toml(parts: usize) -> String {
    let mut out = String::new();
    for number in 0..parts {
        let _ = writeln!(out, "[frontends.f{number}\nlisten_addr = 10.0.0.1:80\nbackend: b");
    }
    out
}

fn repeated_key(parts: usize) -> String {
    let mut out = String::from("[frontends.f]\n");
    for _ in 0..parts {
        let _ = writeln!(
            out,
            "listen_addr = \"10.0.0.1:80\"\n[frontends.f]\nbackend = \"b\""
        );
    }
    out
}

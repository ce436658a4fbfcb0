//! Compiles the XDP engine's program, which the library has in it: C for the kernel's BPF machine, by clang.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Where the program's text is, from the directory of Cargo.toml.
const TEXT: &str = "src/engine/xdp/bpf";
/// What of it says how keys and values of the maps are laid out, and what their numbers mean.
const LAYOUT: [&str; 3] = ["constants.h", "structs.h", "maps.h"];

fn main() -> ExitCode {
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={TEXT}");
    println!("cargo:rerun-if-env-changed=CLANG");
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    fs::write(out.join("layout.txt"), layout(&root.join(TEXT))?)?;
    let object = out.join("convey.bpf.o");
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let mut command = Command::new(&clang);
    command
        // no path of this machine is in what comes out
        .current_dir(root.join(TEXT))
        .arg(format!("-ffile-prefix-map={}=.", root.join(TEXT).display()))
        .args(["-fdebug-compilation-dir=.", "-target", machine()?])
        // v3 would put halves of registers on the stack, where a pointer was: not without CAP_PERFMON
        .args(["-mcpu=v2", "-O2", "-g", "-Wall", "-Wextra", "-Werror"])
        .args(kernel_headers()?)
        .args(["-c", "convey.bpf.c", "-o"])
        .arg(object);
    let name = Path::new(&clang).display().to_string();
    let output = command.output().map_err(|error| {
        format!(
            "{name}: {error}. Building Convey takes clang, which compiles the program of its XDP engine: `apt install clang` \
             (version 14 or newer), or name one by the variable CLANG"
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = format!("{name} cannot compile {TEXT}/convey.bpf.c:\n{said}");
    Err(if said.contains("file not found") {
        format!("{why}\nThe kernel's headers are in Debian's package linux-libc-dev: `apt install libc6-dev`")
            .into()
    } else if said.contains("target") && said.contains("bpf") {
        format!(
            "{why}\nThis clang has no BPF target: take Debian's (`apt install clang`), by the variable CLANG"
        )
        .into()
    } else {
        why.into()
    })
}

/// What the maps of two programs are alike by: the text without comments and white space.
fn layout(directory: &Path) -> io::Result<String> {
    let mut all = String::new();
    for name in LAYOUT {
        let text = fs::read_to_string(directory.join(name))?;
        let mut rest = text.as_str();
        while let Some((code, after)) = rest.split_once("/*") {
            all.extend(code.chars().filter(|c| !c.is_whitespace()));
            rest = after.split_once("*/").map_or("", |(_, rest)| rest);
        }
        all.extend(rest.chars().filter(|c| !c.is_whitespace()));
    }
    Ok(all)
}

fn variable(name: &str) -> Result<OsString, Box<dyn Error>> {
    Ok(env::var_os(name).ok_or_else(|| format!("cargo has not set {name}"))?)
}

/// The BPF machine of the order of bytes of the kernel that the library is built for.
fn machine() -> Result<&'static str, Box<dyn Error>> {
    Ok(if variable("CARGO_CFG_TARGET_ENDIAN")? == "big" {
        "bpfeb"
    } else {
        "bpfel"
    })
}

/// Where Debian has the headers that differ between architectures; other systems have them where the others are. A kernel's
/// own types are the same on all that Convey runs on.
fn kernel_headers() -> Result<Option<OsString>, Box<dyn Error>> {
    let of = |architecture: &str| PathBuf::from(format!("/usr/include/{architecture}-linux-gnu"));
    let target = variable("CARGO_CFG_TARGET_ARCH")?;
    let found = [of(&target.to_string_lossy()), of(env::consts::ARCH)];
    let found = found.into_iter().find(|directory| directory.join("asm").is_dir());
    Ok(found.map(|directory| {
        let mut argument = OsString::from("-I");
        argument.push(directory);
        argument
    }))
}

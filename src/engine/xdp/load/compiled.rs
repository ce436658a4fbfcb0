//! The object file of the program: its maps, made, and its programs, loaded over them.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya_obj::{EbpfSectionKind, Function, Map as Definition, Object, btf::BtfFeatures, generated::bpf_insn};

use super::{LoadError, LoadLimits, PROGRAMS, missing, step};
use crate::sys::bpf::{self, Insert, Map, MapInfo, NewMap, NewProgram};

/// An object file that has been read, with its types in the kernel: the program's functions are verified one by one, as their
/// types say.
pub struct Compiled {
    object: Object,
    types: OwnedFd,
}

impl Compiled {
    /// Reads an object file, at an address that is divisible by 8.
    ///
    /// # Errors
    /// It is none, or the kernel does not take its types.
    pub fn read(bytes: &[u8]) -> Result<Self, LoadError> {
        let mut object = Object::parse(bytes).map_err(unreadable)?;
        // Linux 6.1 has all of them
        let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
        let types = object.fixup_and_sanitize_btf(&features).map_err(unreadable)?;
        let types = types.ok_or_else(|| missing("types"))?.to_bytes();
        let types = bpf::load_types(&types).map_err(|error| step("load the types of the program", error))?;
        Ok(Self { object, types })
    }

    /// Makes those of its maps that are not among these.
    ///
    /// # Errors
    /// The kernel refused one.
    pub fn make_missing(
        &self,
        limits: LoadLimits,
        maps: &mut BTreeMap<String, OwnedFd>,
    ) -> Result<(), LoadError> {
        for (name, definition) in &self.object.maps {
            if !maps.contains_key(name) {
                let map = make(name, definition, limits);
                let map = map.map_err(|error| step(&format!("make the map {name}"), error))?;
                maps.insert(name.clone(), map);
            }
        }
        Ok(())
    }

    /// Loads its programs over these maps, by their names.
    ///
    /// # Errors
    /// One is missing, or the kernel refused it.
    pub fn load(mut self, maps: &BTreeMap<String, OwnedFd>) -> Result<BTreeMap<String, OwnedFd>, LoadError> {
        let sections: HashSet<usize> = self
            .object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let definitions = std::mem::take(&mut self.object.maps);
        let defined = definitions.iter().filter_map(|(name, definition)| {
            let map = maps.get(name)?;
            Some((name.as_str(), map.as_raw_fd(), definition))
        });
        self.object
            .relocate_maps(defined, &sections)
            .map_err(unreadable)?;
        self.object.relocate_calls(&sections).map_err(unreadable)?;
        PROGRAMS
            .iter()
            .map(|name| Ok(((*name).to_owned(), self.load_program(name)?)))
            .collect()
    }

    fn load_program(&self, name: &str) -> Result<OwnedFd, LoadError> {
        let program = self.object.programs.get(name).ok_or_else(|| missing(name))?;
        let function = self.object.functions.get(&program.function_key());
        let function: &Function = function.ok_or_else(|| missing(name))?;
        let instructions: Vec<u8> = function.instructions.iter().flat_map(to_bytes).collect();
        let program = NewProgram {
            name,
            license: &program.license,
            instructions: &instructions,
            types: self.types.as_fd(),
            functions: &function.func_info.func_info_bytes(),
            lines: &function.line_info.line_info_bytes(),
        };
        program.load().map_err(|rejected| LoadError {
            log: rejected.log,
            ..step(&format!("load the program {name}"), rejected.error)
        })
    }
}

fn make(name: &str, definition: &Definition, limits: LoadLimits) -> io::Result<OwnedFd> {
    let mut info = info_of(definition);
    if let Some(entries) = limits.of(name) {
        info.max_entries = entries.get();
    }
    let inner = match definition.inner() {
        Some(inner) => {
            let info = info_of(&inner);
            Some(NewMap { name: "inner", info }.create()?)
        }
        None => None,
    };
    let made = NewMap { name, info }.create_of(inner.as_ref().map(OwnedFd::as_fd))?;
    if definition.data().is_empty() {
        return Ok(made);
    }
    // constants of the program
    let map = Map::new(made.try_clone()?)?;
    map.update(&0_u32.to_ne_bytes(), definition.data(), Insert::Any)?;
    if definition.section_kind() == EbpfSectionKind::Rodata {
        map.freeze()?;
    }
    Ok(made)
}

fn info_of(definition: &Definition) -> MapInfo {
    MapInfo {
        kind: definition.map_type(),
        key_size: definition.key_size(),
        value_size: definition.value_size(),
        max_entries: definition.max_entries(),
        flags: definition.map_flags(),
    }
}

/// An instruction as the kernel takes it (`struct bpf_insn`).
fn to_bytes(instruction: &bpf_insn) -> [u8; 8] {
    let (to, from) = (instruction.dst_reg(), instruction.src_reg());
    let registers = if cfg!(target_endian = "big") {
        to << 4 | from
    } else {
        from << 4 | to
    };
    let [offset_0, offset_1] = instruction.off.to_ne_bytes();
    let [value_0, value_1, value_2, value_3] = instruction.imm.to_ne_bytes();
    [
        instruction.code,
        registers,
        offset_0,
        offset_1,
        value_0,
        value_1,
        value_2,
        value_3,
    ]
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> LoadError {
    step("read the object file of the XDP program", io::Error::other(error))
}

//! Maps of BPF, as the kernel has them.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use convey::{
    engine::xdp::{
        layout::HANDED,
        load::{self, Loaded},
        object::OBJECT,
    },
    sys::bpf::{
        BatchCursor, Insert, MMAPABLE, Map, MapInfo, MappedCounters, MappedTable, NewMap, XdpPlace,
        attach_xdp, bind_map, detach_link, kind, link_of_xdp, map_identity, place_of, possible_cpus,
        program_identity, update_link,
    },
};

use crate::{Test, site::limits, tests, wire::Wire};

pub const TESTS: &[Test] = tests![
    an_element_is_written_read_and_removed,
    what_must_be_new_or_there_is_refused_otherwise,
    a_buffer_of_another_size_never_reaches_the_kernel,
    a_map_is_walked_by_batches_of_any_size_and_by_keys,
    a_batch_is_removed_past_what_is_not_there,
    a_full_map_says_so,
    a_value_for_each_cpu_is_one_buffer,
    a_walk_may_begin_at_any_bucket,
    a_table_is_written_through_memory,
    counters_are_changed_through_memory,
    only_a_table_is_mapped,
    what_is_no_map_is_refused,
    a_frozen_map_is_changed_by_nobody,
    what_a_descriptor_is_is_told_by_what_only_that_has,
    a_map_that_is_bound_to_a_program_is_one_of_its_maps,
    a_link_changes_its_program_and_is_detached_for_all_who_have_it,
];

/// What one with this kind of keys and values is made like.
fn map(kind: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32) -> Map {
    let info = MapInfo {
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
    };
    let fd = NewMap { name: "test", info }.create().unwrap();
    Map::new(fd).unwrap()
}

fn hash(max_entries: u32) -> Map {
    map(kind::HASH, 4, 8, max_entries, 0)
}

fn an_element_is_written_read_and_removed() {
    let map = hash(4);
    let mut value = [0; 8];
    assert!(!map.lookup(&[1, 0, 0, 0], &mut value).unwrap());
    map.update(&[1, 0, 0, 0], &[7; 8], Insert::New).unwrap();
    assert!(map.lookup(&[1, 0, 0, 0], &mut value).unwrap());
    assert_eq!(value, [7; 8]);
    assert!(map.delete(&[1, 0, 0, 0]).unwrap());
    assert!(!map.delete(&[1, 0, 0, 0]).unwrap());
}

fn what_must_be_new_or_there_is_refused_otherwise() {
    let map = hash(4);
    let refused = |insert| map.update(&[1; 4], &[0; 8], insert).unwrap_err().kind();
    assert_eq!(refused(Insert::Existing), io::ErrorKind::NotFound);
    map.update(&[1; 4], &[0; 8], Insert::Any).unwrap();
    assert_eq!(refused(Insert::New), io::ErrorKind::AlreadyExists);
    map.update(&[1; 4], &[0; 8], Insert::Existing).unwrap();
}

fn a_buffer_of_another_size_never_reaches_the_kernel() {
    let map = hash(4);
    let mut short = [0; 7];
    let errors = [
        map.lookup(&[0; 4], &mut short).map(drop),
        map.lookup(&[0; 3], &mut [0; 8]).map(drop),
        map.update(&[0; 4], &[0; 9], Insert::Any),
        map.delete(&[0; 5]).map(drop),
        map.next_key(Some(&[0; 2])).map(drop),
        map.delete_batch(&[0; 6]).map(drop),
        map.update_batch(&[0; 8], &[0; 15]).map(drop),
        map.update_batch(&[], &[0; 8]).map(drop),
    ];
    for (at, outcome) in errors.into_iter().enumerate() {
        assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EINVAL), "{at}");
    }
}

fn a_map_is_walked_by_batches_of_any_size_and_by_keys() {
    let map = hash(1_000);
    let numbers = 0..1_000_u32;
    let all: Vec<u8> = numbers.clone().flat_map(u32::to_ne_bytes).collect();
    let values: Vec<u8> = numbers
        .clone()
        .map(u64::from)
        .flat_map(u64::to_ne_bytes)
        .collect();
    assert_eq!(map.update_batch(&all, &values).unwrap(), 1_000);
    // of one element: smaller than many a bucket
    for max in [1, 64, 5_000] {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut found = Vec::new();
        let mut cursor = BatchCursor::default();
        while !cursor.is_at_end() {
            let read = map
                .lookup_batch(&mut cursor, max, &mut keys, &mut values)
                .unwrap();
            assert_eq!((keys.len(), values.len()), (read * 4, read * 8));
            for (key, value) in keys.chunks(4).zip(values.chunks(8)) {
                assert_eq!(key, &value[..4]);
                found.push(u32::from_ne_bytes(key.try_into().unwrap()));
            }
        }
        assert_eq!(
            map.lookup_batch(&mut cursor, max, &mut keys, &mut values)
                .unwrap(),
            0
        );
        found.sort_unstable();
        assert!(found.iter().copied().eq(numbers.clone()), "{max}");
    }
    let mut key = None;
    let mut count = 0;
    while let Some(next) = map.next_key(key.as_deref()).unwrap() {
        key = Some(next);
        count += 1;
    }
    assert_eq!(count, 1_000);
}

fn a_walk_may_begin_at_any_bucket() {
    let map = hash(1_024);
    for number in 0..1_000_u32 {
        map.update(&number.to_ne_bytes(), &[0; 8], Insert::New).unwrap();
    }
    let from = |bucket| {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut cursor = BatchCursor::at_bucket(bucket);
        let mut count = 0;
        while !cursor.is_at_end() {
            count += map.lookup_batch(&mut cursor, 64, &mut keys, &mut values).unwrap();
        }
        count
    };
    assert_eq!(from(0), 1_000);
    let half = from(512);
    assert!((300..700).contains(&half), "{half} of 1,000 in the second half");
    assert_eq!(from(1_024), 0, "there is no such bucket");
}

fn a_batch_is_removed_past_what_is_not_there() {
    let map = hash(10);
    map.update(&[1; 4], &[0; 8], Insert::Any).unwrap();
    map.update(&[3; 4], &[0; 8], Insert::Any).unwrap();
    let keys = [[0; 4], [1; 4], [2; 4], [3; 4], [4; 4]].concat();
    assert_eq!(map.delete_batch(&keys).unwrap(), 2);
    assert_eq!(map.next_key(None).unwrap(), None);
    assert_eq!(map.delete_batch(&[]).unwrap(), 0);
}

fn a_full_map_says_so() {
    let map = hash(1);
    map.update(&[1; 4], &[0; 8], Insert::Any).unwrap();
    let error = map.update(&[2; 4], &[0; 8], Insert::Any).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
}

fn a_value_for_each_cpu_is_one_buffer() {
    let map = map(kind::PERCPU_ARRAY, 4, 12, 2, 0);
    assert_eq!(map.value_bytes(), 16 * possible_cpus().unwrap());
    let written: Vec<u8> = (0..map.value_bytes()).map(|at| (at / 16) as u8 + 1).collect();
    map.update(&[1, 0, 0, 0], &written, Insert::Any).unwrap();
    let mut read = vec![0; map.value_bytes()];
    assert!(map.lookup(&[1, 0, 0, 0], &mut read).unwrap());
    for (read, written) in read.chunks(16).zip(written.chunks(16)) {
        assert_eq!(read[..12], written[..12]);
    }
}

fn a_table_is_written_through_memory() {
    let array = map(kind::ARRAY, 4, 8, 1_000, MMAPABLE);
    let mut table = MappedTable::new(&array).unwrap();
    assert_eq!((table.len(), table.is_empty()), (1_000, false));
    table.fill(1..=2_000);
    let at = |number: u32| {
        let mut value = [0; 8];
        assert!(array.lookup(&number.to_ne_bytes(), &mut value).unwrap());
        u64::from_ne_bytes(value)
    };
    assert_eq!((at(0), at(999)), (1, 1_000));
    assert_eq!((table.get(999), table.get(1_000)), (Some(1_000), None));
    table.fill([5]);
    assert_eq!((at(0), at(1)), (5, 0));
}

fn counters_are_changed_through_memory() {
    let map = map(kind::ARRAY, 4, 8, 4, MMAPABLE);
    let counters = MappedCounters::new(&map).unwrap();
    let read = |at: u32| {
        let mut value = [0; 8];
        map.lookup(&at.to_ne_bytes(), &mut value).unwrap();
        i64::from_ne_bytes(value)
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|_| counters.add(1, 1)));
        }
    });
    assert_eq!((counters.get(1), read(1), read(0)), (4_000, 4_000, 0));
    counters.add(2, -3);
    assert_eq!((counters.get(2), read(2)), (-3, -3));
    counters.set(2, 1);
    assert!(counters.add_below(2, 2) && !counters.add_below(2, 2));
    assert_eq!(read(2), 2);
    assert!(!counters.add_below(4, 2), "there is none");
    assert_eq!(counters.get(4), 0);
}

fn only_a_table_is_mapped() {
    for map in [
        map(kind::ARRAY, 4, 8, 10, 0),
        map(kind::ARRAY, 4, 4, 10, MMAPABLE),
        hash(10),
    ] {
        let error = MappedTable::new(&map).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}

fn what_is_no_map_is_refused() {
    let file = tempfile::tempfile().unwrap();
    assert!(Map::new(file.into()).is_err());
}

fn a_frozen_map_is_changed_by_nobody() {
    let map = map(kind::ARRAY, 4, 8, 1, 0);
    map.update(&[0; 4], &[7; 8], Insert::Any).unwrap();
    map.freeze().unwrap();
    let error = map.update(&[0; 4], &[8; 8], Insert::Any).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    let mut value = [0; 8];
    assert!(map.lookup(&[0; 4], &mut value).unwrap());
    assert_eq!(value, [7; 8]);
}

/// Our program.
fn program() -> (Loaded, OwnedFd) {
    let loaded = load::load(OBJECT, limits(64)).unwrap();
    let at = HANDED.iter().position(|name| *name == "convey").unwrap();
    let program = loaded.hand_out().unwrap().swap_remove(at);
    (loaded, program)
}

fn what_a_descriptor_is_is_told_by_what_only_that_has() {
    let map = hash(4);
    let first = map_identity(map.as_fd()).unwrap();
    assert_eq!(first.name, "test");
    assert_ne!(map_identity(hash(4).as_fd()).unwrap().id, first.id);
    assert_eq!(program_identity(map.as_fd()), None);
    assert_eq!(link_of_xdp(map.as_fd()), None);

    let (loaded, program) = program();
    let identity = program_identity(program.as_fd()).unwrap();
    assert_eq!(identity.name, "convey");
    let maps: Vec<_> = loaded.kept().into_iter().filter_map(map_identity).collect();
    assert!(
        maps.len() > 10 && maps.iter().all(|map| identity.maps.contains(&map.id)),
        "{maps:?} {identity:?}"
    );
    assert_eq!(map_identity(program.as_fd()), None);
    for refused in [
        update_link(program.as_fd(), program.as_fd()),
        detach_link(program.as_fd()),
    ] {
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    // a kind of map by the number of the kind that a link of XDP is
    let info = MapInfo {
        kind: kind::PERCPU_ARRAY,
        ..map.info()
    };
    let nameless = NewMap { name: "", info }.create().unwrap();
    assert_eq!(map_identity(nameless.as_fd()), None);
    let (reader, _) = io::pipe().unwrap();
    for other in [nameless.as_fd(), reader.as_fd()] {
        assert_eq!(program_identity(other), None);
        assert!(detach_link(other).is_err());
    }
    assert_eq!(link_of_xdp(reader.as_fd()), None);
}

fn a_map_that_is_bound_to_a_program_is_one_of_its_maps() {
    let (_loaded, program) = program();
    let map = hash(4);
    let id = map_identity(map.as_fd()).unwrap().id;
    let maps = || program_identity(program.as_fd()).unwrap().maps;
    assert!(!maps().contains(&id));
    bind_map(program.as_fd(), map.as_fd()).unwrap();
    assert!(maps().contains(&id));
}

fn a_link_changes_its_program_and_is_detached_for_all_who_have_it() {
    let wire = Wire::new("links");
    let ((_first, old), (_second, new)) = (program(), program());
    let id = |program: &OwnedFd| program_identity(program.as_fd()).unwrap().id;
    for place in [XdpPlace::Stack, XdpPlace::Driver] {
        wire.receiver.inside(|| {
            let link = attach_xdp(old.as_fd(), wire.into, place).unwrap();
            let identity = link_of_xdp(link.as_fd()).unwrap();
            assert_eq!((identity.program, identity.ifindex), (id(&old), wire.into));
            assert_eq!(map_identity(link.as_fd()), None);
            assert_eq!(program_identity(link.as_fd()), None);
            assert_eq!(place_of(id(&old), wire.into).unwrap(), Some(place));
            update_link(link.as_fd(), new.as_fd()).unwrap();
            assert_eq!(link_of_xdp(link.as_fd()).unwrap().program, id(&new));
            assert_eq!(place_of(id(&new), wire.into).unwrap(), Some(place));
            assert_eq!(place_of(id(&old), wire.into).unwrap(), None);
            let copy = link.try_clone().unwrap();
            detach_link(link.as_fd()).unwrap();
            assert_eq!(place_of(id(&new), wire.into).unwrap(), None);
            assert_eq!(link_of_xdp(copy.as_fd()).unwrap().ifindex, 0);
            let error = update_link(copy.as_fd(), old.as_fd()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOLINK));
        });
    }
    assert!(place_of(id(&old), u32::MAX >> 1).is_err(), "there is none");
}

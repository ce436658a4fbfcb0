use proptest::prelude::*;

use super::*;
use crate::{
    base::{BackendName, FrontendName, ListenRange, Protocol, ServerKey, ServerName},
    engine::xdp::{
        layout::TrafficValue,
        numbers::{Identity, Record},
    },
    sys::memfd,
};

/// Three files in memory, and a registry in them.
struct Bench {
    files: [OwnedFd; REGISTRY],
    registry: Registry,
}

impl Bench {
    fn new() -> Self {
        let files = [(); REGISTRY].map(|()| memfd::empty(c"test").unwrap());
        let registry = registry(&files);
        Self { files, registry }
    }

    /// That of whoever comes after.
    fn next(&mut self) -> &mut Registry {
        self.registry = registry(&self.files);
        &mut self.registry
    }

    fn file(&self, place: usize) -> File {
        File::from(self.files[place].try_clone().unwrap())
    }

    fn written(&self, place: usize) -> Vec<u8> {
        let file = self.file(place);
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

fn registry(files: &[OwnedFd; REGISTRY]) -> Registry {
    Registry::new(files.each_ref().map(|file| file.try_clone().unwrap()))
}

fn record(number: u16, ip: &str, places: &[(Protocol, &str)]) -> Record {
    let places = places
        .iter()
        .map(|(protocol, range)| (*protocol, range.parse().unwrap()));
    Record {
        number,
        server: number.wrapping_mul(3),
        incarnation: u32::from(number) + 70_000,
        identity: Identity {
            is_dsr: number.is_multiple_of(2),
            frontend: FrontendName::new("größe 1").unwrap(),
            server: ServerKey {
                backend: BackendName::new("web").unwrap(),
                server: ServerName::new(&format!("s{number}")).unwrap(),
            },
            ip: ip.parse().unwrap(),
            shift: number,
            has_vip: number.is_multiple_of(4),
        },
        places: places.collect(),
    }
}

/// So many, of both families, some behind several ranges.
fn noted(numbers: u16) -> Noted {
    let both: &[(Protocol, &str)] = &[
        (Protocol::Tcp, "198.51.100.1:80"),
        (Protocol::Udp, "[2001:db8::1]:5000-5999"),
    ];
    let one = |number: u16| match number % 3 {
        0 => record(number, "10.0.0.11", both),
        1 => record(number, "2001:db8::11", &both[..1]),
        _ => record(number, "10.0.0.12", &[]),
    };
    Noted {
        incarnations: 80_000,
        records: (1..=numbers).map(one).collect(),
    }
}

#[test]
fn what_was_noted_last_is_what_is_read() {
    let mut bench = Bench::new();
    assert!(bench.next().read().is_err(), "nothing was noted");
    for numbers in [5, 0, 7, 2] {
        bench.registry.write(&noted(numbers));
    }
    assert_eq!(bench.next().read().unwrap(), noted(2));
    bench.registry.write(&noted(3));
    assert_eq!(bench.next().read().unwrap(), noted(3), "the next one goes on");
    bench.registry.withdraw();
    assert!(bench.next().read().is_err());
}

#[test]
fn of_what_was_torn_anywhere_the_one_before_is_read() {
    let mut bench = Bench::new();
    bench.registry.write(&noted(3));
    bench.registry.write(&noted(2));
    // the next one goes where the first was, which is longer
    let before = bench.written(0);
    bench.registry.write(&noted(1));
    let after = bench.written(0);
    assert_ne!(before, after);
    for torn in 0..after.len() {
        let mut bytes = before.clone();
        bytes[..torn].copy_from_slice(&after[..torn]);
        bench.file(0).write_all_at(&bytes, 0).unwrap();
        let read = bench.next().read().unwrap();
        let whole = if bytes == after { noted(1) } else { noted(2) };
        assert_eq!(read, whole, "{torn} bytes");
    }
}

#[test]
fn places_beyond_a_limit_are_left_out_and_numbers_never_are() {
    let mut much = noted(2);
    let place = much.records[0].places[0];
    much.records[0].places = vec![place; 1 << 18];
    much.records[1].places = vec![place];
    let mut bytes = codec::numbers_to_bytes(&much);
    let read = codec::numbers(&bytes).unwrap();
    assert_eq!(read.records.len(), 2);
    let places = read.records.iter().map(|record| record.places.len());
    assert_eq!(places.collect::<Vec<_>>(), [1 << 18, 0]);
    let last = bytes[bytes.len() - 26..].to_vec();
    bytes.extend(last);
    assert_eq!(codec::numbers(&bytes), None, "there are more than can be");
}

#[test]
fn the_longest_names_find_room() {
    let mut much = noted(1);
    let record = &mut much.records[0];
    record.identity.frontend = FrontendName::new(&"f".repeat(255)).unwrap();
    record.identity.server = ServerKey {
        backend: BackendName::new(&"b".repeat(255)).unwrap(),
        server: ServerName::new(&"s".repeat(255)).unwrap(),
    };
    record.places.clear();
    let length = codec::numbers_to_bytes(&much).len();
    assert!(8 + usize::from(u16::MAX) * (length - 8) <= codec::LONGEST);
    assert_eq!(codec::numbers(&codec::numbers_to_bytes(&much)), Some(much));
}

#[test]
fn what_lies_about_its_length_or_is_of_another_format_is_nothing() {
    let mut bench = Bench::new();
    bench.registry.write(&noted(3));
    let right = bench.written(0);
    let wrong_at = |at: usize, bytes: &[u8]| {
        let mut wrong = right.clone();
        wrong[at..at + bytes.len()].copy_from_slice(bytes);
        wrong
    };
    for (what, wrong) in [
        ("magic", wrong_at(0, b"x")),
        ("format", wrong_at(8, &(FORMAT + 1).to_le_bytes())),
        ("length", wrong_at(12, &u32::MAX.to_le_bytes())),
        ("shorter", wrong_at(12, &1_u32.to_le_bytes())),
        ("generation", wrong_at(16, &u64::MAX.to_le_bytes())),
        ("checksum", wrong_at(24, &[!right[24]])),
    ] {
        bench.file(0).write_all_at(&wrong, 0).unwrap();
        assert!(bench.next().read().is_err(), "{what}");
    }
    let file = bench.file(0);
    file.write_all_at(&right, 0).unwrap();
    assert!(bench.next().read().is_ok());
    file.set_len(right.len() as u64 - 1).unwrap();
    assert!(bench.next().read().is_err(), "it ends too early");
    file.set_len(1 << 40).unwrap();
    assert!(
        bench.next().read().is_err(),
        "behind it there is nothing: zeros are not what was there"
    );
}

#[test]
fn where_it_cannot_be_written_nothing_is_said_any_more() {
    let mut bench = Bench::new();
    bench.registry.write(&noted(3));
    let path = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&bench.files[1])
    );
    let read_only = File::open(path).unwrap();
    bench.registry.numbers[1] = read_only;
    bench.registry.write(&noted(4));
    bench.registry.write(&noted(5));
    assert!(bench.next().read().is_err(), "what was noted first is wrong now");
}

fn counted(number: u16) -> Counted {
    Counted {
        traffic: TrafficValue {
            packets: number.into(),
            unacknowledged: 3,
            ..TrafficValue::default()
        },
        incarnation: 7,
        open: 100 + u64::from(number),
    }
}

#[test]
fn numbers_are_counted_each_at_its_place() {
    let mut bench = Bench::new();
    let of = |numbers: &[u16]| {
        numbers
            .iter()
            .map(|number| (*number, counted(*number)))
            .collect::<Vec<_>>()
    };
    bench.registry.write_counted(&of(&[1, 2, 3, 9, 65_535]));
    bench.registry.write_counted(&of(&[2]));
    let read = bench.next().counted().unwrap();
    for number in [1, 2, 3, 9, 65_535] {
        assert_eq!(read(number), counted(number));
    }
    for number in [0, 4, 65_534] {
        assert_eq!(read(number), Counted::default());
    }
    let file = bench.file(2);
    file.set_len(1 << 40).unwrap();
    assert_eq!(
        bench.next().counted().unwrap()(9),
        counted(9),
        "what is behind the last is not read"
    );
    file.set_len(Counted::SIZE as u64 * 2 + 5).unwrap();
    let read = bench.next().counted().unwrap();
    assert_eq!((read(1), read(2)), (counted(1), Counted::default()));
}

proptest! {
    #[test]
    fn whatever_is_there_is_read_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let _ = codec::numbers(&bytes);
        let mut almost = codec::numbers_to_bytes(&noted(4));
        for (at, byte) in changes {
            let at = at.index(almost.len());
            almost[at] = byte;
        }
        if let Some(read) = codec::numbers(&almost) {
            prop_assert!(read.records.len() < TARGETS as usize);
            for record in &read.records {
                for (_, range) in &record.places {
                    let range: &ListenRange = range;
                    prop_assert!(range.ports().first <= range.ports().last);
                }
            }
        }
    }
}

//! A stand-in for an OpenTelemetry collector: it reads what is exported by OTLP over HTTP, with a reader of protobuf of its own,
//! by the field numbers of opentelemetry-proto 1.x, and answers as it is told.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use flate2::read::GzDecoder;

use super::{Host, PATIENCE, servers::TcpServer, wait_until};

/// A collector; it stops listening when dropped.
pub struct Collector {
    server: TcpServer,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What the next requests are answered; 200 without any.
    answers: VecDeque<Answer>,
    requests: Vec<Request>,
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// With these bytes.
    Bytes(Vec<u8>),
    /// With these bytes, and then with more and more.
    Endless(Vec<u8>),
    /// Not at all, while the other end waits.
    Silence,
}

/// What was exported at once.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path of the request.
    pub path: String,
    /// Its headers, by names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What it has, unpacked.
    pub body: Vec<u8>,
    /// Bytes that it had on the wire.
    pub length: usize,
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// Yes or no.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Another number.
    Number(f64),
}

/// Attributes by name.
pub type Attributes = BTreeMap<String, Value>;

/// The data of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A gauge.
    Gauge,
    /// A sum: cumulative and monotonic, or this fails to be read.
    Sum,
    /// A cumulative histogram.
    Histogram,
}

/// A data point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Name of its metric.
    pub metric: String,
    /// Unit of its metric.
    pub unit: String,
    /// What its metric has.
    pub kind: Kind,
    /// Its labels.
    pub attributes: Attributes,
    /// When counting began, in nanoseconds since 1970; 0 of a gauge.
    pub start: u64,
    /// When it was made.
    pub time: u64,
    /// Its value; of a histogram the sum.
    pub value: f64,
    /// Of a histogram: its buckets, by their upper ends.
    pub buckets: Vec<(f64, u64)>,
    /// Of a histogram: how many there are.
    pub count: u64,
}

/// A log record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When it happened, in nanoseconds since 1970.
    pub time: u64,
    /// Number and word of its severity.
    pub severity: (u64, String),
    /// Its text.
    pub body: Value,
    /// Its fields.
    pub attributes: Attributes,
}

impl Collector {
    /// Listens on a port of a host.
    #[track_caller]
    pub fn start(host: &Host, port: u16) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let of_server = Arc::clone(&state);
        Self {
            server: TcpServer::start(host, port, move |stream| serve(stream, &of_server)),
            state,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Answers the next request so, after those that were told before.
    pub fn answer(&self, answer: Answer) {
        self.state.lock().expect("the state").answers.push_back(answer);
    }

    /// What was told and is not used yet.
    pub fn untold(&self) -> usize {
        self.state.lock().expect("the state").answers.len()
    }

    /// What has come so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().expect("the state").requests.clone()
    }

    /// Waits for another request to a path than have come so far, and gives the last one.
    #[track_caller]
    pub fn next(&self, path: &str) -> Request {
        let of_path = || {
            let mut requests = self.requests();
            requests.retain(|request| request.path == path);
            requests
        };
        let before = of_path().len();
        wait_until("a request", PATIENCE, || of_path().len() > before);
        of_path().pop().expect("a request")
    }

    /// Every log record that has come.
    pub fn records(&self) -> Vec<Record> {
        let requests = self.requests();
        let logs = requests
            .iter()
            .filter(|request| request.path.ends_with("/v1/logs"));
        logs.flat_map(|request| records(&request.body)).collect()
    }
}

/// A whole answer.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    Answer::Bytes([head.as_bytes(), body].concat())
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = read_request(&mut stream)?;
    let next = {
        let mut state = state.lock().expect("the state");
        state.requests.push(request);
        state.answers.pop_front()
    };
    match next.unwrap_or_else(|| answer("200 OK", "Content-Type: application/x-protobuf\r\n", b"")) {
        Answer::Bytes(bytes) => stream.write_all(&bytes),
        Answer::Endless(bytes) => {
            stream.write_all(&bytes)?;
            loop {
                stream.write_all(&[b'x'; 65_536])?;
            }
        }
        Answer::Silence => stream.read(&mut [0]).map(drop),
    }
}

fn read_request(stream: &mut TcpStream) -> io::Result<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("UTF-8");
    let mut lines = head.lines();
    let first: Vec<&str> = lines.next().expect("a request line").split(' ').collect();
    assert!(first[0] == "POST" && first[2].starts_with("HTTP/1."), "{head}");
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers["content-length"].parse().expect("a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if headers
        .get("content-encoding")
        .is_some_and(|coding| coding == "gzip")
    {
        let mut plain = Vec::new();
        GzDecoder::new(body.as_slice()).read_to_end(&mut plain)?;
        body = plain;
    }
    Ok(Request {
        path: first[1].to_owned(),
        headers,
        body,
        length,
    })
}

/// The attributes of who has exported.
pub fn resource(body: &[u8]) -> Attributes {
    let of_resource = only(body, 1);
    attributes(&only(&of_resource, 1), 1)
}

/// Every data point of a request.
pub fn points(body: &[u8]) -> Vec<Point> {
    items(body).iter().flat_map(|metric| points_of(metric)).collect()
}

/// Every log record of a request.
pub fn records(body: &[u8]) -> Vec<Record> {
    let record = |item: &Vec<u8>| {
        let fields = parse(item);
        let severity = one(&fields, 2).integer();
        assert_eq!(
            one(&fields, 1).integer(),
            one(&fields, 11).integer(),
            "observed when it happened"
        );
        Record {
            time: one(&fields, 1).integer(),
            severity: (severity, text(&fields, 3)),
            body: value(one(&fields, 5).bytes()),
            attributes: attributes(item, 6),
        }
    };
    items(body).iter().map(record).collect()
}

/// Metrics or log records: of one resource and one scope, which is Convey.
fn items(body: &[u8]) -> Vec<Vec<u8>> {
    let of_scope = only(&only(body, 1), 2);
    let scope = parse(&only(&of_scope, 1));
    assert_eq!(text(&scope, 1), "convey");
    let fields = parse(&of_scope);
    let items = fields.iter().filter(|(number, _)| *number == 2);
    items.map(|(_, field)| field.bytes().to_vec()).collect()
}

fn points_of(metric: &[u8]) -> Vec<Point> {
    let fields = parse(metric);
    let has = |number| fields.iter().any(|(known, _)| *known == number);
    assert!(!text(&fields, 2).is_empty(), "a description");
    let (kind, data) = match (has(5), has(7), has(9)) {
        (true, false, false) => (Kind::Gauge, only(metric, 5)),
        (false, true, false) => (Kind::Sum, only(metric, 7)),
        (false, false, true) => (Kind::Histogram, only(metric, 9)),
        _ => panic!("data of one kind"),
    };
    let data = parse(&data);
    if kind != Kind::Gauge {
        assert_eq!(one(&data, 2).integer(), 2, "cumulative");
    }
    if kind == Kind::Sum {
        assert_eq!(one(&data, 3).integer(), 1, "monotonic");
    }
    let unit = fields.iter().find(|(number, _)| *number == 3);
    let unit = unit.map_or("", |(_, field)| {
        std::str::from_utf8(field.bytes()).expect("UTF-8")
    });
    let points = data.iter().filter(|(number, _)| *number == 1);
    points
        .map(|(_, field)| point(text(&fields, 1), unit, kind, field.bytes()))
        .collect()
}

fn point(metric: String, unit: &str, kind: Kind, bytes: &[u8]) -> Point {
    let fields = parse(bytes);
    let start = fields.iter().find(|(number, _)| *number == 2);
    let mut point = Point {
        metric,
        unit: unit.to_owned(),
        kind,
        attributes: attributes(bytes, if kind == Kind::Histogram { 9 } else { 7 }),
        start: start.map_or(0, |(_, field)| field.integer()),
        time: one(&fields, 3).integer(),
        value: 0.0,
        buckets: Vec::new(),
        count: 0,
    };
    if kind == Kind::Histogram {
        point.count = one(&fields, 4).integer();
        point.value = f64::from_bits(one(&fields, 5).integer());
        let counts = packed(one(&fields, 6).bytes());
        let mut bounds: Vec<f64> = packed(one(&fields, 7).bytes())
            .into_iter()
            .map(f64::from_bits)
            .collect();
        assert!(bounds.is_sorted() && counts.len() == bounds.len() + 1);
        bounds.push(f64::INFINITY);
        assert_eq!(counts.iter().sum::<u64>(), point.count);
        point.buckets = bounds.into_iter().zip(counts).collect();
        return point;
    }
    let number = fields.iter().find(|(number, _)| matches!(number, 4 | 6));
    point.value = match number.expect("a value") {
        (4, field) => f64::from_bits(field.integer()),
        (_, field) => field.integer().cast_signed() as f64,
    };
    point
}

fn packed(bytes: &[u8]) -> Vec<u64> {
    let chunks = bytes.chunks(8);
    chunks
        .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes")))
        .collect()
}

fn attributes(message: &[u8], number: u64) -> Attributes {
    let fields = parse(message);
    let pairs = fields.iter().filter(|(known, _)| *known == number);
    let mut attributes = Attributes::new();
    for (_, pair) in pairs {
        let pair = parse(pair.bytes());
        let before = attributes.insert(text(&pair, 1), value(one(&pair, 2).bytes()));
        assert_eq!(before, None, "an attribute twice");
    }
    attributes
}

fn value(any: &[u8]) -> Value {
    let fields = parse(any);
    let [(number, field)] = fields.as_slice() else {
        panic!("one value: {fields:?}")
    };
    match number {
        1 => Value::Text(String::from_utf8(field.bytes().to_vec()).expect("UTF-8")),
        2 => Value::Bool(field.integer() != 0),
        3 => Value::Integer(field.integer().cast_signed()),
        4 => Value::Number(f64::from_bits(field.integer())),
        other => panic!("a value of kind {other}"),
    }
}

/// A field of a message.
#[derive(Debug, Clone)]
enum Field {
    Integer(u64),
    Bytes(Vec<u8>),
}

impl Field {
    #[track_caller]
    fn integer(&self) -> u64 {
        match self {
            Self::Integer(value) => *value,
            Self::Bytes(bytes) => panic!("a number, not {bytes:?}"),
        }
    }

    #[track_caller]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Integer(value) => panic!("bytes, not {value}"),
        }
    }
}

fn parse(message: &[u8]) -> Vec<(u64, Field)> {
    let mut rest = message.iter().copied();
    let varint = |first: u8, rest: &mut dyn Iterator<Item = u8>| {
        let (mut value, mut shift, mut byte) = (u64::from(first & 0x7f), 7, first);
        while byte >= 0x80 {
            byte = rest.next().expect("the rest of a number");
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        value
    };
    let mut fields = Vec::new();
    while let Some(first) = rest.next() {
        let key = varint(first, &mut rest);
        let field = match key % 8 {
            0 => {
                let first = rest.next().expect("a number");
                Field::Integer(varint(first, &mut rest))
            }
            1 => {
                let bytes: Vec<u8> = rest.by_ref().take(8).collect();
                Field::Integer(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
            }
            2 => {
                let first = rest.next().expect("a length");
                let length = usize::try_from(varint(first, &mut rest)).expect("a length");
                let bytes: Vec<u8> = rest.by_ref().take(length).collect();
                assert_eq!(bytes.len(), length, "a field cut short");
                Field::Bytes(bytes)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((key / 8, field));
    }
    fields
}

/// The one field with a number.
#[track_caller]
fn one(fields: &[(u64, Field)], number: u64) -> &Field {
    let mut found = fields.iter().filter(|(known, _)| *known == number);
    match (found.next(), found.next()) {
        (Some((_, field)), None) => field,
        _ => panic!("one field {number} in {fields:?}"),
    }
}

#[track_caller]
fn only(message: &[u8], number: u64) -> Vec<u8> {
    one(&parse(message), number).bytes().to_vec()
}

#[track_caller]
fn text(fields: &[(u64, Field)], number: u64) -> String {
    String::from_utf8(one(fields, number).bytes().to_vec()).expect("UTF-8")
}

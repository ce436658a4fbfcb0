use super::*;
use proptest::prelude::*;

const IDLE: Duration = Duration::from_secs(900);

/// A connection on paper: both sides number their bytes as hosts do.
#[derive(Debug, Clone)]
struct Talk {
    state: TcpState,
    numbers: Numbers,
    client: u32,
    server: u32,
}

impl Talk {
    fn syn() -> Self {
        let first = segment(SegmentKind::Open, 100, 0, 0);
        Self {
            state: TcpState::first(first.kind),
            numbers: Numbers::new(&first),
            client: 101,
            server: 0,
        }
    }

    fn answered() -> Self {
        let mut talk = Self::syn();
        talk.give(Side::Server, segment(SegmentKind::Accept, 7_000, talk.client, 0));
        talk.server = 7_001;
        talk
    }

    fn established() -> Self {
        let mut talk = Self::answered();
        talk.say(Side::Client, SegmentKind::Go, 0);
        talk
    }

    fn give(&mut self, side: Side, segment: Segment) -> TcpState {
        self.state = self.state.seen(side, &segment, &mut self.numbers);
        self.state
    }

    /// What an honest side sends next.
    fn say(&mut self, side: Side, kind: SegmentKind, len: u32) -> TcpState {
        let (own, other) = match side {
            Side::Client => (self.client, self.server),
            Side::Server => (self.server, self.client),
        };
        let said = segment(kind, own, other, len);
        let end = said.end.unwrap();
        match side {
            Side::Client => self.client = end,
            Side::Server => self.server = end,
        }
        self.give(side, said)
    }
}

fn segment(kind: SegmentKind, sequence: u32, acknowledged: u32, len: u32) -> Segment {
    let of_flags = u32::from(matches!(
        kind,
        SegmentKind::Open | SegmentKind::Accept | SegmentKind::Close
    ));
    Segment {
        kind,
        sequence,
        end: Some(sequence.wrapping_add(len + of_flags)),
        acknowledged: (kind != SegmentKind::Open).then_some(acknowledged),
        timestamp: None,
    }
}

#[test]
fn a_handshake_lifts_a_flow_out_of_the_syn_lifetime() {
    assert_eq!(Talk::syn().state.lifetime(IDLE, false), SYN);
    assert_eq!(Talk::established().state, TcpState::Established);
    assert_eq!(TcpState::Established.lifetime(IDLE, true), IDLE);
}

#[test]
fn where_ports_are_scarce_what_is_half_open_is_soon_forgotten() {
    for state in [
        TcpState::Syn,
        TcpState::Answered,
        TcpState::Asked,
        TcpState::Replied,
    ] {
        assert_eq!(state.lifetime(IDLE, true), SYN_UNDER_PRESSURE);
        assert!(
            !state.is_prolonged_by(Side::Server),
            "a server repeats its SYN|ACK"
        );
    }
}

#[test]
fn a_client_cannot_lift_its_flow_out_of_the_syn_lifetime_alone() {
    let mut talk = Talk::syn();
    for kind in [SegmentKind::Go, SegmentKind::Close] {
        talk.say(Side::Client, kind, 0);
    }
    assert_eq!(talk.state, TcpState::Syn);
    assert!(Talk::answered().state.is_half_open());
}

#[test]
fn a_syn_ack_counts_only_if_it_acknowledges_a_syn_that_was_seen() {
    let mut talk = Talk::syn();
    assert_eq!(
        talk.give(Side::Server, segment(SegmentKind::Accept, 7_000, 102, 0)),
        TcpState::Syn
    );
    // the client has given up and begun anew from the same port
    talk.give(Side::Client, segment(SegmentKind::Open, 9_000, 0, 0));
    let mut again = talk.clone();
    assert_eq!(
        talk.give(Side::Server, segment(SegmentKind::Accept, 7_000, 101, 0)),
        TcpState::Answered
    );
    assert_eq!(
        again.give(Side::Server, segment(SegmentKind::Accept, 7_000, 9_001, 0)),
        TcpState::Answered
    );
    again.client = 9_001;
    again.server = 7_001;
    assert_eq!(again.say(Side::Client, SegmentKind::Go, 0), TcpState::Established);
}

#[test]
fn a_forged_syn_prepares_neither_its_rst_nor_its_answer() {
    let mut talk = Talk::syn();
    let forged = segment(SegmentKind::Open, 40_000, 0, 0);
    talk.give(Side::Client, forged);
    assert_eq!(
        talk.give(Side::Client, segment(SegmentKind::Reset, 40_001, 0, 0)),
        TcpState::Syn
    );
    // even who can forge the answer too leaves the honest one its way
    talk.give(Side::Server, segment(SegmentKind::Accept, 1, 40_001, 0));
    talk.give(Side::Server, segment(SegmentKind::Accept, 7_000, 101, 0));
    talk.server = 7_001;
    assert_eq!(talk.say(Side::Client, SegmentKind::Go, 0), TcpState::Established);
}

#[test]
fn a_fin_counts_once_it_is_acknowledged_and_leaves_the_other_side_its_time() {
    let mut talk = Talk::established();
    assert_eq!(
        talk.say(Side::Client, SegmentKind::Close, 0),
        TcpState::Established
    );
    let half = talk.say(Side::Server, SegmentKind::Go, 500);
    assert_eq!(
        (half, half.lifetime(IDLE, true)),
        (TcpState::HalfClosed(Side::Client), IDLE)
    );
    talk.say(Side::Server, SegmentKind::Close, 0);
    let closed = talk.say(Side::Client, SegmentKind::Go, 0);
    assert_eq!(closed, TcpState::Closing(Ending::First(Side::Client)));
    assert_eq!(closed.lifetime(IDLE, false), CLOSING);
    assert!(closed.can_reopen());
}

#[test]
fn where_the_server_closes_first_its_time_wait_is_remembered() {
    let mut talk = Talk::established();
    talk.say(Side::Server, SegmentKind::Close, 100);
    talk.say(Side::Client, SegmentKind::Close, 0);
    let closed = talk.say(Side::Server, SegmentKind::Go, 0);
    assert_eq!(closed, TcpState::Closing(Ending::First(Side::Server)));
    assert_eq!(closed.lifetime(IDLE, false), TIME_WAIT);
}

#[test]
fn an_exact_rst_of_either_side_ends_a_connection_and_no_other() {
    for side in [Side::Client, Side::Server] {
        let talk = Talk::established();
        let (own, other) = match side {
            Side::Client => (talk.client, talk.server),
            Side::Server => (talk.server, talk.client),
        };
        for off in [1, u32::MAX, 30_000, 1 << 31] {
            let near = segment(SegmentKind::Reset, own.wrapping_add(off), other, 0);
            assert_eq!(talk.clone().give(side, near), TcpState::Established, "{off}");
        }
        let exact = segment(SegmentKind::Reset, own, other, 0);
        assert_eq!(talk.clone().give(side, exact), TcpState::Closing(Ending::Reset));
    }
}

#[test]
fn a_server_that_knows_no_such_connection_resets_it_by_the_number_that_the_client_has_acknowledged() {
    let mut talk = Talk::established();
    talk.say(Side::Server, SegmentKind::Go, 3_000);
    talk.say(Side::Client, SegmentKind::Go, 10);
    let reset = segment(SegmentKind::Reset, talk.server, 0, 0);
    assert_eq!(talk.give(Side::Server, reset), TcpState::Closing(Ending::Reset));
}

#[test]
fn a_refused_connection_is_soon_forgotten_but_still_counts_as_half_open() {
    let mut talk = Talk::syn();
    let other = segment(SegmentKind::Reset, 0, 5, 0);
    assert_eq!(
        talk.give(Side::Server, other),
        TcpState::Syn,
        "it answers no SYN of ours"
    );
    let refused = talk.give(Side::Server, segment(SegmentKind::Reset, 0, 101, 0));
    assert_eq!(
        (refused, refused.lifetime(IDLE, false)),
        (TcpState::Refused, CLOSING)
    );
    assert!(refused.is_half_open() && refused.can_reopen());
}

#[test]
fn the_rst_that_ends_a_servers_time_wait_keeps_flow_and_port_for_the_next_syn() {
    let mut talk = Talk::syn();
    // the server remembers the connection before, and says where that was
    talk.give(Side::Server, segment(SegmentKind::Go, 50_000, 60_000, 0));
    let answer = segment(SegmentKind::Reset, 60_000, 0, 0);
    assert_eq!(talk.give(Side::Client, answer), TcpState::Syn);
    assert_eq!(
        talk.give(Side::Server, segment(SegmentKind::Accept, 1, 101, 0)),
        TcpState::Answered
    );
}

#[test]
fn what_is_lost_before_us_does_not_make_a_connection_deaf() {
    let mut talk = Talk::established();
    // ten segments of an upload never came here; what follows does
    talk.client += 14_480;
    talk.say(Side::Client, SegmentKind::Go, 1_448);
    talk.say(Side::Server, SegmentKind::Go, 0);
    talk.say(Side::Client, SegmentKind::Close, 0);
    talk.say(Side::Server, SegmentKind::Close, 0);
    assert_eq!(
        talk.say(Side::Client, SegmentKind::Go, 0),
        TcpState::Closing(Ending::First(Side::Client))
    );
}

#[test]
fn who_loses_packets_before_us_while_it_acknowledges_new_data_is_heard() {
    let mut talk = Talk::established();
    for _ in 0..3 {
        talk.say(Side::Server, SegmentKind::Go, 100_000);
        // of an upload as large only the end comes here
        talk.client += 100_000;
        talk.say(Side::Client, SegmentKind::Go, 1_448);
        assert_eq!(talk.numbers.client.end, talk.client);
    }
    talk.say(Side::Server, SegmentKind::Close, 0);
    talk.client += 100_000;
    talk.say(Side::Client, SegmentKind::Close, 0);
    assert_eq!(
        talk.say(Side::Server, SegmentKind::Go, 0),
        TcpState::Closing(Ending::First(Side::Server))
    );
}

#[test]
fn who_loses_packets_before_us_and_has_not_heard_the_other_side_yet_is_heard() {
    let mut talk = Talk::established();
    let heard = talk.server;
    talk.say(Side::Server, SegmentKind::Go, 100_000);
    talk.client += 100_000;
    let end = talk.client + 1_448;
    talk.give(Side::Client, segment(SegmentKind::Go, talk.client, heard, 1_448));
    assert_eq!(talk.numbers.client.end, end);
    let reset = segment(SegmentKind::Reset, end, heard, 0);
    assert_eq!(talk.give(Side::Client, reset), TcpState::Closing(Ending::Reset));
}

#[test]
fn where_much_of_both_sides_is_lost_before_us_what_is_sent_again_makes_both_heard() {
    let mut talk = Talk::established();
    let lost = talk.client;
    talk.client += 100_000;
    talk.server += 100_000;
    for side in [Side::Client, Side::Server] {
        talk.say(side, SegmentKind::Go, 1_448);
    }
    assert_eq!(talk.numbers, Talk::established().numbers, "nothing fits");
    talk.give(Side::Client, segment(SegmentKind::Go, lost, talk.server, 1_448));
    for side in [Side::Client, Side::Server] {
        talk.say(side, SegmentKind::Go, 1_448);
    }
    let ends = (talk.numbers.client.end, talk.numbers.server.end);
    assert_eq!(ends, (talk.client, talk.server));
}

#[test]
fn numbers_wrap_around() {
    let mut talk = Talk::established();
    for _ in 0..10 {
        for side in [Side::Client, Side::Server] {
            talk.say(side, SegmentKind::Go, 1 << 29);
        }
    }
    talk.say(Side::Server, SegmentKind::Close, 0);
    talk.say(Side::Client, SegmentKind::Close, 0);
    talk.say(Side::Server, SegmentKind::Go, 0);
    assert!(talk.state.can_reopen());
}

#[test]
fn in_dsr_the_clients_ack_establishes_and_its_fin_closes() {
    let open = TcpState::first(SegmentKind::Open).seen_one_sided(SegmentKind::Go);
    assert_eq!(open, TcpState::Established);
    assert!(open.seen_one_sided(SegmentKind::Close).can_reopen());
    assert_eq!(TcpState::Syn.seen_one_sided(SegmentKind::Open), TcpState::Syn);
}

#[test]
fn udp_is_half_open_until_it_is_answered_and_unproven_until_the_client_sends_again() {
    let mut numbers = Numbers::default();
    let asked = TcpState::first(SegmentKind::Datagram);
    let mut seen = |state: TcpState, side| state.seen(side, &Segment::DATAGRAM, &mut numbers);
    assert!(seen(asked, Side::Client).is_half_open());
    let replied = seen(asked, Side::Server);
    assert!(!replied.is_half_open() && replied.is_unproven());
    assert_eq!(seen(replied, Side::Server), replied);
    assert!(!seen(replied, Side::Client).is_unproven());
    assert!(!asked.seen_one_sided(SegmentKind::Datagram).is_half_open());
}

fn kind() -> impl Strategy<Value = SegmentKind> {
    prop::sample::select(vec![
        SegmentKind::Reset,
        SegmentKind::Open,
        SegmentKind::Accept,
        SegmentKind::Close,
        SegmentKind::Go,
        SegmentKind::Odd,
    ])
}

fn side() -> impl Strategy<Value = Side> {
    prop::sample::select(vec![Side::Client, Side::Server])
}

proptest! {
    #[test]
    fn without_a_server_nothing_is_ever_established(
        segments in prop::collection::vec((kind(), any::<u32>(), any::<u32>(), 0..2_000_u32), 0..20),
    ) {
        let mut talk = Talk::syn();
        for (kind, sequence, acknowledged, len) in segments {
            talk.give(Side::Client, segment(kind, sequence, acknowledged, len));
        }
        prop_assert!(talk.state.is_half_open());
    }

    #[test]
    fn what_was_established_is_never_half_open_again(
        said in prop::collection::vec((side(), kind(), 0..3_000_u32), 0..30),
    ) {
        let mut talk = Talk::established();
        for (side, kind, len) in said {
            talk.say(side, kind, len);
        }
        prop_assert!(!talk.state.is_half_open());
    }

    #[test]
    fn a_segment_of_an_open_connection_changes_the_numbers_of_its_own_side_only(
        said in prop::collection::vec((side(), 0..3_000_u32, 0..3_000_u32, any::<bool>()), 0..30),
    ) {
        let mut talk = Talk::established();
        for (side, len, lost, is_last) in said {
            let other = |talk: &Talk| match side {
                Side::Client => talk.numbers.server,
                Side::Server => talk.numbers.client,
            };
            let before = other(&talk);
            match side {
                Side::Client => talk.client = talk.client.wrapping_add(lost),
                Side::Server => talk.server = talk.server.wrapping_add(lost),
            }
            let kind = if is_last { SegmentKind::Close } else { SegmentKind::Go };
            talk.say(side, kind, len);
            prop_assert_eq!(other(&talk), before);
        }
    }

    #[test]
    fn who_sees_no_number_changes_nothing(
        (client, server) in (any::<u32>(), any::<u32>()),
        unheard in prop::sample::select(vec![0_u32, 1_448, 200_000]),
        forged in prop::collection::vec((side(), kind(), any::<u32>(), any::<u32>(), 0..65_000_u32), 1..200),
    ) {
        let mut talk = Talk::syn();
        // both sides' numbers are anything
        let first = segment(SegmentKind::Open, client, 0, 0);
        talk.numbers = Numbers::new(&first);
        talk.client = client.wrapping_add(1);
        talk.give(Side::Server, segment(SegmentKind::Accept, server, talk.client, 0));
        talk.server = server.wrapping_add(1);
        talk.say(Side::Client, SegmentKind::Go, 0);
        // the client has not acknowledged all that the server has sent
        talk.say(Side::Server, SegmentKind::Go, unheard);
        let before = talk.clone();
        for (side, kind, sequence, acknowledged, len) in forged {
            // a lucky one in 2^32 is not what this is about
            let near = |a: u32, b: u32| a.wrapping_sub(b).wrapping_add(1 << 15) < 1 << 16;
            let (own, other) = match side {
                Side::Client => (talk.numbers.client, talk.numbers.server),
                Side::Server => (talk.numbers.server, talk.numbers.client),
            };
            prop_assume!(!near(sequence, own.end) && !near(sequence, other.acknowledged));
            prop_assume!(!near(acknowledged, other.end) && !near(acknowledged, own.acknowledged));
            talk.give(side, segment(kind, sequence, acknowledged, len));
            // and what it says prepares nothing: a RST right behind it
            talk.give(side, segment(SegmentKind::Reset, sequence.wrapping_add(len), 0, 0));
        }
        prop_assert_eq!((talk.state, talk.numbers), (before.state, before.numbers));
    }
}

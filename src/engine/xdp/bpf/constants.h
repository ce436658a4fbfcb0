/* Numbers that program and user space share (layout.rs has the same ones, a test compares them), and those of the
 * protocols. */
#ifndef CONVEY_CONSTANTS_H
#define CONVEY_CONSTANTS_H

/* Ethernet types (IANA), in network order on a little-endian machine. */
#define TYPE_IPV4 0x0008
#define TYPE_IPV6 0xdd86
#define TYPE_TAG 0x0081
#define TYPE_SERVICE_TAG 0xa888

/* Protocol numbers (IANA). */
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

/* Families, as keys have them. */
#define FAMILY_IPV4 4
#define FAMILY_IPV6 6

/* Flags of TCP (RFC 9293, section 3.1). */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Flags of a service. */
#define SERVICE_DSR 1
#define SERVICE_RANGE 2

/* Flags of a target. */
#define TARGET_KNOWN 1
#define TARGET_DOWN 2
#define TARGET_L2 4
#define TARGET_SLOW 8

/* Flags of an address. */
#define ADDRESS_OWN 1
#define ADDRESS_ABSENT 2

/* Flags of an interface. */
#define INTERFACE_NATIVE 1

/* Flags of the settings. */
#define SETTINGS_PASSTHROUGH 1
#define SETTINGS_ANY_INTERFACE 2
#define SETTINGS_MOVED 4
#define SETTINGS_OTHERS 8

/* Flag of a source. */
#define SOURCE_SERVED 1

/* Flags of a direction of a passthrough flow: which of its fields are there, whose FIN came first, and what it counts in. */
#define FLOW_FIN 1
#define FLOW_PEER_FIN 2
#define FLOW_OTHER_SYN 4
#define FLOW_CLOCK 8
#define FLOW_CLIENT_FIRST 16
#define FLOW_SERVER_FIRST 32
#define FLOW_FOLLOWED 64
#define FLOW_SHARED 128

/* Elements of `claims` behind those of the servers. */
#define CLAIMS_FLOWS 65536
#define CLAIMS_HALF_OPEN 65537
#define CLAIMS_GAVE_WAY 65538
#define CLAIMS 65539

/* Client networks that hold NAT ports of a server. */
#define SHARES 262144

/* Our addresses towards a server; ranges of NAT ports. */
#define LOCALS 8
#define NAT_RANGES 8

/* NAT ports that are tried for a new flow (flow/ports.rs), and those that are tried although one has been found whose flow
 * gives way: one that is over, one that is half-open (flow/table/opening.rs). */
#define RANDOM_TRIES 64
#define TRIES_IN_A_ROW 32
#define ENOUGH 8
#define ENOUGH_HALF_OPEN 48

/* Flags of a Maglev table. */
#define TABLE_KEYED 1

/* Maglev tables: slots, and elements of four slots each with the flags and the two halves of the hash key behind them. */
#define SLOTS 65537
#define SLOT_ELEMENTS 16385
#define TABLE_FLAGS 16385
#define TABLE_KEY_0 16386
#define TABLE_KEY_1 16387
#define TABLE_ELEMENTS 16388
/* Slots that are tried for a server that can be chosen; then the slow path looks on. */
#define DRAWS 16

/* Ranges of ports at one address. */
#define RANGES 16

/* States of a flow (flow/tcp_state.rs). CLOSED: the client's FIN came first. */
#define STATE_SYN 1
#define STATE_REFUSED 2
#define STATE_ESTABLISHED 3
#define STATE_RESET 4
#define STATE_CLOSED 5
#define STATE_ASKED 6
#define STATE_TALKING 7
#define STATE_ANSWERED 8
#define STATE_CLIENT_HALF_CLOSED 9
#define STATE_SERVER_HALF_CLOSED 10
#define STATE_SERVER_CLOSED 11
#define STATE_REPLIED 12

/* What is still to be counted of a handshake (flow/handshake.rs). */
#define WATCH_OVER 0
#define WATCH_AWAITED 1
#define WATCH_OVERDUE 2

/* Times in nanoseconds: a handshake in progress, the same where ports are scarce, a connection that has ended, the same of one
 * that the server has ended first, the rest of a port after that, a SYN that counts as unanswered. */
#define SECOND 1000000000ULL
#define LIFE_SYN (60 * SECOND)
#define LIFE_SCARCE (4 * SECOND)
#define LIFE_CLOSING (10 * SECOND)
#define LIFE_TIME_WAIT (60 * SECOND)
#define REST SECOND
#define OVERDUE (2500ULL * 1000000)

/* New flows a second and CPU that are remembered; beyond that Maglev alone says where they go, which costs nothing as long
 * as servers do not change (katran's limit is 125,000). */
#define REMEMBERED_A_SECOND 125000

/* Distances of sequence numbers (flow/numbers.rs). */
#define NEAR (1 << 15)
#define FAR (1 << 30)
#define AGAIN (1 << 20)

/* What user space has done with a flow (layout/orders.rs), and what came of it. */
#define ORDER_OBSERVE 1
#define ORDER_END 2
#define ORDER_MOVE 3
#define RESULT_FOUND 1
#define RESULT_SHARE_FULL 2
#define RESULT_PROVEN 4

/* Which ends of a packet change. */
enum ends { ENDS_NONE, ENDS_TO, ENDS_BOTH };

/* Discriminants of base::PacketReason. */
#define REASON_TO_SERVER 0
#define REASON_TO_CLIENT 1
#define REASONS 64

/* Why a packet of ours is left to the slow path: discriminants of PassReason. */
enum pass_reason {
	PASS_NAT_PORT,
	PASS_LIMITED,
	PASS_TIME_TO_LIVE,
	PASS_TOO_BIG,
	PASS_CHECKSUM,
	PASS_NO_SERVER,
	PASS_NEXT_HOP,
	PASS_SOURCE,
	PASS_OTHER_FLOW,
	PASS_CHANGING,
	PASS_OTHER_INTERFACE,
};
#define PASSES 32

#endif

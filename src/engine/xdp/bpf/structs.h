/* Keys and values of the maps. layout.rs has their twins; both sides check the sizes when they are compiled. Addresses have
 * 16 bytes, IPv4 ones are mapped (::ffff:a.b.c.d); ports in keys are in network order, in values in the machine's. */
#ifndef CONVEY_STRUCTS_H
#define CONVEY_STRUCTS_H

#include "constants.h"
#include "helpers.h"

/* Accessed as two words or four: addresses in keys are aligned to 4 bytes at least. */
struct address {
	__u32 word[4];
};

/* An address and port of ours with a protocol. */
struct endpoint {
	struct address address;
	__u16 port;
	__u8 protocol;
	__u8 family;
};
_Static_assert(sizeof(struct endpoint) == 20, "endpoint");

/* A packet's two ends; `to` alone is the key of its service. */
struct flow_key {
	struct address from;
	struct endpoint to;
	__u16 from_port;
	__u16 zero;
};
_Static_assert(sizeof(struct flow_key) == 40, "flow_key");

struct service {
	/* Of the ports of its range: its table is found by that. */
	__u16 first_port;
	__u16 flags;
};
_Static_assert(sizeof(struct service) == 4, "service");

struct range {
	__u16 first;
	__u16 last;
	__u16 flags;
	__u16 zero;
};

/* The services of several ports at one address and protocol. */
struct ranges {
	__u32 count;
	__u32 zero;
	struct range range[RANGES];
};
_Static_assert(sizeof(struct ranges) == 136, "ranges");

/* A server behind a VIP, and the next hop to it. Who writes it makes the version odd first, by a write of its own, then
 * writes the rest, then makes the version even: who has read the same even version before and after has read one state. */
struct target {
	__u32 version;
	/* Tells it from others that have had its number. */
	__u32 incarnation;
	struct address address;
	__u8 hop[6];
	/* How far its ports are above the VIP's, counted round at 65,536. */
	__u16 shift;
	__u8 interface_mac[6];
	__u16 flags;
	__u32 ifindex;
	/* Largest IP packet, in bytes. */
	__u32 mtu;
	/* How long a flow is remembered after its last packet, in milliseconds. */
	__u32 idle;
	__u32 zero[3];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct target) == 64, "target");

/* A DSR flow. */
struct flow {
	/* CLOCK_MONOTONIC of its last packet, in nanoseconds. */
	__u64 seen;
	/* The same of its SYN. */
	__u64 begun;
	__u32 target;
	__u32 incarnation;
	__u8 state;
	__u8 watch;
	__u8 zero[6];
};
_Static_assert(sizeof(struct flow) == 32, "flow");

/* A VLAN tag as it stands in a frame; a type of 0: there is none. */
struct tag {
	__u16 type;
	__u16 control;
};

/* Where a client's packets come from. */
struct origin {
	__u32 ifindex;
	__u8 mac[6];
	__u8 family;
	__u8 zero;
	struct tag tag[2];
};
_Static_assert(sizeof(struct origin) == 20, "origin");

/* What a side of a connection has sent and acknowledged. */
struct half {
	__u32 end;
	__u32 acknowledged;
	__u32 fin;
};

/* A passthrough flow's direction to the server, by its client's packets. */
struct forward {
	/* CLOCK_MONOTONIC of the last packet that made it last longer, in nanoseconds. */
	__u64 seen;
	/* The same of the first one: it tells flows of one key apart. */
	__u64 begun;
	struct endpoint nat;
	__u32 target;
	__u32 incarnation;
	struct half half;
	/* Behind the server's FIN. */
	__u32 peer_fin;
	/* Behind another SYN of the client. */
	__u32 other_syn;
	/* The client's clock when it last spoke after the server's FIN. */
	__u32 clock;
	struct origin origin;
	__u8 state;
	__u8 watch;
	__u16 flags;
	/* Length of the prefix of the client network that it counts for: a reload may make it another. */
	__u8 shared_prefix;
	__u8 zero[3];
};
_Static_assert(sizeof(struct forward) == 96, "forward");

/* Its direction to the client, by the server's packets. */
struct reverse {
	__u64 seen;
	__u64 begun;
	struct flow_key client;
	__u32 target;
	__u32 incarnation;
	struct half half;
	/* Behind the client's FIN. */
	__u32 peer_fin;
	/* Where replies go back to. */
	struct origin origin;
	__u8 state;
	__u8 zero;
	__u16 flags;
};
_Static_assert(sizeof(struct reverse) == 104, "reverse");

/* How flows begin towards a target. */
struct source {
	__u32 locals;
	/* Its server's element of `claims`. */
	__u32 server;
	/* NAT ports that a client network may hold; 0: all. */
	__u32 share;
	/* Claimed ports beyond which what is not proven lives shorter. */
	__u32 half_of_ports;
	__u8 prefix4;
	__u8 prefix6;
	__u16 flags;
	__u32 zero;
	struct address local[LOCALS];
};
_Static_assert(sizeof(struct source) == 152, "source");

/* A client network towards a server. */
struct share_key {
	struct address server;
	__u16 port;
	__u8 protocol;
	__u8 prefix;
	struct address network;
};
_Static_assert(sizeof(struct share_key) == 36, "share_key");

/* Where replies go instead of their origin. */
struct hop {
	__u8 mac[6];
	__u8 interface_mac[6];
	__u32 ifindex;
	__u32 mtu;
};
_Static_assert(sizeof(struct hop) == 20, "hop");

/* What a target has had. */
struct traffic {
	__u64 packets;
	__u64 bytes;
	/* DSR flows. */
	__u64 opened;
	__u64 dsr_completed;
	__u64 dsr_incomplete;
	/* To clients. */
	__u64 packets_out;
	__u64 bytes_out;
	/* Passthrough flows. */
	__u64 nat_opened;
	__u64 nat_closed;
	__u64 completed;
	__u64 unanswered;
	__u64 unacknowledged;
};
_Static_assert(sizeof(struct traffic) == 96, "traffic");

struct interface {
	__u8 mac[6];
	__u16 zero;
	__u32 flags;
	/* Largest IP packet that it sends, in bytes. */
	__u32 mtu;
};
_Static_assert(sizeof(struct interface) == 16, "interface");

struct port_range {
	__u16 first;
	__u16 last;
};

struct settings {
	__u32 flags;
	/* Passthrough flows, at most, and half-open ones. */
	__u32 max_flows;
	__u32 max_half_open;
	/* NAT ports of all ranges. */
	__u32 nat_ports;
	__u32 ranges;
	__u32 zero;
	struct port_range range[NAT_RANGES];
};
_Static_assert(sizeof(struct settings) == 56, "settings");

/* How many flows this CPU has remembered in this second. */
struct guard {
	__u64 second;
	__u64 count;
};

/* A packet as far as a flow's life depends on it (flow/segment.rs). */
struct segment {
	__u32 kind;
	__u32 sequence;
	/* Behind its last byte; SYN and FIN count as one. */
	__u32 end;
	__u32 acknowledged;
	/* The sender's clock. */
	__u32 timestamp;
	__u32 has;
};

/* What user space has done with a flow; it stands in place of a frame. */
struct order {
	__u32 what;
	__u32 side;
	/* The client's. */
	struct flow_key key;
	__u64 begun;
	struct segment segment;
	struct origin origin;
	__u32 result;
};
_Static_assert(sizeof(struct order) == 104, "order");

/* What else of a packet what becomes of it depends on. */
struct facts {
	/* The interface that it came by. */
	__u32 ifindex;
	/* Length of the IP packet, in bytes. */
	__u32 length;
	__u8 mac_to[6];
	__u8 mac_from[6];
	struct tag tag[2];
	__u8 tags;
	__u8 ttl;
	/* Its sender, on this machine, may have left its checksum to a network card that is not there. */
	__u8 may_be_unfinished;
	__u8 zero;
};

/* What is to become of a packet that is sent on: its ends, ports in network order, and its way. */
struct rewrite {
	struct address from;
	struct address to;
	__u16 from_port;
	__u16 to_port;
	/* Both ends change, or one, or none: a number of `enum ends`. */
	__u32 ends;
};

/* The way of a packet that is sent on. */
struct way {
	__u8 hop[6];
	__u8 interface_mac[6];
	__u32 ifindex;
	__u32 mtu;
};

/* A look for a NAT port. */
struct search {
	__u64 now;
	/* What the places are drawn by. */
	__u64 random;
	__u64 draws;
	/* Number of the target that the flow is for. */
	__u32 target;
	/* Candidates of each kind (flow/ports.rs), and ports that have been looked at. */
	__u32 own;
	__u32 tried;
	__u16 client_port;
	__u8 is_found;
	/* Of the flow that gives way most gladly; 0: none does. */
	__u8 best;
	__u8 best_is_slow;
	__u64 best_seen;
	struct flow_key best_key;
	struct flow_key best_holder;
};

/* What one packet needs. Not on the stack: without CAP_PERFMON the verifier guards each store there against speculation,
 * which doubles the cost of a packet. */
struct scratch {
	struct flow_key key;
	/* A passthrough flow as its client's packets have it, and as its server's do. */
	struct flow_key client_key;
	struct flow_key reverse_key;
	struct flow flow;
	struct target target;
	struct endpoint table;
	__u32 index;
	struct facts facts;
	struct segment segment;
	struct way way;
	struct rewrite rewrite;
	struct share_key share;
	struct origin origin;
	struct search search;
	struct forward forward;
	struct reverse reverse;
	/* What Maglev's hash is of. */
	__u8 hashed[40] __attribute__((aligned(8)));
};

#endif

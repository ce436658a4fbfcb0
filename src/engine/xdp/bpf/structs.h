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

/* What a target has had. */
struct traffic {
	__u64 packets;
	__u64 bytes;
	__u64 opened;
	__u64 completed;
	__u64 incomplete;
};
_Static_assert(sizeof(struct traffic) == 40, "traffic");

struct interface {
	__u8 mac[6];
	__u16 zero;
	__u32 flags;
	__u32 zero2;
};
_Static_assert(sizeof(struct interface) == 16, "interface");

struct settings {
	/* Least and greatest NAT port. */
	__u16 nat_first;
	__u16 nat_last;
	__u32 flags;
};
_Static_assert(sizeof(struct settings) == 8, "settings");

/* How many flows this CPU has remembered in this second. */
struct guard {
	__u64 second;
	__u64 count;
};

/* What one packet needs. Not on the stack: without CAP_PERFMON the verifier guards each store there against speculation,
 * which doubles the cost of a packet. */
struct scratch {
	struct flow_key key;
	struct flow flow;
	struct target target;
	struct endpoint table;
	__u32 index;
	/* What Maglev's hash is of. */
	__u8 hashed[40] __attribute__((aligned(8)));
};

#endif

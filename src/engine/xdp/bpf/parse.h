/* What a frame is, as far as the program decides about it: TCP or UDP in an unfragmented IP packet without IP options or
 * extension headers, behind two VLAN tags at most. Whatever else comes is left to the slow path, so that these checks may be
 * stricter than packet/parse.rs and never laxer. */
#ifndef CONVEY_PARSE_H
#define CONVEY_PARSE_H

#include "maps.h"

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__u16 type;
} __attribute__((packed));

/* Behind the type that says that it comes, with the type of what comes then. */
struct vlan_tag {
	__u16 control;
	__u16 type;
};

struct ipv4 {
	__u8 version_length;
	__u8 service;
	__u16 total;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__u32 from;
	__u32 to;
};
_Static_assert(sizeof(struct ipv4) == 20, "ipv4");

struct ipv6 {
	__u32 version_label;
	__u16 payload;
	__u8 protocol;
	__u8 ttl;
	struct address from;
	struct address to;
};
_Static_assert(sizeof(struct ipv6) == 40, "ipv6");

struct transport {
	__u16 from_port;
	__u16 to_port;
};

struct tcp {
	struct transport ports;
	__u32 sequence;
	__u32 acknowledgement;
	__u8 offset;
	__u8 flags;
	__u16 window;
	__u16 check;
	__u16 urgent;
};
_Static_assert(sizeof(struct tcp) == 20, "tcp");

struct udp {
	struct transport ports;
	__u16 length;
	__u16 check;
};
_Static_assert(sizeof(struct udp) == 8, "udp");

/* Where things are, and what counts of them. Pointers are into the frame. */
struct packet {
	struct ethernet *link;
	/* struct ipv4 or ipv6, as `is_ipv4` says: the verifier does not take the other one's null for what it is. */
	void *network;
	struct transport *transport;
	/* The checksum of TCP or UDP. */
	__u16 *check;
	/* Length of the IP packet, and of what it carries, in bytes. */
	__u32 length;
	__u32 payload;
	struct tag tag[2];
	__u8 is_ipv4;
	__u8 tags;
	__u8 ttl;
	__u8 protocol;
	/* Of TCP. */
	__u8 flags;
};

/* Whether an IP packet of so many bytes from `offset` on is there. The frame's first part may be only its beginning, and
 * without CAP_PERFMON a length may not be added to a pointer into it. */
INLINE int is_there(struct xdp_md *frame, __u32 offset, __u32 length)
{
	return offset + length <= buffer_length(frame);
}

INLINE __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* The sum over an IPv4 header of 20 bytes, which is 0xffff if its checksum is right. */
INLINE __u32 header_sum(const struct ipv4 *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4]);
}

/* Whether a source is the address of one host: not multicast or class E, loopback, or none (RFC 1122, section 3.2.1.3). */
INLINE int is_one_host4(__u32 address)
{
	__u8 first = address;

	return first < 224 && first != 127 && address;
}

INLINE int is_one_host6(const struct address *address)
{
	__u8 first = address->word[0];
	__u32 rest = address->word[0] | address->word[1] | address->word[2];

	return first != 0xff && (rest || (address->word[3] && address->word[3] != 0x01000000));
}

INLINE int parse_ipv4(struct xdp_md *frame, struct packet *packet, void *at, __u32 offset, struct flow_key *key)
{
	void *end = (void *)(long)frame->data_end;
	struct ipv4 *ip = at;

	if ((void *)(ip + 1) > end)
		return 0;
	packet->length = swap16(ip->total);
	if (ip->version_length != 0x45 || packet->length < sizeof(*ip))
		return 0;
	/* more fragments, or an offset */
	if (ip->fragment & swap16(0x3fff))
		return 0;
	if (!is_one_host4(ip->from))
		return 0;
	if (header_sum(ip) != 0xffff || !is_there(frame, offset, packet->length))
		return 0;
	packet->network = ip;
	packet->is_ipv4 = 1;
	packet->ttl = ip->ttl;
	packet->protocol = ip->protocol;
	packet->payload = packet->length - sizeof(*ip);
	packet->transport = (void *)(ip + 1);
	key->from = (struct address){ { 0, 0, 0xffff0000, ip->from } };
	key->to.address = (struct address){ { 0, 0, 0xffff0000, ip->to } };
	key->to.family = FAMILY_IPV4;
	return 1;
}

INLINE int parse_ipv6(struct xdp_md *frame, struct packet *packet, void *at, __u32 offset, struct flow_key *key)
{
	void *end = (void *)(long)frame->data_end;
	struct ipv6 *ip = at;

	if ((void *)(ip + 1) > end)
		return 0;
	if ((*(__u8 *)at & 0xf0) != 0x60)
		return 0;
	if (!is_one_host6(&ip->from))
		return 0;
	packet->payload = swap16(ip->payload);
	packet->length = packet->payload + sizeof(*ip);
	if (!is_there(frame, offset, packet->length))
		return 0;
	packet->network = ip;
	packet->is_ipv4 = 0;
	packet->ttl = ip->ttl;
	packet->protocol = ip->protocol;
	packet->transport = (void *)(ip + 1);
	key->from = ip->from;
	key->to.address = ip->to;
	key->to.family = FAMILY_IPV6;
	return 1;
}

INLINE int parse_tcp(struct xdp_md *frame, struct packet *packet)
{
	void *end = (void *)(long)frame->data_end;
	struct tcp *tcp = (void *)packet->transport;
	__u32 header;

	if ((void *)(tcp + 1) > end)
		return 0;
	header = (tcp->offset >> 4) * 4;
	if (header < sizeof(*tcp) || header > packet->payload)
		return 0;
	packet->flags = tcp->flags;
	packet->check = &tcp->check;
	KEEP(packet->check);
	return 1;
}

INLINE int parse_udp(struct xdp_md *frame, struct packet *packet)
{
	void *end = (void *)(long)frame->data_end;
	struct udp *udp = (void *)packet->transport;
	__u32 length;

	if ((void *)(udp + 1) > end)
		return 0;
	length = swap16(udp->length);
	if (length < sizeof(*udp) || length > packet->payload)
		return 0;
	packet->flags = 0;
	packet->check = &udp->check;
	KEEP(packet->check);
	return 1;
}

/* Reads a frame, and the key of its flow; whether the program may decide about it. */
INLINE int parse(struct xdp_md *frame, struct packet *packet, struct flow_key *key)
{
	void *end = (void *)(long)frame->data_end;
	void *at = (void *)(long)frame->data;
	struct ethernet *link = at;
	__u32 offset = sizeof(*link);
	__u16 type;

	if ((void *)(link + 1) > end)
		return 0;
	/* broadcast and multicast */
	if ((link->destination[0] | link->source[0]) & 1)
		return 0;
	packet->link = link;
	packet->tags = 0;
	packet->tag[0] = packet->tag[1] = (struct tag){ 0, 0 };
	type = link->type;
	at = link + 1;
#pragma clang loop unroll(full)
	for (int i = 0; i < 2; i++) {
		struct vlan_tag *tag = at;

		if (type != TYPE_TAG && type != TYPE_SERVICE_TAG)
			break;
		if ((void *)(tag + 1) > end)
			return 0;
		packet->tags++;
		packet->tag[i] = (struct tag){ type, tag->control };
		type = tag->type;
		at = tag + 1;
		offset += sizeof(*tag);
	}
	if (type == TYPE_IPV4) {
		if (!parse_ipv4(frame, packet, at, offset, key))
			return 0;
	} else if (type == TYPE_IPV6) {
		if (!parse_ipv6(frame, packet, at, offset, key))
			return 0;
	} else {
		return 0;
	}
	if (packet->protocol == PROTOCOL_TCP) {
		if (!parse_tcp(frame, packet))
			return 0;
	} else if (packet->protocol == PROTOCOL_UDP) {
		if (!parse_udp(frame, packet))
			return 0;
	} else {
		return 0;
	}
	key->to.protocol = packet->protocol;
	key->to.port = packet->transport->to_port;
	key->from_port = packet->transport->from_port;
	key->zero = 0;
	return 1;
}

#endif

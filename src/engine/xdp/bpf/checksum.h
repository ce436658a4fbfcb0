/* Checksums after a change (RFC 1624, equation 3), and whether one has been finished at all. */
#ifndef CONVEY_CHECKSUM_H
#define CONVEY_CHECKSUM_H

#include "parse.h"

/* Adds to a sum what a word has become. */
INLINE __u64 changed32(__u64 sum, __u32 old, __u32 new)
{
	return sum + (__u32)~old + new;
}

INLINE __u64 changed16(__u64 sum, __u16 old, __u16 new)
{
	return sum + (__u16)~old + new;
}

/* The sum that a checksum stands for. */
INLINE __u64 sum_of(__u16 check)
{
	return (__u16)~check;
}

INLINE __u16 check_of(__u64 sum)
{
	return ~fold(sum);
}

/* The sum of the pseudo header. */
INLINE __u64 pseudo_sum(const struct packet *packet, const struct flow_key *key)
{
	__u64 sum = swap16(packet->payload) + swap16(packet->protocol);

	if (packet->is_ipv4)
		return sum + key->from.word[3] + key->to.address.word[3];
#pragma clang loop unroll(full)
	for (int i = 0; i < 4; i++)
		sum += (__u64)key->from.word[i] + key->to.address.word[i];
	return sum;
}

/* Whether a sender on this machine has left the checksum to a network card that is not there: the field has the sum of the
 * pseudo header. One finished checksum in 65,536 looks the same; the slow path can tell them apart. */
INLINE int is_unfinished(const struct packet *packet, const struct flow_key *key)
{
	return *packet->check == fold(pseudo_sum(packet, key));
}

/* One hop less to go. */
INLINE void count_hop(const struct packet *packet)
{
	if (packet->is_ipv4) {
		struct ipv4 *ip = packet->network;
		__u16 *word = (__u16 *)&ip->ttl;
		__u16 old = *word;

		ip->ttl--;
		ip->check = check_of(changed16(sum_of(ip->check), old, *word));
	} else {
		struct ipv6 *ip = packet->network;

		ip->ttl--;
	}
}

/* Writes the checksum of a sum, unless there is none. */
INLINE void put_check(const struct packet *packet, __u64 sum)
{
	__u16 check;

	if (packet->protocol == PROTOCOL_UDP && *packet->check == 0)
		return;
	check = check_of(sum);
	/* of UDP, 0 would mean that there is none (RFC 768) */
	if (packet->protocol == PROTOCOL_UDP && check == 0)
		check = 0xffff;
	*packet->check = check;
}

/* Another destination. */
INLINE void set_destination(const struct packet *packet, const struct address *address, __u16 port)
{
	__u64 sum = sum_of(*packet->check);

	if (packet->is_ipv4) {
		struct ipv4 *ip = packet->network;

		sum = changed32(sum, ip->to, address->word[3]);
		ip->check = check_of(changed32(sum_of(ip->check), ip->to, address->word[3]));
		ip->to = address->word[3];
	} else {
		struct ipv6 *ip = packet->network;

#pragma clang loop unroll(full)
		for (int i = 0; i < 4; i++) {
			sum = changed32(sum, ip->to.word[i], address->word[i]);
			ip->to.word[i] = address->word[i];
		}
	}
	sum = changed16(sum, packet->transport->to_port, port);
	packet->transport->to_port = port;
	put_check(packet, sum);
}

/* Another source and destination. */
INLINE void translate(const struct packet *packet, const struct address *from, __u16 from_port,
		      const struct address *to, __u16 to_port)
{
	__u64 sum = sum_of(*packet->check);

	if (packet->is_ipv4) {
		struct ipv4 *ip = packet->network;
		__u64 changes = changed32(changed32(0, ip->from, from->word[3]), ip->to, to->word[3]);

		sum += changes;
		ip->check = check_of(sum_of(ip->check) + changes);
		ip->from = from->word[3];
		ip->to = to->word[3];
	} else {
		struct ipv6 *ip = packet->network;

#pragma clang loop unroll(full)
		for (int i = 0; i < 4; i++) {
			sum = changed32(sum, ip->from.word[i], from->word[i]);
			sum = changed32(sum, ip->to.word[i], to->word[i]);
			ip->from.word[i] = from->word[i];
			ip->to.word[i] = to->word[i];
		}
	}
	sum = changed16(sum, packet->transport->from_port, from_port);
	sum = changed16(sum, packet->transport->to_port, to_port);
	packet->transport->from_port = from_port;
	packet->transport->to_port = to_port;
	put_check(packet, sum);
}

#endif

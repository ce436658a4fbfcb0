/* The server of a new flow: the hash of balance/hash.rs or balance/key.rs, and the Maglev table of its service. */
#ifndef CONVEY_CHOOSE_H
#define CONVEY_CHOOSE_H

#include "parse.h"

/* No service is at an address and port. */
#define NO_SERVICE 0xffffffff

/* FNV-1a (draft-eastlake-fnv). */
#define FNV_OFFSET 0xcbf29ce484222325ULL
#define FNV_PRIME 0x00000100000001b3ULL

/* Most bytes that are hashed: two IPv6 addresses with ports. */
#define HASHED_BYTES 36

/* The finalizer of SplitMix64. */
INLINE __u64 mix64(__u64 z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

INLINE __u64 rotate(__u64 value, int bits)
{
	return (value << bits) | (value >> (64 - bits));
}

INLINE void sip_round(__u64 v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

INLINE void sip_word(__u64 v[4], __u64 word)
{
	v[3] ^= word;
	sip_round(v);
	sip_round(v);
	v[0] ^= word;
}

/* SipHash-2-4 (Aumasson and Bernstein, INDOCRYPT 2012) of a multiple of 4 bytes. */
INLINE __u64 siphash(__u64 k0, __u64 k1, const __u8 *bytes, __u32 length)
{
	const __u64 *words = (const __u64 *)bytes;
	__u64 v[4] = { k0 ^ 0x736f6d6570736575ULL, k1 ^ 0x646f72616e646f6dULL, k0 ^ 0x6c7967656e657261ULL,
		       k1 ^ 0x7465646279746573ULL };
	__u64 last = (__u64)length << 56;

#pragma clang loop unroll(full)
	for (__u32 i = 0; i <= HASHED_BYTES / 8; i++) {
		/* read where `i` is a constant, for the same reason */
		__u32 half = READ_ONCE(*(const __u32 *)&words[i]);

		if (i == length / 8) {
			if (length % 8)
				last |= half;
			break;
		}
		sip_word(v, words[i]);
	}
	sip_word(v, last);
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Of a multiple of 4 bytes. */
INLINE __u64 fnv1a(const __u8 *bytes, __u32 length)
{
	__u64 hash = FNV_OFFSET;

	/* unrolled: without CAP_PERFMON no register is added to a pointer in a loop */
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < HASHED_BYTES / 4; i++) {
		const __u8 *four = bytes + 4 * i;

		if (i == length / 4)
			break;
		hash = (hash ^ four[0]) * FNV_PRIME;
		hash = (hash ^ four[1]) * FNV_PRIME;
		hash = (hash ^ four[2]) * FNV_PRIME;
		hash = (hash ^ four[3]) * FNV_PRIME;
	}
	return hash;
}

/* Writes what is hashed: of a range the client's address, else both addresses with ports. Gives its length in bytes. */
INLINE __u32 gather(struct scratch *scratch, int is_range)
{
	const struct flow_key *key = &scratch->key;
	__u32 *words = (__u32 *)scratch->hashed;
	__u16 *halves = (__u16 *)scratch->hashed;

	if (key->to.family == FAMILY_IPV4) {
		words[0] = key->from.word[3];
		if (is_range)
			return 4;
		halves[2] = key->from_port;
		halves[3] = ((const __u16 *)&key->to.address.word[3])[0];
		halves[4] = ((const __u16 *)&key->to.address.word[3])[1];
		halves[5] = key->to.port;
		return 12;
	}
	/* or the compiler writes the fields of both families by one code, at places in registers */
	KEEP(words);
	KEEP(halves);
	words[0] = key->from.word[0];
	words[1] = key->from.word[1];
	words[2] = key->from.word[2];
	words[3] = key->from.word[3];
	if (is_range)
		return 16;
	halves[8] = key->from_port;
#pragma clang loop unroll(full)
	for (int i = 0; i < 8; i++)
		halves[9 + i] = ((const __u16 *)key->to.address.word)[i];
	halves[17] = key->to.port;
	return 36;
}

/* Whether a port is among the NAT ports. */
INLINE int is_nat_port(const struct settings *mode, __u16 port)
{
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < NAT_RANGES; i++) {
		/* read where `i` is a constant */
		const struct port_range range = mode->range[i];

		if (i >= mode->ranges)
			return 0;
		if (port >= range.first && port <= range.last)
			return 1;
	}
	return 0;
}

/* The service at an address and port: of that port, or of a range of ports. */
INLINE int find_service(struct scratch *scratch, const struct endpoint *at, struct service *service)
{
	struct service *one = map_lookup(&services, at);
	struct ranges *several;
	__u16 port;

	if (one) {
		*service = *one;
		return 1;
	}
	scratch->table = *at;
	scratch->table.port = 0;
	several = map_lookup(&ranges, &scratch->table);
	if (!several)
		return 0;
	port = swap16(at->port);
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < RANGES; i++) {
		const struct range *range = &several->range[i];
		/* read where `i` is a constant: without CAP_PERFMON no register is added to a pointer in a loop */
		__u16 flags = READ_ONCE(range->flags);

		if (i >= several->count)
			return 0;
		if (port >= range->first && port <= range->last) {
			service->first_port = range->first;
			service->flags = flags;
			return 1;
		}
	}
	return 0;
}

/* The service at a packet's destination: its first port and flags, or NO_SERVICE. */
APART __u32 service_of_packet(void)
{
	struct scratch *scratch = scratch_of_cpu();
	struct service service;

	if (!scratch || !find_service(scratch, &scratch->key.to, &service))
		return NO_SERVICE;
	return service.first_port | (__u32)service.flags << 16;
}

INLINE __u64 *element(void *table, struct scratch *scratch, __u32 index)
{
	scratch->index = index;
	return map_lookup(table, &scratch->index);
}

INLINE __u64 flow_hash(void *table, struct scratch *scratch, int is_range)
{
	__u32 length = gather(scratch, is_range);
	__u64 *flags = element(table, scratch, TABLE_FLAGS);
	__u64 *k0, *k1;

	if (!flags || !(*flags & TABLE_KEYED))
		return mix64(fnv1a(scratch->hashed, length));
	k0 = element(table, scratch, TABLE_KEY_0);
	k1 = element(table, scratch, TABLE_KEY_1);
	if (!k0 || !k1)
		return 0;
	return siphash(*k0, *k1, scratch->hashed, length);
}

/* The number of the server for a new flow; 0: the slow path must say. */
APART __u32 choose(__u32 first_port, __u32 is_range)
{
	struct scratch *scratch = scratch_of_cpu();
	__u64 hash;
	void *table;

	if (!scratch)
		return 0;
	scratch->table = scratch->key.to;
	scratch->table.port = swap16(first_port);
	table = map_lookup(&tables, &scratch->table);
	if (!table)
		return 0;
	/* an IPv4 client in IPv6 is hashed as that one: nobody sends it */
	if (scratch->key.to.family == FAMILY_IPV6 && !scratch->key.from.word[0] && !scratch->key.from.word[1] &&
	    scratch->key.from.word[2] == 0xffff0000)
		return 0;
	hash = flow_hash(table, scratch, is_range);
	/* unrolled: without CAP_PERFMON the verifier follows a loop beyond its end */
#pragma clang loop unroll(full)
	for (int i = 0; i < DRAWS; i++) {
		__u32 slot = hash % SLOTS;
		__u64 *four = element(table, scratch, slot / 4);
		__u32 number;

		if (!four)
			return 0;
		number = *four >> (slot % 4 * 16) & 0xffff;
		if (number)
			return number;
		hash = mix64(hash + 1);
	}
	return 0;
}

#endif

/* A NAT port for a new flow: the candidates of flow/ports.rs, in their order, and of flow/table/opening.rs which of them is
 * taken: a free one, or that of a flow whose time is up. Where another flow would have to give way, user space says which. */
#ifndef CONVEY_PORTS_H
#define CONVEY_PORTS_H

#include "choose.h"
#include "life.h"

/* How gladly a flow gives way (flow/table/yielding.rs), from the one that does most gladly; 0: not at all. */
enum yielding { KEEPS, EXPIRED, OVER, TIME_WAIT, TIME_WAIT_REFUSES, ANSWERED, OPENING };

#define GOLDEN_GAMMA 0x9e3779b97f4a7c15ULL

INLINE __u64 next_random(__u64 *state)
{
	*state += GOLDEN_GAMMA;
	return mix64(*state);
}

/* The upper half of the product with a number below 2^32: hash.rs's `below`. */
INLINE __u64 below(__u64 random, __u64 limit)
{
	return ((random >> 32) * limit + ((random & 0xffffffff) * limit >> 32)) >> 32;
}

/* PortRanges::at. */
INLINE __u16 port_at(const struct settings *mode, __u32 place)
{
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < NAT_RANGES; i++) {
		const struct port_range range = mode->range[i];
		__u32 length = (__u32)range.last - range.first + 1;

		if (i >= mode->ranges)
			return 0;
		if (place < length)
			return range.first + place;
		place -= length;
	}
	return 0;
}

/* Has one of our addresses be the packet's new source. */
INLINE void put_local(struct scratch *scratch, const struct source *source, __u32 at)
{
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < LOCALS; i++) {
		/* read where `i` is a constant */
		__u32 a = READ_ONCE(source->local[i].word[0]), b = READ_ONCE(source->local[i].word[1]);
		__u32 c = READ_ONCE(source->local[i].word[2]), d = READ_ONCE(source->local[i].word[3]);

		if (i == at)
			scratch->reverse_key.to.address = (struct address){ { a, b, c, d } };
	}
}

/* Writes the candidate of a number into `scratch->reverse_key`; 0: there are no more. */
INLINE int candidate(struct scratch *scratch, const struct source *source, const struct settings *mode, __u32 number)
{
	struct search *search = &scratch->search;
	__u64 many = (__u64)mode->nat_ports * source->locals;
	__u64 place;

	if (number < search->own) {
		__u32 at = below(rotate(search->random, 32), source->locals) + number;

		put_local(scratch, source, at >= source->locals ? at - source->locals : at);
		scratch->reverse_key.to.port = swap16(search->client_port);
		return 1;
	}
	number -= search->own;
	if (number < RANDOM_TRIES) {
		place = below(next_random(&search->draws), many);
	} else {
		number -= RANDOM_TRIES;
		if (number >= TRIES_IN_A_ROW || number >= many)
			return 0;
		place = below(search->random, many) + number;
		if (place >= many)
			place -= many;
	}
	if (!mode->nat_ports)
		return 0;
	put_local(scratch, source, place / mode->nat_ports);
	scratch->reverse_key.to.port = swap16(port_at(mode, place % mode->nat_ports));
	return 1;
}

/* How gladly the flow that holds the candidate gives way. */
INLINE __u8 rank(struct scratch *scratch, const struct reverse *held, __u64 *seen, __u8 *is_slow)
{
	const struct search *search = &scratch->search;
	const struct forward *forward = map_lookup(&forwards, &held->client);
	const struct target *target;
	__u8 state;

	if (!forward || forward->begun != held->begun)
		return KEEPS;
	target = map_lookup(&targets, &forward->target);
	if (!target)
		return KEEPS;
	*seen = forward->seen > held->seen ? forward->seen : held->seen;
	*is_slow = !!(target->flags & TARGET_SLOW);
	if (is_expired(scratch, forward, held, target->idle, search->now))
		return EXPIRED;
	state = forward->state;
	switch (state) {
	case STATE_REFUSED:
	case STATE_RESET:
		return OVER;
	case STATE_CLOSED:
		return has_passed(REST, *seen, search->now) ? OVER : KEEPS;
	case STATE_SERVER_CLOSED:
		if (!has_passed(REST, *seen, search->now))
			return KEEPS;
		if (forward->flags & FLOW_CLOCK && scratch->segment.has & HAS_TIMESTAMP)
			return distance(scratch->segment.timestamp, forward->clock) > 0 ? TIME_WAIT
											: TIME_WAIT_REFUSES;
		return distance(scratch->segment.sequence, held->half.acknowledged) > 0 ? TIME_WAIT
											: TIME_WAIT_REFUSES;
	case STATE_SYN:
	case STATE_ANSWERED:
	case STATE_ASKED:
		return OPENING;
	case STATE_REPLIED:
		return ANSWERED;
	default:
		return KEEPS;
	}
}

/* Whether clients send to an address and port: then it is no NAT port. */
INLINE int has_service(struct scratch *scratch, const struct endpoint *at)
{
	struct service service;

	return find_service(scratch, at, &service);
}

/* Looks at a candidate. 1: the search is over. */
static int try_port(__u32 number, void *context)
{
	struct scratch *scratch = scratch_of_cpu();
	const struct settings *mode = map_lookup(&settings, &FIRST);
	const struct source *source;
	struct search *search;
	struct reverse *held;

	(void)context;
	if (!scratch || !mode)
		return 1;
	search = &scratch->search;
	source = map_lookup(&sources, &search->target);
	if (!source || !candidate(scratch, source, mode, number))
		return 1;
	if (source->flags & SOURCE_SERVED && has_service(scratch, &scratch->reverse_key.to))
		return 0;
	held = map_lookup(&reverses, &scratch->reverse_key);
	if (!held) {
		/* the claim: one CPU's only */
		if (map_update(&reverses, &scratch->reverse_key, &scratch->reverse, BPF_NOEXIST) == 0) {
			search->is_found = 1;
			return 1;
		}
	} else {
		__u64 seen = 0;
		__u8 is_slow = 0;
		__u8 class = rank(scratch, held, &seen, &is_slow);

		if (class != KEEPS &&
		    (search->best == KEEPS || class < search->best ||
		     (class == search->best && seen < search->best_seen))) {
			search->best = class;
			search->best_seen = seen;
			search->best_is_slow = is_slow;
			search->best_key = scratch->reverse_key;
			search->best_holder = held->client;
		}
	}
	search->tried++;
	if (search->best == KEEPS)
		return 0;
	return search->tried >= (search->best <= TIME_WAIT ? ENOUGH : ENOUGH_HALF_OPEN);
}

/* Claims a NAT port for the flow in `scratch->reverse`, which is then in `scratch->reverse_key`; 0: user space must. */
INLINE int claim_port(struct scratch *scratch, const struct source *source, const struct settings *mode, __u64 random,
		      __u64 now)
{
	struct search *search = &scratch->search;

	search->now = now;
	search->random = random;
	search->draws = random;
	search->tried = 0;
	search->best = KEEPS;
	search->is_found = 0;
	search->own = is_nat_port(mode, search->client_port) ? source->locals : 0;
	repeat(LOCALS + RANDOM_TRIES + TRIES_IN_A_ROW, try_port, 0, 0);
	if (search->is_found)
		return 1;
	/* user space ends those of frontends with limits */
	if (search->best != EXPIRED || search->best_is_slow)
		return 0;
	scratch->reverse_key = search->best_key;
	scratch->client_key = search->best_holder;
	if (!unmake())
		return 0;
	claim_add(scratch, CLAIMS_GAVE_WAY, 1);
	return map_update(&reverses, &scratch->reverse_key, &scratch->reverse, BPF_NOEXIST) == 0;
}

#endif

/* What flows count in, taking packets in that may change their life, and ending them. */
#ifndef CONVEY_LIFE_H
#define CONVEY_LIFE_H

#include "numbers.h"
#include "way.h"

/* Adds to an element of `claims`. */
INLINE void claim_add(struct scratch *scratch, __u32 element, __s64 add)
{
	__u64 *count;

	scratch->index = element;
	count = map_lookup(&claims, &scratch->index);
	if (count)
		__sync_fetch_and_add(count, add);
}

INLINE __s64 claimed(struct scratch *scratch, __u32 element)
{
	__s64 *count;

	scratch->index = element;
	count = map_lookup(&claims, &scratch->index);
	return count ? READ_ONCE(*count) : 0;
}

/* The first bits of a word that stands in network order. */
INLINE __u32 first_bits(__u32 word, __u32 bits)
{
	if (bits == 0)
		return 0;
	return bits >= 32 ? word : word & swap32(~0U << (32 - bits));
}

INLINE __u32 bits_of_word(__u32 prefix, __u32 word)
{
	return prefix > 32 * word ? prefix - 32 * word : 0;
}

/* The length of a client network's prefix. */
INLINE __u32 prefix_of(const struct scratch *scratch, const struct source *source)
{
	/* both read first: without CAP_PERFMON no register is added to a pointer that comes from two places */
	__u32 of_ipv4 = READ_ONCE(source->prefix4), of_ipv6 = READ_ONCE(source->prefix6);

	return scratch->reverse_key.to.family == FAMILY_IPV4 ? of_ipv4 : of_ipv6;
}

/* Writes the key of a client's share: of the server of `scratch->reverse_key`. */
INLINE void share_of(struct scratch *scratch, __u32 prefix, const struct address *client)
{
	struct share_key *key = &scratch->share;

	key->server = scratch->reverse_key.from;
	key->port = scratch->reverse_key.from_port;
	key->protocol = scratch->reverse_key.to.protocol;
	key->prefix = prefix;
	if (scratch->reverse_key.to.family == FAMILY_IPV4) {
		key->network = (struct address){ { 0, 0, 0xffff0000, first_bits(client->word[3], prefix) } };
		return;
	}
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < 4; i++)
		key->network.word[i] = first_bits(client->word[i], bits_of_word(prefix, i));
}

/* Whether the client of `scratch->share` holds what it may. */
INLINE int is_share_full(struct scratch *scratch, const struct source *source)
{
	__s64 *held = map_lookup(&shares, &scratch->share);

	return held && *held >= (__s64)source->share;
}

/* Counts one port more of the client of `scratch->share`; 0: it holds what it may. */
INLINE int take_share(struct scratch *scratch, const struct source *source)
{
	__s64 *held = map_lookup(&shares, &scratch->share);
	__s64 one = 1;

	if (!held) {
		if (map_update(&shares, &scratch->share, &one, BPF_NOEXIST) == 0)
			return 1;
		/* another CPU was faster; or there is no room: then nobody is refused for it */
		held = map_lookup(&shares, &scratch->share);
		if (!held)
			return 1;
	}
	if (*held >= (__s64)source->share)
		return 0;
	__sync_fetch_and_add(held, 1);
	return 1;
}

INLINE void give_share(struct scratch *scratch)
{
	__s64 *held = map_lookup(&shares, &scratch->share);

	if (held)
		__sync_fetch_and_add(held, -1);
}

/* Writes the key that packets of the copied target have in a flow of it. */
INLINE void reverse_of(struct scratch *scratch, const struct forward *forward, const struct flow_key *key)
{
	struct flow_key *reverse = &scratch->reverse_key;

	reverse->from = scratch->target.address;
	reverse->from_port = swap16(swap16(key->to.port) + scratch->target.shift);
	reverse->to = forward->nat;
	reverse->zero = 0;
}

/* HandshakeWatch::client_sent, where both sides are seen. */
INLINE void watch_both(struct forward *forward, enum kind kind, __u64 now, struct traffic *traffic)
{
	if (forward->watch == WATCH_OVER)
		return;
	if (forward->state == STATE_REFUSED) {
		forward->watch = WATCH_OVER;
		return;
	}
	if (!is_opening(forward->state)) {
		forward->watch = WATCH_OVER;
		traffic->completed++;
		return;
	}
	if (forward->watch == WATCH_AWAITED && kind == KIND_OPEN && has_passed(OVERDUE, forward->begun, now)) {
		forward->watch = WATCH_OVERDUE;
		if (forward->state == STATE_SYN)
			traffic->unanswered++;
		KEEP(traffic);
		if (forward->state == STATE_ANSWERED)
			traffic->unacknowledged++;
	}
}

/* What a change of a flow's state counts in. Gives what it means for its client, as bits of a result. */
INLINE __u32 count_change(struct scratch *scratch, struct forward *forward, struct reverse *reverse, __u8 before,
			  __u8 after)
{
	const struct source *source = map_lookup(&sources, &forward->target);
	__u32 result = 0;

	if (can_reopen(after) && !can_reopen(before)) {
		if (source)
			claim_add(scratch, source->server, -1);
		if (forward->flags & FLOW_SHARED) {
			share_of(scratch, forward->shared_prefix, &reverse->client.from);
			give_share(scratch);
		}
		forward->flags &= ~FLOW_SHARED;
	}
	if (is_opening(before) && !is_opening(after))
		claim_add(scratch, CLAIMS_HALF_OPEN, -1);
	if (is_unproven(before) && !is_unproven(after)) {
		result |= RESULT_PROVEN;
		forward->flags |= FLOW_FOLLOWED;
		reverse->flags |= FLOW_FOLLOWED;
		if (source && source->share) {
			forward->shared_prefix = prefix_of(scratch, source);
			share_of(scratch, forward->shared_prefix, &reverse->client.from);
			if (take_share(scratch, source))
				forward->flags |= FLOW_SHARED;
			else
				result |= RESULT_SHARE_FULL;
		}
	}
	return result;
}

/* Takes a side's segment, `scratch->segment`, in. Both keys in the scratch are the flow's. Gives bits of a result. */
INLINE __u32 observe_both(struct scratch *scratch, struct forward *forward, struct reverse *reverse, __u32 side,
			  __u64 now)
{
	__u8 before = forward->state;
	__u8 after = state_seen(forward, reverse, &scratch->segment, side);
	struct traffic *to = map_lookup(&traffic, &forward->target);

	if (after != before) {
		forward->state = after;
		reverse->state = after;
	}
	if (after != before || is_prolonged_by(before, side)) {
		if (side == CLIENT)
			forward->seen = now;
		else
			reverse->seen = now;
	}
	if (side == CLIENT && to)
		watch_both(forward, scratch->segment.kind, now, to);
	return RESULT_FOUND | (after != before ? count_change(scratch, forward, reverse, before, after) : 0);
}

/* Ends the flow of both keys in the scratch. Whether it was there. */
APART int unmake(void)
{
	struct scratch *scratch = scratch_of_cpu();
	const struct source *source;
	struct forward *forward;
	struct traffic *to;
	__u8 state, watch, prefix;
	__u16 flags;

	if (!scratch)
		return 0;
	forward = map_lookup(&forwards, &scratch->client_key);
	if (!forward)
		return 0;
	source = map_lookup(&sources, &forward->target);
	to = map_lookup(&traffic, &forward->target);
	state = forward->state;
	watch = forward->watch;
	flags = forward->flags;
	prefix = forward->shared_prefix;
	/* who takes it out, and nobody else, does the rest */
	if (map_delete(&forwards, &scratch->client_key) != 0)
		return 0;
	if (flags & FLOW_SHARED) {
		share_of(scratch, prefix, &scratch->client_key.from);
		give_share(scratch);
	}
	map_delete(&reverses, &scratch->reverse_key);
	claim_add(scratch, CLAIMS_FLOWS, -1);
	if (is_opening(state))
		claim_add(scratch, CLAIMS_HALF_OPEN, -1);
	if (source && !can_reopen(state))
		claim_add(scratch, source->server, -1);
	if (!to)
		return 1;
	if (watch == WATCH_AWAITED && state == STATE_SYN)
		to->unanswered++;
	KEEP(to);
	if (watch == WATCH_AWAITED && state == STATE_ANSWERED)
		to->unacknowledged++;
	to->nat_closed++;
	return 1;
}

/* Whether more than half of the ports towards a target's server are claimed. */
INLINE int is_scarce(struct scratch *scratch, const __u32 *target)
{
	const struct source *source = map_lookup(&sources, target);

	return source && claimed(scratch, source->server) > (__s64)source->half_of_ports;
}

/* Whether a flow's time is up. `idle`: of its target, in milliseconds. */
INLINE int is_expired(struct scratch *scratch, const struct forward *forward, const struct reverse *reverse, __u32 idle,
		      __u64 now)
{
	__u64 seen = forward->seen > reverse->seen ? forward->seen : reverse->seen;
	int scarce = is_unproven(forward->state) && is_scarce(scratch, &forward->target);

	return seen + nat_lifetime(forward->state, idle, scarce) <= now;
}

#endif

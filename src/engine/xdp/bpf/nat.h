/* Passthrough: full NAT, both ways. The rules are flow/router.rs's `known_passthrough`, `reply` and `open`. */
#ifndef CONVEY_NAT_H
#define CONVEY_NAT_H

#include "ports.h"

/* Whether a packet has the VLAN tags that a client's packets have. */
INLINE int has_tags(const struct facts *facts, const struct origin *origin)
{
	return origin->tag[0].type == facts->tag[0].type && origin->tag[0].control == facts->tag[0].control &&
	       origin->tag[1].type == facts->tag[1].type && origin->tag[1].control == facts->tag[1].control;
}

/* Whether a packet comes from where a client's packets have come from. */
INLINE int is_from(const struct facts *facts, const struct origin *origin)
{
	return origin->ifindex == facts->ifindex && is_same(origin->mac, facts->mac_from) && has_tags(facts, origin);
}

/* Writes where the packet comes from. */
INLINE void note_origin(struct scratch *scratch)
{
	struct origin *origin = &scratch->origin;

	origin->ifindex = scratch->facts.ifindex;
	__builtin_memcpy(origin->mac, scratch->facts.mac_from, 6);
	origin->family = scratch->key.to.family;
	origin->zero = 0;
	origin->tag[0] = scratch->facts.tag[0];
	origin->tag[1] = scratch->facts.tag[1];
}

/* Whether a packet of a kind changes nothing of a connection but the numbers of its own side. */
INLINE int is_ordinary(__u8 state, __u16 flags, enum kind kind)
{
	if (state == STATE_TALKING)
		return 1;
	return state == STATE_ESTABLISHED && kind == KIND_GO && !(flags & (FLOW_FIN | FLOW_PEER_FIN));
}

/* Takes an ordinary packet in, `scratch->segment`; 0: it does not fit what its side has sent, so the other must be asked. */
INLINE int take_ordinary(struct half *own, const struct segment *segment)
{
	if (segment->kind == KIND_DATAGRAM)
		return 1;
	if (!fits_own(own, segment))
		return 0;
	advance(own, segment);
	return 1;
}

/* Counts the packet, which goes to the target that has been copied, from a NAT address. */
INLINE int to_server(struct scratch *scratch, const struct endpoint *nat, struct traffic *traffic)
{
	struct rewrite *rewrite = &scratch->rewrite;

	traffic->packets++;
	traffic->bytes += scratch->facts.length;
	count(scratch, REASON_TO_SERVER);
	rewrite->ends = ENDS_BOTH;
	rewrite->from = nat->address;
	rewrite->from_port = nat->port;
	rewrite->to = scratch->target.address;
	rewrite->to_port = swap16(swap16(scratch->key.to.port) + scratch->target.shift);
	return SEND;
}

/* Has replies go back to where a packet has come from. The whole entry is exchanged, for another CPU may be reading it. */
INLINE void move_back(struct scratch *scratch, struct forward *forward, const struct reverse *reverse,
		      const struct origin *origin)
{
	forward->origin = *origin;
	scratch->reverse = *reverse;
	scratch->reverse.origin = *origin;
	map_update(&reverses, &scratch->reverse_key, &scratch->reverse, BPF_EXIST);
}

/* Whether the client of a flow that it may prove now holds its share of ports. */
INLINE int is_at_share(struct scratch *scratch, const struct forward *forward)
{
	const struct source *source = map_lookup(&sources, &forward->target);

	if (!source || !source->share)
		return 0;
	share_of(scratch, prefix_of(scratch, source), &scratch->key.from);
	return is_share_full(scratch, source);
}

/* A client's packet, `scratch->segment`, that may change more than its own side of a flow. `is_from`: it comes from where the
 * others have come from; else `scratch->origin` says where. `why`: why it cannot be sent to the server, or SEND. */
APART int from_client_apart(__u64 now, int why, int is_from)
{
	struct scratch *scratch = scratch_of_cpu();
	struct forward *forward;
	struct reverse *reverse;
	__u32 kind, has_moved;

	if (!scratch)
		return PASS_CHANGING;
	forward = map_lookup(&forwards, &scratch->key);
	if (!forward)
		return MISS;
	reverse_of(scratch, forward, &scratch->key);
	reverse = map_lookup(&reverses, &scratch->reverse_key);
	if (!reverse || reverse->begun != forward->begun)
		return PASS_CHANGING;
	scratch->client_key = scratch->key;
	kind = scratch->segment.kind;
	if (is_expired(scratch, forward, reverse, scratch->target.idle, now) ||
	    (kind == KIND_OPEN && can_reopen(forward->state)) ||
	    ((kind == KIND_OPEN || kind == KIND_DATAGRAM) && scratch->target.flags & TARGET_DOWN)) {
		unmake();
		return MISS;
	}
	/* a connection is lost with its server */
	if (scratch->target.flags & TARGET_DOWN)
		return PASS_NO_SERVER;
	if (why != SEND)
		return why;
	if (is_unproven(forward->state) && is_at_share(scratch, forward))
		return PASS_LIMITED;
	has_moved = !is_from && proves_path(forward, reverse, &scratch->segment);
	observe_both(scratch, forward, reverse, CLIENT, now);
	if (has_moved)
		move_back(scratch, forward, reverse, &scratch->origin);
	return SEND;
}

/* A client's packet of a flow. */
INLINE int from_client(struct scratch *scratch, __u64 now)
{
	struct forward *forward = map_lookup(&forwards, &scratch->key);
	int is_known, why;
	struct traffic *to;

	if (!forward)
		return MISS;
	scratch->index = forward->target;
	if (read_target(scratch) != FOUND || scratch->target.incarnation != forward->incarnation)
		return pass(scratch, PASS_CHANGING);
	if (scratch->target.flags & TARGET_SLOW)
		return pass(scratch, PASS_LIMITED);
	to = map_lookup(&traffic, &scratch->index);
	if (!to)
		return pass(scratch, PASS_CHANGING);
	why = obstacle_to_target(scratch);
	is_known = is_from(&scratch->facts, &forward->origin);
	if (why == SEND && is_known && is_ordinary(forward->state, forward->flags, scratch->segment.kind) &&
	    !(scratch->target.flags & TARGET_DOWN) && forward->seen + scratch->target.idle * 1000000ULL > now &&
	    take_ordinary(&forward->half, &scratch->segment)) {
		forward->seen = now;
		return to_server(scratch, &forward->nat, to);
	}
	if (!is_known)
		note_origin(scratch);
	why = from_client_apart(now, why, is_known);
	if (why == MISS)
		return MISS;
	return why == SEND ? to_server(scratch, &forward->nat, to) : pass(scratch, why);
}

/* Writes the way back of a flow's replies. Why there is none, or SEND. */
INLINE int way_back(struct scratch *scratch, const struct reverse *reverse, int has_moved)
{
	const struct interface *interface;
	struct way *way = &scratch->way;

	if (has_moved && reverse->flags & FLOW_FOLLOWED) {
		const struct hop *hop = map_lookup(&moved, &reverse->origin);

		if (hop) {
			__builtin_memcpy(way->hop, hop->mac, 6);
			__builtin_memcpy(way->interface_mac, hop->interface_mac, 6);
			way->ifindex = hop->ifindex;
			way->mtu = hop->mtu;
			/* tags of one interface mean another network on another */
			if (hop->ifindex != reverse->origin.ifindex)
				return scratch->facts.tags ? PASS_OTHER_INTERFACE : SEND;
			goto tags;
		}
	}
	interface = map_lookup(&interfaces, &reverse->origin.ifindex);
	if (!interface)
		return PASS_OTHER_INTERFACE;
	__builtin_memcpy(way->hop, reverse->origin.mac, 6);
	__builtin_memcpy(way->interface_mac, interface->mac, 6);
	way->ifindex = reverse->origin.ifindex;
	way->mtu = interface->mtu;
tags:
	return has_tags(&scratch->facts, &reverse->origin) ? SEND : PASS_OTHER_INTERFACE;
}

/* A server's packet, `scratch->segment`, that may change more than its own side of the flow that it is of. */
APART int from_server_apart(__u64 now)
{
	struct scratch *scratch = scratch_of_cpu();
	struct forward *forward;
	struct reverse *reverse;

	if (!scratch)
		return PASS_CHANGING;
	reverse = map_lookup(&reverses, &scratch->key);
	if (!reverse)
		return PASS_OTHER_FLOW;
	scratch->client_key = reverse->client;
	scratch->reverse_key = scratch->key;
	forward = map_lookup(&forwards, &scratch->client_key);
	if (!forward || forward->begun != reverse->begun)
		return PASS_CHANGING;
	/* user space says what the packet is without it */
	if (is_expired(scratch, forward, reverse, scratch->target.idle, now))
		return PASS_OTHER_FLOW;
	observe_both(scratch, forward, reverse, SERVER, now);
	return SEND;
}

/* Why a reply cannot be sent to its client, or SEND: it can, by `scratch->way`. */
INLINE int obstacle_to_client(struct scratch *scratch, const struct reverse *reverse, const struct settings *mode)
{
	const struct target *target = &scratch->target;
	int why;

	if (target->flags & TARGET_SLOW)
		return PASS_LIMITED;
	if (!(mode->flags & SETTINGS_ANY_INTERFACE) &&
	    (!(target->flags & TARGET_KNOWN) || target->ifindex != scratch->facts.ifindex))
		return PASS_OTHER_INTERFACE;
	why = way_back(scratch, reverse, mode->flags & SETTINGS_MOVED);
	if (why == SEND)
		why = obstacle(scratch);
	if (why == SEND && scratch->facts.may_be_unfinished)
		return PASS_CHECKSUM;
	return why;
}

/* A server's packet to a NAT port. */
INLINE int from_server(struct scratch *scratch, const struct settings *mode, __u64 now)
{
	struct reverse *reverse = map_lookup(&reverses, &scratch->key);
	struct rewrite *rewrite = &scratch->rewrite;
	struct traffic *to;
	int why;

	if (!reverse)
		return MISS;
	scratch->index = reverse->target;
	if (read_target(scratch) != FOUND || scratch->target.incarnation != reverse->incarnation)
		return pass(scratch, PASS_CHANGING);
	to = map_lookup(&traffic, &scratch->index);
	if (!to)
		return pass(scratch, PASS_CHANGING);
	why = obstacle_to_client(scratch, reverse, mode);
	if (why != SEND)
		return pass(scratch, why);
	if (is_ordinary(reverse->state, reverse->flags, scratch->segment.kind) &&
	    reverse->seen + scratch->target.idle * 1000000ULL > now &&
	    take_ordinary(&reverse->half, &scratch->segment)) {
		reverse->seen = now;
	} else {
		why = from_server_apart(now);
		if (why != SEND)
			return pass(scratch, why);
	}
	to->packets_out++;
	to->bytes_out += scratch->facts.length;
	count(scratch, REASON_TO_CLIENT);
	rewrite->ends = ENDS_BOTH;
	rewrite->from = reverse->client.to.address;
	rewrite->from_port = reverse->client.to.port;
	rewrite->to = reverse->client.from;
	rewrite->to_port = reverse->client.from_port;
	return SEND;
}

/* Writes both entries of a flow that begins now with `scratch->segment`, from `scratch->origin`. */
INLINE void write_flow(struct scratch *scratch, __u32 number, __u64 now)
{
	struct forward *forward = &scratch->forward;
	struct reverse *reverse = &scratch->reverse;
	__u8 state = scratch->segment.kind == KIND_DATAGRAM ? STATE_ASKED : STATE_SYN;

	__builtin_memset(forward, 0, sizeof(*forward));
	forward->seen = forward->begun = now;
	forward->nat = scratch->key.to;
	forward->target = number;
	forward->incarnation = scratch->target.incarnation;
	forward->half.end = scratch->segment.end;
	forward->half.acknowledged = scratch->segment.sequence + 1;
	forward->origin = scratch->origin;
	forward->state = state;
	forward->watch = state == STATE_SYN ? WATCH_AWAITED : WATCH_OVER;
	__builtin_memset(reverse, 0, sizeof(*reverse));
	reverse->seen = reverse->begun = now;
	reverse->client = scratch->key;
	reverse->target = number;
	reverse->incarnation = scratch->target.incarnation;
	reverse->origin = scratch->origin;
	reverse->state = state;
}

/* Makes a flow to the target that has been copied, which begins with `scratch->segment`; its NAT address is in
 * `scratch->forward`. Why user space must, or SEND: it is there. */
APART int make_flow(__u32 number, __u64 random, __u64 now)
{
	struct scratch *scratch = scratch_of_cpu();
	const struct settings *mode = map_lookup(&settings, &FIRST);
	const struct source *source;

	if (!scratch || !mode)
		return PASS_CHANGING;
	scratch->search.target = number;
	source = map_lookup(&sources, &scratch->search.target);
	if (!source || !source->locals)
		return PASS_NAT_PORT;
	write_flow(scratch, number, now);
	reverse_of(scratch, &scratch->forward, &scratch->key);
	if (source->share) {
		share_of(scratch, prefix_of(scratch, source), &scratch->key.from);
		if (is_share_full(scratch, source))
			return PASS_LIMITED;
	}
	if (claimed(scratch, CLAIMS_FLOWS) >= (__s64)mode->max_flows ||
	    claimed(scratch, CLAIMS_HALF_OPEN) >= (__s64)mode->max_half_open)
		return PASS_NAT_PORT;
	scratch->search.client_port = swap16(scratch->key.from_port);
	if (!claim_port(scratch, source, mode, random, now))
		return PASS_NAT_PORT;
	scratch->forward.nat = scratch->reverse_key.to;
	if (map_update(&forwards, &scratch->key, &scratch->forward, BPF_NOEXIST) != 0) {
		map_delete(&reverses, &scratch->reverse_key);
		return PASS_CHANGING;
	}
	claim_add(scratch, CLAIMS_FLOWS, 1);
	claim_add(scratch, CLAIMS_HALF_OPEN, 1);
	claim_add(scratch, source->server, 1);
	return SEND;
}

/* Opens a flow. */
INLINE int open_flow(struct scratch *scratch, __u32 first_port, __u32 is_range, __u64 now)
{
	__u64 *seed = map_lookup(&seeds, &FIRST);
	struct traffic *to;
	__u64 random;
	__u32 number;
	int why;

	if (!seed)
		return pass(scratch, PASS_CHANGING);
	random = next_random(seed);
	number = choose(first_port, is_range);
	why = way_to_chosen(scratch, number, &to);
	if (why != SEND)
		return pass(scratch, why);
	note_origin(scratch);
	why = make_flow(number, random, now);
	if (why != SEND)
		return pass(scratch, why);
	to->nat_opened++;
	return to_server(scratch, &scratch->forward.nat, to);
}

/* A packet to a VIP of mode passthrough, or to what is none: what becomes of it. */
APART int through(__u32 is_served, __u32 first_port, __u32 is_range, __u64 now)
{
	struct scratch *scratch = scratch_of_cpu();
	const struct settings *mode = map_lookup(&settings, &FIRST);
	__u32 kind;
	int done;

	if (!scratch || !mode)
		return XDP_PASS;
	if (is_served) {
		done = from_client(scratch, now);
		if (done != MISS)
			return done;
	}
	/* a reload may have laid a frontend's range over a NAT port */
	if (is_nat_port(mode, swap16(scratch->key.to.port))) {
		done = from_server(scratch, mode, now);
		if (done != MISS)
			return done;
	}
	if (!is_served)
		return XDP_PASS;
	kind = scratch->segment.kind;
	if (kind != KIND_OPEN && kind != KIND_DATAGRAM)
		return pass(scratch, PASS_OTHER_FLOW);
	if (!may_begin())
		return pass(scratch, PASS_SOURCE);
	return open_flow(scratch, first_port, is_range, now);
}

#endif

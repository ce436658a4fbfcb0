/* Direct server return: the client's packets only. The rules are flow/router.rs's `dsr` and `known_dsr`. */
#ifndef CONVEY_DSR_H
#define CONVEY_DSR_H

#include "choose.h"
#include "segment.h"
#include "way.h"

INLINE int is_half_open(__u8 state)
{
	return state == STATE_SYN || state == STATE_REFUSED || state == STATE_ASKED;
}

/* TcpState::seen_one_sided. */
INLINE __u8 state_after(__u8 state, enum kind kind)
{
	if (state == STATE_ASKED || state == STATE_TALKING)
		return STATE_TALKING;
	if (kind == KIND_RESET)
		return state == STATE_SYN || state == STATE_REFUSED ? STATE_REFUSED : STATE_RESET;
	if (kind == KIND_CLOSE)
		return STATE_CLOSED;
	if (state == STATE_SYN && kind == KIND_GO)
		return STATE_ESTABLISHED;
	return state;
}

/* How long a flow in a state is remembered, in nanoseconds. */
INLINE __u64 lifetime(__u8 state, const struct target *target)
{
	switch (state) {
	case STATE_SYN:
		return LIFE_SYN;
	case STATE_REFUSED:
	case STATE_RESET:
	case STATE_CLOSED:
		return LIFE_CLOSING;
	default:
		return target->idle * 1000000ULL;
	}
}

/* HandshakeWatch::client_sent. */
INLINE void watch_handshake(struct flow *flow, enum kind kind, __u64 now, struct traffic *traffic)
{
	if (flow->watch == WATCH_OVER)
		return;
	if (flow->state == STATE_REFUSED) {
		flow->watch = WATCH_OVER;
		return;
	}
	if (!is_half_open(flow->state)) {
		flow->watch = WATCH_OVER;
		traffic->dsr_completed++;
		return;
	}
	if (flow->watch == WATCH_AWAITED && kind == KIND_OPEN && has_passed(OVERDUE, flow->begun, now)) {
		flow->watch = WATCH_OVERDUE;
		if (flow->state == STATE_SYN)
			traffic->dsr_incomplete++;
	}
}

/* Takes a packet of a flow in. */
INLINE void observe(struct flow *flow, enum kind kind, __u64 now, struct traffic *traffic)
{
	__u8 state = state_after(flow->state, kind);

	if (state != flow->state)
		flow->state = state;
	flow->seen = now;
	watch_handshake(flow, kind, now, traffic);
}

/* The packet's flow, if it lives and its server is as it was; its target is copied. */
INLINE enum found find_flow(struct scratch *scratch, struct flow **found, __u64 now)
{
	struct flow *flow = map_lookup(&flows, &scratch->key);
	enum found target;

	if (!flow)
		return MISSING;
	*found = flow;
	scratch->index = flow->target;
	target = read_target(scratch);
	if (target != FOUND)
		return target;
	if (scratch->target.incarnation != flow->incarnation)
		return MISSING;
	return flow->seen + lifetime(flow->state, &scratch->target) > now ? FOUND : EXPIRED_FLOW;
}

/* Counts the handshake of a flow that another one takes the place of (HandshakeWatch::forgotten). */
INLINE void forget(const struct flow *flow, struct traffic *traffic)
{
	if (flow->watch == WATCH_AWAITED && flow->state == STATE_SYN)
		traffic->dsr_incomplete++;
}

/* Whether this CPU may remember one more flow in this second. */
INLINE int may_remember(__u64 now)
{
	struct guard *guard = map_lookup(&guards, &FIRST);
	/* 1.07 s; a division would cost more */
	__u64 second = now >> 30;

	if (!guard)
		return 0;
	if (guard->second != second) {
		guard->second = second;
		guard->count = 0;
	}
	return guard->count++ < REMEMBERED_A_SECOND;
}

/* Counts the packet, which goes to the target that has been copied. */
INLINE int forward(struct scratch *scratch, struct traffic *traffic)
{
	const struct target *target = &scratch->target;

	traffic->packets++;
	traffic->bytes += scratch->facts.length;
	count(scratch, REASON_TO_SERVER);
	scratch->rewrite.ends = ENDS_NONE;
	if (!(target->flags & TARGET_L2)) {
		scratch->rewrite.ends = ENDS_TO;
		scratch->rewrite.to = target->address;
		scratch->rewrite.to_port = swap16(swap16(scratch->key.to.port) + target->shift);
	}
	return SEND;
}

/* Whether a packet without a DSR flow here is of a passthrough flow, or may be of a flow that the slow path alone knows. */
INLINE int is_of_another(struct scratch *scratch, enum kind kind)
{
	const struct settings *mode = map_lookup(&settings, &FIRST);
	int may_reply;

	if (!mode || !(mode->flags & (SETTINGS_PASSTHROUGH | SETTINGS_OTHERS)))
		return 0;
	may_reply = is_nat_port(mode, swap16(scratch->key.to.port));
	if (mode->flags & SETTINGS_OTHERS && (kind != KIND_OPEN || may_reply))
		return 1;
	if (kind != KIND_OPEN && map_lookup(&forwards, &scratch->key))
		return 1;
	return may_reply && map_lookup(&reverses, &scratch->key);
}

INLINE void remember(struct scratch *scratch, enum kind kind, __u32 number, __u64 now, struct traffic *traffic)
{
	struct flow *flow = &scratch->flow;

	flow->seen = now;
	flow->begun = now;
	flow->target = number;
	flow->incarnation = scratch->target.incarnation;
	flow->state = kind == KIND_DATAGRAM ? STATE_ASKED : STATE_SYN;
	flow->watch = kind == KIND_OPEN ? WATCH_AWAITED : WATCH_OVER;
	if (map_update(&flows, &scratch->key, flow, BPF_ANY) == 0)
		traffic->opened++;
}

/* A packet without a flow. */
INLINE int begin(struct scratch *scratch, __u32 first_port, __u32 is_range, enum kind kind, __u64 now)
{
	struct traffic *to;
	__u32 number;
	int why;

	if (is_of_another(scratch, kind))
		return pass(scratch, PASS_OTHER_FLOW);
	if (!may_begin())
		return pass(scratch, PASS_SOURCE);
	number = choose(first_port, is_range);
	why = way_to_chosen(scratch, number, &to);
	if (why != SEND)
		return pass(scratch, why);
	if (kind != KIND_CLOSE && kind != KIND_RESET && may_remember(now))
		remember(scratch, kind, number, now, to);
	return forward(scratch, to);
}

/* Whether a packet of a flow begins another one in its place: after its end, or with another server, for its own is down. */
INLINE int is_followed(const struct flow *flow, enum kind kind, const struct target *target)
{
	int is_over = flow->state == STATE_REFUSED || flow->state == STATE_RESET || flow->state == STATE_CLOSED;

	return (kind == KIND_OPEN && is_over) || target->flags & TARGET_DOWN;
}

/* A packet to a VIP of mode dsr: what becomes of it. */
APART int direct(__u32 first_port, __u32 is_range, __u64 now)
{
	struct scratch *scratch = scratch_of_cpu();
	enum kind kind;
	struct traffic *to;
	struct flow *flow = 0;
	int why;

	if (!scratch)
		return XDP_PASS;
	kind = scratch->segment.kind;
	switch (find_flow(scratch, &flow, now)) {
	case CHANGING:
		return pass(scratch, PASS_CHANGING);
	case MISSING:
		break;
	case EXPIRED_FLOW:
		to = map_lookup(&traffic, &scratch->index);
		if (to)
			forget(flow, to);
		break;
	case FOUND:
		to = map_lookup(&traffic, &scratch->index);
		if (!to)
			return pass(scratch, PASS_CHANGING);
		if (is_followed(flow, kind, &scratch->target)) {
			forget(flow, to);
			break;
		}
		why = obstacle_to_target(scratch);
		if (why != SEND)
			return pass(scratch, why);
		observe(flow, kind, now, to);
		return forward(scratch, to);
	}
	/* what is left of one that is over must not live again */
	if (flow)
		map_delete(&flows, &scratch->key);
	return begin(scratch, first_port, is_range, kind, now);
}

#endif

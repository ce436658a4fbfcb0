/* The life of a passthrough flow: the sequence numbers of both sides (flow/numbers.rs), and the states that segments which fit
 * them bring about (flow/tcp_state.rs). Each side's packets write their own direction; the other's is written where the
 * handshake or the end of a connection is agreed on. */
#ifndef CONVEY_NUMBERS_H
#define CONVEY_NUMBERS_H

#include "segment.h"

/* How far `a` is behind `b`; negative: before it (RFC 9293, section 3.4). */
INLINE __s32 distance(__u32 a, __u32 b)
{
	return (__s32)(a - b);
}

INLINE __u32 apart(__u32 a, __u32 b)
{
	__s32 far = distance(a, b);

	return far < 0 ? -(__u32)far : (__u32)far;
}

/* Whether a segment so far from its side's end fits, that acknowledges what is so far from a number of the other side. */
INLINE int is_near(__u32 ahead, __u32 behind)
{
	return (ahead == 0 && behind < FAR) || (behind == 0 && ahead < FAR) || (ahead <= NEAR && behind <= NEAR);
}

/* Whether a segment fits what its own side has sent and acknowledged. */
INLINE int fits_own(const struct half *own, const struct segment *segment)
{
	return is_near(apart(segment->sequence, own->end), apart(segment->acknowledged, own->acknowledged));
}

/* Takes the numbers of a segment in that fits. */
INLINE void advance(struct half *own, const struct segment *segment)
{
	if (distance(segment->end, own->end) > 0)
		own->end = segment->end;
	if (distance(segment->acknowledged, own->acknowledged) > 0)
		own->acknowledged = segment->acknowledged;
}

/* Numbers::keep_clock, for a segment of the client. */
INLINE void keep_clock(struct forward *forward, const struct segment *segment)
{
	if (!(segment->has & HAS_TIMESTAMP))
		return;
	if (forward->flags & FLOW_CLOCK && distance(segment->timestamp, forward->clock) <= 0)
		return;
	forward->clock = segment->timestamp;
	forward->flags |= FLOW_CLOCK;
}

/* Numbers::answers_syn. */
INLINE int answers_syn(const struct forward *forward, const struct reverse *reverse, const struct segment *segment)
{
	__u32 number = segment->acknowledged;
	int is_silent = !reverse->half.end && !reverse->half.acknowledged && !(reverse->flags & FLOW_FIN);

	if (!(segment->has & HAS_ACKNOWLEDGED))
		return 0;
	return number == forward->half.end || (number == forward->half.acknowledged && is_silent) ||
	       (forward->flags & FLOW_OTHER_SYN && number == forward->other_syn);
}

/* Numbers::accept. */
INLINE int accept_syn(struct forward *forward, struct reverse *reverse, const struct segment *segment)
{
	__u32 number = segment->acknowledged;

	if (!answers_syn(forward, reverse, segment) || !(segment->has & HAS_END))
		return 0;
	if (forward->flags & FLOW_OTHER_SYN && number == forward->other_syn)
		forward->other_syn = forward->half.end;
	forward->half.end = number;
	forward->half.acknowledged = segment->sequence;
	forward->flags &= ~FLOW_PEER_FIN;
	reverse->half.end = segment->end;
	reverse->half.acknowledged = number;
	reverse->flags &= ~FLOW_FIN;
	return 1;
}

/* Numbers::another_syn. */
INLINE void another_syn(struct forward *forward, const struct segment *segment)
{
	if (!(segment->has & HAS_END)) {
		forward->flags &= ~FLOW_OTHER_SYN;
	} else if (segment->end != forward->half.end) {
		forward->other_syn = segment->end;
		forward->flags |= FLOW_OTHER_SYN;
	}
}

/* Numbers::resets. */
INLINE int resets(const struct half *own, const struct half *other, const struct segment *segment)
{
	return segment->sequence == other->acknowledged || segment->sequence == own->end;
}

/* Numbers::proves_path, of a client's segment. */
INLINE int proves_path(const struct forward *forward, const struct reverse *reverse, const struct segment *segment)
{
	__s32 before = distance(forward->half.end, segment->sequence);

	if (forward->state != STATE_ANSWERED && forward->state != STATE_ESTABLISHED &&
	    forward->state != STATE_CLIENT_HALF_CLOSED && forward->state != STATE_SERVER_HALF_CLOSED)
		return 0;
	if (before < 0 || before > AGAIN || !(segment->has & HAS_ACKNOWLEDGED))
		return 0;
	return segment->acknowledged == reverse->half.end || segment->acknowledged == forward->half.acknowledged;
}

/* Notes a FIN in both directions. */
INLINE void note_fin(struct forward *forward, struct reverse *reverse, const struct segment *segment, __u32 side)
{
	if (side == CLIENT) {
		forward->half.fin = reverse->peer_fin = segment->end;
		forward->flags |= FLOW_FIN;
		reverse->flags |= FLOW_PEER_FIN;
	} else {
		reverse->half.fin = forward->peer_fin = segment->end;
		reverse->flags |= FLOW_FIN;
		forward->flags |= FLOW_PEER_FIN;
	}
	if (!(forward->flags & (FLOW_CLIENT_FIRST | FLOW_SERVER_FIRST)))
		forward->flags |= side == CLIENT ? FLOW_CLIENT_FIRST : FLOW_SERVER_FIRST;
}

/* Numbers::take. */
INLINE int take(struct forward *forward, struct reverse *reverse, const struct segment *segment, __u32 side)
{
	struct half *own = side == CLIENT ? &forward->half : &reverse->half;
	struct half *other = side == CLIENT ? &reverse->half : &forward->half;

	if (!(segment->has & HAS_ACKNOWLEDGED) || !(segment->has & HAS_END))
		return 0;
	if (!fits_own(own, segment) &&
	    !is_near(apart(segment->sequence, own->end), apart(segment->acknowledged, other->end)))
		return 0;
	advance(own, segment);
	if (segment->kind == KIND_CLOSE)
		note_fin(forward, reverse, segment, side);
	if (side == CLIENT && forward->flags & FLOW_SERVER_FIRST)
		keep_clock(forward, segment);
	return 1;
}

/* TcpState::after_acknowledgement. */
INLINE __u8 after_acknowledgement(const struct forward *forward, const struct reverse *reverse, __u8 state)
{
	int client = forward->flags & FLOW_FIN && forward->half.fin == reverse->half.acknowledged;
	int server = reverse->flags & FLOW_FIN && reverse->half.fin == forward->half.acknowledged;

	if (client && server)
		return forward->flags & FLOW_SERVER_FIRST ? STATE_SERVER_CLOSED : STATE_CLOSED;
	if (client)
		return STATE_CLIENT_HALF_CLOSED;
	return server ? STATE_SERVER_HALF_CLOSED : state;
}

/* TcpState::handshake. */
INLINE __u8 after_handshake(struct forward *forward, struct reverse *reverse, const struct segment *segment, __u32 side)
{
	if (side == CLIENT) {
		if (segment->kind == KIND_OPEN)
			another_syn(forward, segment);
		if (segment->kind == KIND_RESET && segment->sequence == forward->half.end)
			return STATE_REFUSED;
	} else {
		if (segment->kind == KIND_ACCEPT && accept_syn(forward, reverse, segment))
			return STATE_ANSWERED;
		if (segment->kind == KIND_RESET && answers_syn(forward, reverse, segment))
			return STATE_REFUSED;
	}
	return STATE_SYN;
}

/* TcpState::open. */
INLINE __u8 after_open(struct forward *forward, struct reverse *reverse, const struct segment *segment, __u32 side)
{
	__u8 state = forward->state;
	int is_half_open = state == STATE_ANSWERED;
	int is_reset;

	switch (segment->kind) {
	case KIND_RESET:
		is_reset = side == CLIENT ? resets(&forward->half, &reverse->half, segment)
					  : resets(&reverse->half, &forward->half, segment);
		if (!is_reset && !(is_half_open && side == SERVER && answers_syn(forward, reverse, segment)))
			return state;
		return is_half_open ? STATE_REFUSED : STATE_RESET;
	case KIND_ACCEPT:
		if (is_half_open && side == SERVER)
			accept_syn(forward, reverse, segment);
		return state;
	case KIND_GO:
	case KIND_CLOSE:
		if (!take(forward, reverse, segment, side))
			return state;
		if (is_half_open)
			return side == CLIENT ? STATE_ESTABLISHED : state;
		return after_acknowledgement(forward, reverse, state);
	default:
		return state;
	}
}

/* TcpState::seen. */
INLINE __u8 state_seen(struct forward *forward, struct reverse *reverse, const struct segment *segment, __u32 side)
{
	switch (forward->state) {
	case STATE_ASKED:
		return side == SERVER ? STATE_REPLIED : STATE_ASKED;
	case STATE_REPLIED:
		return side == CLIENT ? STATE_TALKING : STATE_REPLIED;
	case STATE_TALKING:
		return STATE_TALKING;
	case STATE_SYN:
		return after_handshake(forward, reverse, segment, side);
	case STATE_ANSWERED:
	case STATE_ESTABLISHED:
	case STATE_CLIENT_HALF_CLOSED:
	case STATE_SERVER_HALF_CLOSED:
		return after_open(forward, reverse, segment, side);
	default:
		if (side == CLIENT && segment->sequence == forward->half.end)
			keep_clock(forward, segment);
		return forward->state;
	}
}

/* TcpState::is_half_open, with the states of passthrough. */
INLINE int is_opening(__u8 state)
{
	return state == STATE_SYN || state == STATE_ANSWERED || state == STATE_REFUSED || state == STATE_ASKED;
}

/* TcpState::is_unproven. */
INLINE int is_unproven(__u8 state)
{
	return is_opening(state) || state == STATE_REPLIED;
}

/* TcpState::can_reopen. */
INLINE int can_reopen(__u8 state)
{
	return state == STATE_REFUSED || state == STATE_RESET || state == STATE_CLOSED || state == STATE_SERVER_CLOSED;
}

/* TcpState::is_prolonged_by. */
INLINE int is_prolonged_by(__u8 state, __u32 side)
{
	if (state == STATE_ASKED || state == STATE_REPLIED)
		return side == CLIENT;
	return state == STATE_TALKING || state == STATE_ESTABLISHED || state == STATE_CLIENT_HALF_CLOSED ||
	       state == STATE_SERVER_HALF_CLOSED;
}

/* TcpState::lifetime, in nanoseconds. */
INLINE __u64 nat_lifetime(__u8 state, __u32 idle, int is_scarce)
{
	__u64 time = idle * 1000000ULL;

	if (is_scarce && is_unproven(state))
		return time < LIFE_SCARCE ? time : LIFE_SCARCE;
	if (state == STATE_SYN || state == STATE_ANSWERED)
		return LIFE_SYN;
	if (state == STATE_SERVER_CLOSED)
		return LIFE_TIME_WAIT;
	return can_reopen(state) ? LIFE_CLOSING : time;
}

#endif

/* What user space has done with a flow, since this program alone changes one: it is run on an order in place of a frame. */
#ifndef CONVEY_ORDERS_H
#define CONVEY_ORDERS_H

#include "nat.h"

/* Carries an order out for the flow in both entries. Gives bits of a result. */
INLINE __u32 carry_out(struct scratch *scratch, const struct order *order, struct forward *forward,
		       struct reverse *reverse)
{
	switch (order->what) {
	case ORDER_OBSERVE:
		scratch->segment = order->segment;
		return observe_both(scratch, forward, reverse, order->side == CLIENT ? CLIENT : SERVER, coarse_ns());
	case ORDER_MOVE:
		scratch->origin = order->origin;
		move_back(scratch, forward, reverse, &scratch->origin);
		return RESULT_FOUND;
	default:
		return 0;
	}
}

INLINE __u32 execute(struct scratch *scratch, const struct order *order)
{
	struct forward *forward;
	struct reverse *reverse;

	scratch->key = order->key;
	forward = map_lookup(&forwards, &scratch->key);
	if (!forward || forward->begun != order->begun)
		return 0;
	scratch->index = forward->target;
	/* what is asked of it here does not change as long as it has flows, so that it may be being written */
	if (read_target(scratch) == MISSING || scratch->target.incarnation != forward->incarnation)
		return 0;
	reverse_of(scratch, forward, &scratch->key);
	scratch->client_key = scratch->key;
	if (order->what == ORDER_END)
		return unmake() ? RESULT_FOUND : 0;
	reverse = map_lookup(&reverses, &scratch->reverse_key);
	if (!reverse || reverse->begun != forward->begun)
		return 0;
	return carry_out(scratch, order, forward, reverse);
}

#endif

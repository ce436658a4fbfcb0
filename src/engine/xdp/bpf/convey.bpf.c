/* Convey's program in the receive path of an interface: what it does with a frame is in the headers, what it leaves to the
 * slow path goes on to the kernel's stack and the raw sockets. */
#include "dsr.h"
#include "nat.h"
#include "orders.h"

SECTION("xdp.frags")
int convey(struct xdp_md *frame)
{
	struct scratch *scratch = scratch_of_cpu();
	const struct settings *mode;
	struct packet packet;
	struct service service = { 0, 0 };
	int is_served;

	if (!scratch || !parse(frame, &packet, &scratch->key))
		return XDP_PASS;
	is_served = find_service(scratch, &scratch->key.to, &service);
	if (is_served && service.flags & SERVICE_DSR)
		return direct(frame, &packet, scratch, &service);
	mode = map_lookup(&settings, &FIRST);
	if (!mode || !(mode->flags & SETTINGS_PASSTHROUGH))
		return XDP_PASS;
	return through(frame, &packet, scratch, is_served ? &service : 0, mode);
}

/* Takes a packet in that the slow path has handled: run by user space, since this program alone changes flows. XDP_PASS: it
 * is of a flow. */
SECTION("xdp.frags")
int touch(struct xdp_md *frame)
{
	struct scratch *scratch = scratch_of_cpu();
	struct packet packet;
	struct traffic *to;
	struct flow *flow = 0;
	__u64 now = coarse_ns();

	if (!scratch || !parse(frame, &packet, &scratch->key) || find_flow(scratch, &flow, now) != FOUND)
		return XDP_DROP;
	to = map_lookup(&traffic, &scratch->index);
	if (!to)
		return XDP_DROP;
	observe(flow, kind_of(&packet), now, to);
	return XDP_PASS;
}

/* Carries an order of user space out. XDP_PASS: there is such a flow. */
SECTION("xdp.frags")
int order(struct xdp_md *frame)
{
	struct scratch *scratch = scratch_of_cpu();
	struct order *order = (void *)(long)frame->data;

	if (!scratch || (void *)(order + 1) > (void *)(long)frame->data_end)
		return XDP_DROP;
	order->result = execute(scratch, order);
	return order->result ? XDP_PASS : XDP_DROP;
}

char LICENSE[] SECTION("license") = "Dual MIT/GPL";

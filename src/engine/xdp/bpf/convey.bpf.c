/* Convey's program in the receive path of an interface: what it does with a frame is in the headers, what it leaves to the
 * slow path goes on to the kernel's stack and the raw sockets. A frame is read, what becomes of it is decided by what was read
 * of it, and that is carried out: what decides sees no frame, so that the verifier looks at it once and not for each kind of
 * frame. */
#include "dsr.h"
#include "nat.h"
#include "orders.h"
#include "send.h"

/* What becomes of the packet in the scratch: SEND, or what the program returns. */
INLINE int decide(__u32 service, __u64 now)
{
	__u32 first_port = service & 0xffff;
	__u32 flags = service >> 16;

	if (service == NO_SERVICE)
		return through(0, 0, 0, now);
	if (flags & SERVICE_DSR)
		return direct(first_port, flags & SERVICE_RANGE, now);
	return through(1, first_port, flags & SERVICE_RANGE, now);
}

/* Whether a packet to nothing that is served may be a reply. */
INLINE int may_be_reply(const struct scratch *scratch)
{
	const struct settings *mode = map_lookup(&settings, &FIRST);

	return mode && mode->flags & SETTINGS_PASSTHROUGH && is_nat_port(mode, swap16(scratch->key.to.port));
}

SECTION("xdp.frags")
int convey(struct xdp_md *frame)
{
	struct scratch *scratch = scratch_of_cpu();
	struct packet packet;
	__u32 service;
	int done;

	if (!scratch || !parse(frame, &packet, &scratch->key))
		return XDP_PASS;
	service = service_of_packet();
	if (service == NO_SERVICE && !may_be_reply(scratch))
		return XDP_PASS;
	if (!note(frame, &packet, scratch))
		return XDP_PASS;
	done = decide(service, coarse_ns());
	return done == SEND ? send(&packet, scratch) : done;
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

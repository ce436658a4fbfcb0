/* Convey's program in the receive path of an interface: what it does with a frame is in the headers, what it leaves to the
 * slow path goes on to the kernel's stack and the raw sockets. */
#include "dsr.h"

INLINE struct scratch *scratch_of_cpu(void)
{
	return map_lookup(&scratches, &FIRST);
}

/* The service at a packet's destination: of that port, or of a range of ports. */
INLINE int find_service(struct scratch *scratch, struct service *service)
{
	struct service *one = map_lookup(&services, &scratch->key.to);
	struct ranges *several;
	__u16 port;

	if (one) {
		*service = *one;
		return 1;
	}
	scratch->table = scratch->key.to;
	scratch->table.port = 0;
	several = map_lookup(&ranges, &scratch->table);
	if (!several)
		return 0;
	port = swap16(scratch->key.to.port);
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

SECTION("xdp.frags")
int convey(struct xdp_md *frame)
{
	struct scratch *scratch = scratch_of_cpu();
	struct packet packet;
	struct service service;

	if (!scratch || !parse(frame, &packet, &scratch->key) || !find_service(scratch, &service))
		return XDP_PASS;
	if (!(service.flags & SERVICE_DSR))
		return pass(scratch, PASS_PASSTHROUGH);
	return direct(frame, &packet, scratch, &service);
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

char LICENSE[] SECTION("license") = "Dual MIT/GPL";

/* Targets and next hops, whether a packet can be sent by one, and sending it. */
#ifndef CONVEY_WAY_H
#define CONVEY_WAY_H

#include "segment.h"

/* What becomes of a packet, where that is not a reason to leave it to the slow path: there is no flow, and it is not decided
 * yet; or it is sent. */
#define MISS 1000
#define SEND 1001

/* What a look-up has found; of a flow also that its time is up. */
enum found { MISSING, FOUND, CHANGING, EXPIRED_FLOW };

INLINE int pass(struct scratch *scratch, __u32 reason)
{
	__u64 *count;

	scratch->index = reason;
	count = map_lookup(&passes, &scratch->index);
	if (count)
		*count += 1;
	return XDP_PASS;
}

/* Counts what became of a packet. */
INLINE void count(struct scratch *scratch, __u32 reason)
{
	__u64 *count;

	scratch->index = reason;
	count = map_lookup(&reasons, &scratch->index);
	if (count)
		*count += 1;
}

/* Copies the target of the number in `scratch->index`. */
INLINE enum found read_target(struct scratch *scratch)
{
	struct target *target = map_lookup(&targets, &scratch->index);
	__u32 version;

	if (!target)
		return MISSING;
	version = READ_ONCE(target->version);
	BARRIER();
	scratch->target = *target;
	BARRIER();
	return version & 1 || READ_ONCE(target->version) != version ? CHANGING : FOUND;
}

INLINE int is_same(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

/* Whether a packet can leave by another interface than it came by: both have this program in one mode, since a driver that
 * runs none drops frames that another one's sends it. `mac`: what the frame was sent to. */
INLINE int may_cross(struct scratch *scratch, const __u8 *mac, __u32 from, __u32 to)
{
	struct interface *came, *leaves;

	scratch->index = from;
	came = map_lookup(&interfaces, &scratch->index);
	if (!came || !is_same(came->mac, mac))
		return 0;
	scratch->index = to;
	leaves = map_lookup(&interfaces, &scratch->index);
	return leaves && came->flags == leaves->flags && map_lookup(&ports, &scratch->index);
}

/* Why the packet cannot be sent by `scratch->way` by this program, or SEND. */
INLINE int obstacle(struct scratch *scratch)
{
	const struct facts *facts = &scratch->facts;
	const struct way *way = &scratch->way;

	if (facts->ttl <= 1)
		return PASS_TIME_TO_LIVE;
	if (facts->length > way->mtu)
		return PASS_TOO_BIG;
	if (way->ifindex == facts->ifindex) {
		/* not sent to us, but seen */
		if (!is_same(facts->mac_to, way->interface_mac))
			return PASS_OTHER_INTERFACE;
	} else if (facts->tags || !may_cross(scratch, facts->mac_to, facts->ifindex, way->ifindex)) {
		return PASS_OTHER_INTERFACE;
	}
	return SEND;
}

/* Why the packet cannot be sent to the target that has been copied, or SEND: it can, by `scratch->way`. */
INLINE int obstacle_to_target(struct scratch *scratch)
{
	const struct target *target = &scratch->target;
	int why;

	if (target->flags & TARGET_SLOW)
		return PASS_LIMITED;
	if (!(target->flags & TARGET_KNOWN))
		return PASS_NEXT_HOP;
	__builtin_memcpy(scratch->way.hop, target->hop, 6);
	__builtin_memcpy(scratch->way.interface_mac, target->interface_mac, 6);
	scratch->way.ifindex = target->ifindex;
	scratch->way.mtu = target->mtu;
	why = obstacle(scratch);
	if (why != SEND)
		return why;
	if (!(target->flags & TARGET_L2) && scratch->facts.may_be_unfinished)
		return PASS_CHECKSUM;
	return SEND;
}

/* Copies the target of a number that was chosen for a new flow, and finds what it has had. Why the packet cannot be sent to it,
 * or SEND. */
INLINE int way_to_chosen(struct scratch *scratch, __u32 number, struct traffic **to)
{
	if (!number)
		return PASS_NO_SERVER;
	scratch->index = number;
	if (read_target(scratch) != FOUND)
		return PASS_CHANGING;
	*to = map_lookup(&traffic, &scratch->index);
	return *to ? obstacle_to_target(scratch) : PASS_CHANGING;
}

/* Whether a flow may begin with a packet: its source is none of our addresses, and the VIP is here. */
APART int may_begin(void)
{
	struct scratch *scratch = scratch_of_cpu();
	__u32 *from, *to;

	if (!scratch)
		return 0;
	from = map_lookup(&addresses, &scratch->key.from);
	if (from && *from & ADDRESS_OWN)
		return 0;
	to = map_lookup(&addresses, &scratch->key.to.address);
	return !to || !(*to & ADDRESS_ABSENT);
}

#endif

/* What a packet is, for those who decide about it, and carrying out what they have decided. */
#ifndef CONVEY_SEND_H
#define CONVEY_SEND_H

#include "checksum.h"
#include "segment.h"

/* Notes what is to be known of a packet. */
INLINE int note(struct xdp_md *frame, const struct packet *packet, struct scratch *scratch)
{
	struct facts *facts = &scratch->facts;

	if (!read_numbers(frame, packet, &scratch->segment))
		return 0;
	read_clock(frame, packet, &scratch->segment);
	facts->ifindex = frame->ingress_ifindex;
	facts->length = packet->length;
	__builtin_memcpy(facts->mac_to, packet->link->destination, 6);
	__builtin_memcpy(facts->mac_from, packet->link->source, 6);
	facts->tag[0] = packet->tag[0];
	facts->tag[1] = packet->tag[1];
	facts->tags = packet->tags;
	facts->ttl = packet->ttl;
	facts->may_be_unfinished = is_unfinished(packet, &scratch->key) && *packet->check;
	return 1;
}

/* Rewrites a packet and sends it. */
INLINE int send(const struct packet *packet, const struct scratch *scratch)
{
	const struct rewrite *rewrite = &scratch->rewrite;
	const struct way *way = &scratch->way;

	if (rewrite->ends == ENDS_BOTH)
		translate(packet, &rewrite->from, rewrite->from_port, &rewrite->to, rewrite->to_port);
	else if (rewrite->ends == ENDS_TO)
		set_destination(packet, &rewrite->to, rewrite->to_port);
	count_hop(packet);
	__builtin_memcpy(packet->link->destination, way->hop, 6);
	__builtin_memcpy(packet->link->source, way->interface_mac, 6);
	if (way->ifindex == scratch->facts.ifindex)
		return XDP_TX;
	return redirect_map(&ports, way->ifindex, XDP_DROP);
}

#endif

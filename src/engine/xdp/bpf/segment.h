/* A packet as far as a flow's life depends on it (flow/segment.rs). */
#ifndef CONVEY_SEGMENT_H
#define CONVEY_SEGMENT_H

#include "parse.h"

/* What a packet means for a flow's life. User space numbers them alike (layout/orders.rs). */
enum kind { KIND_RESET, KIND_OPEN, KIND_ACCEPT, KIND_CLOSE, KIND_GO, KIND_ODD, KIND_DATAGRAM };

/* Which fields of a segment are there. */
#define HAS_END 1
#define HAS_ACKNOWLEDGED 2
#define HAS_TIMESTAMP 4

/* The sides of a flow. */
#define CLIENT 0
#define SERVER 1

INLINE enum kind kind_of(const struct packet *packet)
{
	if (packet->protocol == PROTOCOL_UDP)
		return KIND_DATAGRAM;
	if (packet->flags & TCP_RST)
		return KIND_RESET;
	if (packet->flags & TCP_SYN)
		return packet->flags & TCP_ACK ? KIND_ACCEPT : KIND_OPEN;
	if (packet->flags & TCP_FIN)
		return KIND_CLOSE;
	return packet->flags & TCP_ACK ? KIND_GO : KIND_ODD;
}

/* Reads the numbers of a packet. */
INLINE int read_numbers(struct xdp_md *frame, const struct packet *packet, struct segment *segment)
{
	void *end = (void *)(long)frame->data_end;
	struct tcp *tcp = (void *)packet->transport;

	segment->kind = kind_of(packet);
	segment->has = 0;
	segment->sequence = 0;
	segment->end = 0;
	if (segment->kind == KIND_DATAGRAM)
		return 1;
	if ((void *)(tcp + 1) > end)
		return 0;
	segment->sequence = swap32(tcp->sequence);
	segment->end = segment->sequence + packet->payload - (tcp->offset >> 4) * 4;
	if (packet->flags & TCP_SYN)
		segment->end++;
	if (packet->flags & TCP_FIN)
		segment->end++;
	segment->acknowledged = swap32(tcp->acknowledgement);
	segment->has = packet->flags & TCP_ACK ? HAS_END | HAS_ACKNOWLEDGED : HAS_END;
	return 1;
}

/* The timestamps option (RFC 7323), as a word of its beginning has it. */
#define TIMESTAMPS 0x080a
#define TIMESTAMPS_PADDED 0x0101080a

/* Reads the sender's clock, where senders put it: first behind two bytes of padding, or in a SYN behind the segment size and
 * the permission of selective acknowledgements, or behind those of others. */
INLINE void read_clock(struct xdp_md *frame, const struct packet *packet, struct segment *segment)
{
	void *end = (void *)(long)frame->data_end;
	struct tcp *tcp = (void *)packet->transport;
	__u32 *option = (void *)(tcp + 1);
	__u32 *clock;

	/* of a segment without payload there is no more than its header */
	if (segment->kind == KIND_DATAGRAM || (void *)(option + 2) > end)
		return;
	if (tcp->offset >> 4 >= 8 && swap32(option[0]) == TIMESTAMPS_PADDED)
		clock = &option[1];
	else if (tcp->offset >> 4 < 9 || (void *)(option + 3) > end)
		return;
	else if ((swap32(option[1]) & 0xffff) == TIMESTAMPS)
		clock = &option[2];
	else if ((void *)(option + 4) <= end && swap32(option[2]) == TIMESTAMPS_PADDED)
		clock = &option[3];
	else
		return;
	segment->timestamp = swap32(*clock);
	segment->has |= HAS_TIMESTAMP;
}

#endif

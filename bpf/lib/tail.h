/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From one program to the next. */
#ifndef MS_TAIL_H
#define MS_TAIL_H

/* The next program finds the parsed packet in scratch memory, which nothing else on this CPU
 * uses meanwhile. There the verifier does not follow its fields, as it would through a second
 * parse: that alone costs it 100,000 instructions, times every path behind. */
MS_INLINE int tail(struct __sk_buff *skb, struct ms_packet *p, int slot, int hook, __u32 why)
{
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);

	if (room) {
		if (p != &room->packet)
			__builtin_memcpy(&room->packet, p, sizeof(*p));
		skb->cb[0] = hook;
		skb->cb[1] = why;
		progs_call(skb, slot);
	}
	/* An empty slot: a half-done load. Fail closed. */
	return drop(MS_REASON_NO_POLICY, 0);
}

#endif

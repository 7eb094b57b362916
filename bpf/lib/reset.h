/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Answer a segment of a denied connection with resets: one back to its sender,
 * and once one onward to its receiver, who may hold an open connection. The
 * segment itself is turned into them, so no payload byte goes on (RFC 9293 3.5.2).
 */
#ifndef MS_RESET_H
#define MS_RESET_H

struct ms_tcp_header {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__sum16 check;
	__be16 urgent;
};

struct ms_pseudo {
	__u8 src[16];
	__u8 dst[16];
	__be32 len;
	__be32 l4;
};

MS_INLINE __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* `partial`: the device, or the peer of a veth, completes the checksum from the pseudo header's sum. */
MS_INLINE int write_reset(struct __sk_buff *skb, struct ms_packet *p, const __u8 *src, const __u8 *dst, __u16 sport,
			  __u16 dport, __u32 seq, __u32 ack, __u8 flags, int partial)
{
	struct ms_tcp_header tcp = {
		.source = sport,
		.dest = dport,
		.seq = ms_be32(seq),
		.ack = ms_be32(ack),
		.offset = 5 << 4,
		.flags = flags,
	};
	struct ms_pseudo pseudo = {.len = ms_be32(sizeof(tcp)), .l4 = ms_be32(MS_IP_TCP)};

	/* The mapped prefix of an IPv4 address would count: leave it out. */
	if (p->version == 4) {
		((__u32 *)pseudo.src)[3] = ((const __u32 *)src)[3];
		((__u32 *)pseudo.dst)[3] = ((const __u32 *)dst)[3];
	} else {
		__builtin_memcpy(pseudo.src, src, 16);
		__builtin_memcpy(pseudo.dst, dst, 16);
	}
	/* Before 6.12 all 32 bits are the sum, the sign too: an error cannot be told, and of these sizes there is none. */
	__u32 sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	if (partial)
		tcp.check = fold(sum);
	else
		tcp.check = ~fold((__u32)bpf_csum_diff(0, 0, (__be32 *)&tcp, sizeof(tcp), sum));
	if (bpf_skb_store_bytes(skb, p->l4_off, &tcp, sizeof(tcp), 0))
		return -1;
	if (p->version == 4) {
		if (bpf_skb_store_bytes(skb, p->l3 + 12, src + 12, 4, 0) ||
		    bpf_skb_store_bytes(skb, p->l3 + 16, dst + 12, 4, 0))
			return -1;
	} else {
		if (bpf_skb_store_bytes(skb, p->l3 + 8, src, 16, 0) || bpf_skb_store_bytes(skb, p->l3 + 24, dst, 16, 0))
			return -1;
	}
	return 0;
}

MS_INLINE int swap_link(struct __sk_buff *skb)
{
	__u8 link[12], swapped[12];

	if (bpf_skb_load_bytes(skb, 0, link, 12))
		return -1;
	__builtin_memcpy(swapped, link + 6, 6);
	__builtin_memcpy(swapped + 6, link, 6);
	return bpf_skb_store_bytes(skb, 0, swapped, 12, 0);
}

/* Cut everything behind a bare TCP header and mend the IP length. */
MS_INLINE int cut(struct __sk_buff *skb, struct ms_packet *p, int *partial)
{
	__u32 bare = p->l4_off + sizeof(struct ms_tcp_header);

	/* A checksum left to the device can't be cut off (min length of bpf_skb_change_tail):
	 * refused here is how a program learns of one. */
	*partial = bpf_skb_change_tail(skb, p->l4_off + 17, 0) != 0;
	if (bpf_skb_change_tail(skb, bare, 0))
		return -1;
	__u32 ip_len = bare - p->l3;
	if (p->version == 4) {
		__be16 old_len, new_len = ms_be16(ip_len);
		if (bpf_skb_load_bytes(skb, p->l3 + 2, &old_len, 2) ||
		    bpf_l3_csum_replace(skb, p->l3 + 10, old_len, new_len, 2) ||
		    bpf_skb_store_bytes(skb, p->l3 + 2, &new_len, 2, 0))
			return -1;
	} else {
		__be16 new_len = ms_be16(ip_len - sizeof(struct ipv6hdr));
		if (bpf_skb_store_bytes(skb, p->l3 + 4, &new_len, 2, 0))
			return -1;
	}
	return 0;
}

MS_INLINE int reset_both(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, int dir)
{
	__u8 flags = p->tcp_flags;
	__u32 len = p->payload_len + !!(flags & MS_TCP_SYN_BIT) + !!(flags & MS_TCP_FIN_BIT);
	int partial, onward = 0;

	if (s && !(s->told & 1) && s->tcp[(dir ^ 1) & 1] > MS_TCP_LISTEN) {
		s->told |= 1;
		onward = 1;
	}
	if (s && !tcp_was_reset(s)) {
		s->tcp[0] = MS_TCP_CLOSED;
		s->tcp[1] = MS_TCP_CLOSED;
		s->timeout = MS_TIMEOUT_CLOSING;
		emit_end(&p->key, s, MS_END_RESET);
	}
	if (cut(skb, p, &partial))
		return MS_DROP;
	if (swap_link(skb))
		return MS_DROP;
	int error = flags & MS_TCP_ACK_BIT ? write_reset(skb, p, packet_dst(p), packet_src(p), p->dport, p->sport,
							 p->ack, 0, MS_TCP_RST_BIT, partial)
					   : write_reset(skb, p, packet_dst(p), packet_src(p), p->dport, p->sport, 0,
							 p->seq + len, MS_TCP_RST_BIT | MS_TCP_ACK_BIT, partial);
	if (error)
		return MS_DROP;
	count(MS_STAT_RESETS);
	if (!onward)
		return bpf_redirect(skb->ifindex, 0);
	bpf_clone_redirect(skb, skb->ifindex, 0);
	if (swap_link(skb) || write_reset(skb, p, packet_src(p), packet_dst(p), p->sport, p->dport, p->seq, p->ack,
					  MS_TCP_RST_BIT | (flags & MS_TCP_ACK_BIT), partial))
		return MS_DROP;
	count(MS_STAT_RESETS);
	return MS_PASS;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the receiver throws away must not change a session. The IPv4 header is summed always, a TCP segment where it
 * would change the connection's state and carries no payload. Sums (RFC 1071) are of words in network order.
 */
#ifndef MS_CHECKSUM_H
#define MS_CHECKSUM_H

MS_INLINE __u32 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Sum of a header of 20 to 60 bytes, wherever it lies; 0 where there is none, which no checksum makes right. Through
 * two calls, of which the verifier follows nothing, where a loop would multiply its paths. */
MS_INLINE __u64 checksum_of(struct __sk_buff *skb, __u32 off, __u32 len)
{
	__u32 words[16] = {};

	/* The same number, a multiple of four, in a form that the verifier knows to be 4 to 64. */
	len -= 4;
	ms_opaque(len);
	len = (len & 60) + 4;
	if (bpf_skb_load_bytes(skb, off, words, len))
		return 0;
	return (__u32)bpf_csum_diff(0, 0, words, len, 0);
}

MS_INLINE int ipv4_checksum_ok(struct __sk_buff *skb, struct iphdr *ip, __u32 off, __u32 header)
{
	__u32 *word = (__u32 *)ip;

	if (header > sizeof(*ip))
		return checksum_fold(checksum_of(skb, off, header)) == 0xffff;
	return checksum_fold((__u64)word[0] + word[1] + word[2] + word[3] + word[4]) == 0xffff;
}

/* The same of a TCP header in the linear part. Those that stacks send, without options, with time stamps and with all
 * that a SYN brings, are summed here: the calls cost 20 ns. */
MS_INLINE __u64 checksum_of_tcp(struct __sk_buff *skb, struct tcphdr *tcp, void *end, __u32 off, __u32 header)
{
	__u32 *word = (__u32 *)tcp;
	__u64 sum = 0;

	if (header == 20 && (void *)tcp + 20 <= end) {
#pragma unroll
		for (int n = 0; n < 5; n++)
			sum += word[n];
		return sum;
	}
	if (header == 32 && (void *)tcp + 32 <= end) {
#pragma unroll
		for (int n = 0; n < 8; n++)
			sum += word[n];
		return sum;
	}
	if (header == 40 && (void *)tcp + 40 <= end) {
#pragma unroll
		for (int n = 0; n < 10; n++)
			sum += word[n];
		return sum;
	}
	return checksum_of(skb, off, header);
}

/* A segment without payload. One that its sender left to the card has the pseudo header's sum alone, and here
 * nobody can tell whether it came from such a sender. A mapped address adds 0xffff, which is nothing. */
MS_INLINE int tcp_checksum_ok(struct __sk_buff *skb, struct tcphdr *tcp, void *end, __u32 off, __u32 header,
			      const __u8 *src, const __u8 *dst)
{
	const __u32 *s = (const __u32 *)src, *d = (const __u32 *)dst;
	__u64 pseudo = (__u64)s[0] + s[1] + s[2] + s[3] + d[0] + d[1] + d[2] + d[3] + ms_be32(header) + ms_be32(6);

	return checksum_fold(pseudo) == tcp->check ||
	       checksum_fold(pseudo + checksum_of_tcp(skb, tcp, end, off, header)) == 0xffff;
}

#endif

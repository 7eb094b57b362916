/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Addresses that no packet on a wire has (RFC 1812 5.3.7, RFC 6890): as its source nobody could be answered, and
 * an IPv6 packet with mapped addresses would have the key of another family's session.
 */
#ifndef MS_MARTIAN_H
#define MS_MARTIAN_H

/* Network order. 0.0.0.0 asks for an address (RFC 2131 4.1) or reports groups (RFC 4541 2.1.1), never beyond the link. */
MS_INLINE int ipv4_martian(__u32 src, __u32 dst)
{
	__u32 from = ms_be32(src), to = ms_be32(dst);
	__u32 net = from >> 24;

	if (net == 127 || (to >> 24) == 127 || (to >> 24) == 0 || (to >= 0xf0000000 && to != 0xffffffff))
		return 1;
	if (net && net < 224)
		return 0;
	return from != 0 || !(to == 0xffffffff || (to >> 8) == 0xe00000);
}

/* All of ::/64 is unspecified, loopback, mapped or deprecated (RFC 4291 2.5). The unspecified address asks whether
 * another is taken (RFC 4862 5.4), within the link. Multicast of scopes 0 and 1 stays in its node (RFC 4291 2.7). */
MS_INLINE int ipv6_martian(const __u8 *src, const __u8 *dst)
{
	const __u64 *s = (const __u64 *)src, *d = (const __u64 *)dst;

	if (s[0] && d[0] && src[0] != 0xff && dst[0] != 0xff)
		return 0;
	if (!d[0] || src[0] == 0xff || (dst[0] == 0xff && (dst[1] & 15) < 2))
		return 1;
	if (s[0])
		return 0;
	return s[1] || dst[0] != 0xff || (dst[1] & 15) != 2;
}

/* Both 16 bytes. */
MS_INLINE int same_address(const __u8 *a, const __u8 *b)
{
	return ((const __u64 *)a)[1] == ((const __u64 *)b)[1] && ((const __u64 *)a)[0] == ((const __u64 *)b)[0];
}

/* Ends that no session has: of packets that have one, nobody needs to ask. Answers 0 or a reason. */
MS_INLINE int implausible(__u8 version, const __u8 *src, const __u8 *dst)
{
	if (version == 4 && ipv4_martian(((const __u32 *)src)[3], ((const __u32 *)dst)[3]))
		return MS_REASON_SPOOFED;
	return same_address(src, dst) ? MS_REASON_LAND : 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Options of IPv4 and of IPv6's hop-by-hop header: kind, length, value. Each answers 0 or a reason. */
#ifndef MS_OPTIONS_H
#define MS_OPTIONS_H

#define MS_HOP_OPTIONS 16 /* more in one header is nothing that anybody sends */

/* RFC 791 3.1. Loose and strict source routing let the sender pick hops past the policy (RFC 7126 4.3, 4.4). */
MS_INLINE int ipv4_options(void *options, void *end, __u32 len)
{
	ms_untracked(at, 0);
	ms_untracked(limit, len);

#pragma nounroll
	for (int n = 0; n < 40; n++) {
		__u32 i = at.n;
		if (i >= limit.n || i > 39)
			return 0;
		__u8 *option = options + i;
		if ((void *)(option + 1) > end)
			return MS_REASON_TRUNCATED;
		if (option[0] == 0)
			return 0;
		__u32 size = 1;
		if (option[0] != 1) {
			if (i + 2 > limit.n)
				return MS_REASON_IP_OPTIONS;
			if ((void *)(option + 2) > end)
				return MS_REASON_TRUNCATED;
			size = option[1];
			if (size < 2 || i + size > limit.n)
				return MS_REASON_IP_OPTIONS;
			if (option[0] == 131 || option[0] == 137)
				return MS_REASON_SOURCE_ROUTE;
		}
		at.n = i + size;
		ms_jump_back();
	}
	return 0;
}

/* RFC 8200 4.2, 4.3; `len` bytes behind the header's first two. */
MS_INLINE int hop_options(void *options, void *end, __u32 len)
{
	ms_untracked(at, 0);
	ms_untracked(limit, len);

#pragma nounroll
	for (int n = 0; n < MS_HOP_OPTIONS; n++) {
		__u32 i = at.n;
		if (i >= limit.n || i > 2046)
			return 0;
		__u8 *option = options + i;
		if ((void *)(option + 1) > end)
			return MS_REASON_TRUNCATED;
		__u32 size = 1;
		if (option[0] != 0) {
			if (i + 2 > limit.n)
				return MS_REASON_IP_OPTIONS;
			if ((void *)(option + 2) > end)
				return MS_REASON_TRUNCATED;
			if (option[0] == 0xc2)
				return MS_REASON_JUMBOGRAM;
			size = 2 + option[1];
			if (i + size > limit.n)
				return MS_REASON_IP_OPTIONS;
		}
		at.n = i + size;
		ms_jump_back();
	}
	return at.n < limit.n ? MS_REASON_IP_OPTIONS : 0;
}

#endif

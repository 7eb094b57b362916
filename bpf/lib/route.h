/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Questions to the routing table, bpf_fib_lookup. */
#ifndef MS_ROUTE_H
#define MS_ROUTE_H

/* The question where a packet goes that came in at an interface; addresses as in struct ms_key. */
MS_INLINE void route_ask(struct bpf_fib_lookup *fib, __u32 ifindex, int version, const __u8 *src, const __u8 *dst,
			 __u8 l4)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = ifindex;
	fib->l4_protocol = l4;
	if (version == 4) {
		fib->family = 2; /* AF_INET */
		fib->ipv4_src = ((__u32 *)src)[3];
		fib->ipv4_dst = ((__u32 *)dst)[3];
	} else {
		fib->family = 10; /* AF_INET6 */
		__builtin_memcpy(fib->ipv6_src, src, 16);
		__builtin_memcpy(fib->ipv6_dst, dst, 16);
	}
}

/* Does a packet end at the gateway itself of which the routing table answers this? It does not forward what is local.
 * Where an interface forwards nothing (only IPv6, say), the answer comes before the address is looked up. */
MS_INLINE int ends_here(int found)
{
	return found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

#endif

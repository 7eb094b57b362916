/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Where a packet comes from and goes to, and which rules hold there. */
#ifndef MS_ZONES_H
#define MS_ZONES_H

#define MS_WHERE_WORDS (sizeof(struct ms_where) / 4)

/* Do a rule's conditions on zones, course and VLAN tag hold? 1 or 0. At location 0 lies something else. */
MS_INLINE __u32 is_there(struct ms_walk_state *w, __u32 *page, __u32 location)
{
	struct ms_where *where = (struct ms_where *)word_at(page, location, MS_WHERE_WORDS);
	__u32 to = w->zones[MS_TO_SERVER], from = w->zones[MS_TO_CLIENT], vlan = w->vlan, vlans = where->vlans;
	__u32 tagged = *word_at(page, location + vlans + (vlan >> 5), 1) >> (vlan & 31);
	__u64 any = ((__u64)vlans - 1) >> 63, all = ((__u64)location - 1) >> 63;

	ms_opaque(any);
	ms_opaque(all);
	return ((where->from_zones[(from >> 5) & 7] >> (from & 31)) & (where->to_zones[(to >> 5) & 7] >> (to & 31)) &
		(where->courses >> (w->course & 31)) & (tagged | any) & 1) |
	       all;
}

MS_INLINE __u32 zone_of(__u32 ifindex)
{
	__u32 *zone = managed_lookup(&ifindex);
	return zone ? *zone : MS_ZONE_NONE;
}

/* The zone that a packet goes to which came in at an interface and is sent to the address of this side. */
MS_INLINE __u32 zone_behind(struct __sk_buff *skb, struct ms_walk_state *w, int side)
{
	struct bpf_fib_lookup fib;
	__u32 *to = w->address[side & 1], *from = w->address[~side & 1];
	__u32 src[4], dst[4];

#pragma unroll
	for (int n = 0; n < 4; n++) {
		src[n] = ms_be32(from[n]);
		dst[n] = ms_be32(to[n]);
	}
	route_ask(&fib, w->came_in, is_mapped(to) ? 4 : 6, (__u8 *)src, (__u8 *)dst, w->l4);
	int found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (ends_here(found))
		return MS_ZONE_HOST;
	/* The others say nothing of an interface. */
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH &&
	    found != BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return MS_ZONE_NONE;
	return zone_of(fib.ifindex);
}

MS_INLINE void find_zones(struct __sk_buff *skb, struct ms_walk_state *w)
{
	int side = w->reversed ? MS_TO_CLIENT : MS_TO_SERVER;

	w->zones[side & 1] = w->goes_out ? zone_of(w->goes_out) : zone_behind(skb, w, side);
	w->zones[~side & 1] = w->came_in ? zone_of(w->came_in) : MS_ZONE_HOST;
}

#endif

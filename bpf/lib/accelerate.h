/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * `accelerate`: packets of allowed sessions go from the interface they came in at to that of their next hop,
 * past the host's stack. What is unusual takes the stack's way: there it is answered, fragmented, resolved or
 * dropped, as without us.
 *
 * A session keeps the numbers of its two next hops (`hops`). The number 0 says that the stack has to do it. Either
 * holds for a second (`hop_age`), then the routing table is asked again: changes of routes, neighbours, links and
 * MTUs need nothing else to take effect; the daemon makes them so at once (`hop_clock`).
 *
 * A hop never changes and never goes: its number stands for these link addresses, and no CPU can read half of one
 * and half of another. Only who was first at a number (BPF_NOEXIST in `hop_claims`) fills it in, and each word of it
 * goes once from zero to what it stays; while one is zero, it is not there yet. Hops are few, as many as there
 * are neighbours; if the numbers run out, those who come late take the stack's way. An array, because a hash
 * map costs 24 ns more a packet.
 */
#ifndef MS_ACCELERATE_H
#define MS_ACCELERATE_H

#define MS_HOP_PROBES 8

MS_INLINE int is_managed(struct ms_config *cfg, __u32 ifindex)
{
	/* The first few stand in the settings, a cache line that every packet reads. */
	for (int n = 0; n < MS_MANAGED_NEAR; n++) {
		if (cfg->managed[n] == ifindex)
			return 1;
	}
	return cfg->managed_far && managed_lookup(&ifindex);
}

MS_INLINE __u16 hop_clock(struct ms_config *cfg, __u64 now)
{
	return (now >> MS_HOP_TICK) + cfg->hop_clock;
}

/* The program that sends it on finds in cb[2] and cb[3] what it needs to know. */
MS_INLINE int accelerate(struct __sk_buff *skb, struct ms_packet *p, __u32 hop)
{
	__u32 number = hop & MS_HOP_NUMBER;

	if (number) {
		skb->cb[2] = number;
		/* A super-packet is as long as its segments will be. */
		skb->cb[3] = skb->gso_size ? p->payload - p->l3 + skb->gso_size : p->ip_len;
		progs_call(skb, MS_PROG_ACCELERATE);
	}
	return MS_PASS;
}

/* A mark may select a route, which bpf_fib_lookup does not see before 6.10. */
MS_INLINE int may_accelerate(struct __sk_buff *skb, struct ms_session *s, int hook, __u8 hop_limit)
{
	return hook == MS_INGRESS && skb->pkt_type == 0 && !skb->mark && !skb->vlan_present &&
	       !(s->flags & MS_SESSION_HOST) && hop_limit >= 2;
}

/* Asked for not long ago. */
MS_INLINE int hop_is_fresh(struct ms_config *cfg, __u32 hop, __u64 now)
{
	__u16 age = hop_clock(cfg, now) - (hop >> MS_HOP_CLOCK);
	return hop && age < cfg->hop_age;
}

/* An allowed packet goes on. */
MS_INLINE int forward(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg, int dir,
		      int hook, __u64 now)
{
	if (!cfg->hop_age || !may_accelerate(skb, s, hook, p->hop_limit) || p->first_fragment || p->l3 != ETH_HLEN ||
	    p->l4_off != ETH_HLEN + (p->version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)))
		return MS_PASS;
	__u32 hop = s->hop[dir & 1];
	if (!hop_is_fresh(cfg, hop, now))
		return tail(skb, p, MS_PROG_ROUTE, hook, 0);
	return accelerate(skb, p, hop);
}

/* Link, loopback, group and reserved addresses: a default route would take them all. */
MS_INLINE int is_host4(__u32 address)
{
	__u32 first = ms_be32(address) >> 24;
	return first != 0 && first != 127 && first < 224;
}

/* Ask the routing table; `there`: as for this packet, else as for an answer that comes in at `ifindex`. */
MS_INLINE int look_up(struct __sk_buff *skb, struct ms_packet *p, struct bpf_fib_lookup *fib, __u32 ifindex, int there)
{
	__u32 *head = (void *)(long)skb->data + ETH_HLEN;
	__u8 *src = there ? packet_src(p) : packet_dst(p);
	__u8 *dst = there ? packet_dst(p) : packet_src(p);

	if ((void *)(head + 1) > (void *)(long)skb->data_end)
		return -1;
	route_ask(fib, ifindex, p->version, src, dst, p->l4);
	fib->sport = there ? p->sport : p->dport;
	fib->dport = there ? p->dport : p->sport;
	/* Not zero: then it answers with the route's MTU (5.12). */
	fib->tot_len = 1;
	if (p->version == 4) {
		fib->tos = (ms_be32(*head) >> 16) & 0xff;
		if (!is_host4(fib->ipv4_src) || !is_host4(fib->ipv4_dst))
			return -1;
	} else {
		fib->flowinfo = *head & ms_be32(0x0fffffff);
	}
	return bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
}

/* Number of the hop that the answer of the routing table is, 0 if there is no room for it. */
MS_INLINE __u32 hop_number(struct bpf_fib_lookup *fib, struct ms_config *cfg, __u32 from, __u32 clock)
{
	struct ms_hop hop = {.from = from, .ifindex = fib->ifindex, .mtu = fib->mtu_result, .turn = clock};

	/* The lookup does not see an MTU that the route names. */
	if (cfg->route_mtu && cfg->route_mtu < hop.mtu)
		hop.mtu = cfg->route_mtu;
	__builtin_memcpy(hop.link, fib->dmac, 6);
	__builtin_memcpy((__u8 *)hop.link + 6, fib->smac, 6);
	const __u64 *mine = (const __u64 *)&hop;
	__u64 hash = (mine[0] ^ (mine[1] >> 7) ^ (mine[2] << 9)) * 0x9e3779b97f4a7c15ULL;
#pragma nounroll
	for (int n = 0; n < MS_HOP_PROBES; n++) {
		__u32 number = ((hash >> 40) + n) & (MS_HOPS - 1);
		struct ms_hop *there = hops_lookup(&number);
		if (number && there) {
			const __u64 *its = (const __u64 *)there;
			if (!its[0] && !hop_claims_insert(&number))
				*there = hop;
			if (its[0] == mine[0] && its[1] == mine[1] && its[2] == mine[2])
				return number;
		}
		ms_jump_back();
	}
	return 0;
}

/*
 * Look up the next hops of a session, that of direction `dir` and, as it is known by then, the other; the former.
 *
 * The way back must lead out where the packet came in. So a source that the stack would take for a martian,
 * or reverse path filtering would drop, is left to it, and so are asymmetric routes. One that leads
 * out where the packet came in may call for a redirect message (RFC 792).
 */
MS_INLINE __u32 route(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg, int dir)
{
	struct bpf_fib_lookup fib;
	__u32 from = skb->ifindex;
	__u32 clock = hop_clock(cfg, bpf_jiffies64());
	__u32 hop = clock << MS_HOP_CLOCK, back = hop;

	if (look_up(skb, p, &fib, from, 1) == BPF_FIB_LKUP_RET_SUCCESS && fib.ifindex != from &&
	    is_managed(cfg, fib.ifindex)) {
		__u32 to = fib.ifindex;
		__u32 number = hop_number(&fib, cfg, from, clock);
		int answer = look_up(skb, p, &fib, to, 0);
		if ((answer == BPF_FIB_LKUP_RET_SUCCESS || answer == BPF_FIB_LKUP_RET_NO_NEIGH) &&
		    fib.ifindex == from) {
			hop |= number;
			if (answer == BPF_FIB_LKUP_RET_SUCCESS)
				back |= hop_number(&fib, cfg, to, clock);
		}
	}
	s->hop[dir & 1] = hop;
	s->hop[(dir ^ 1) & 1] = back;
	return hop;
}

/* Link addresses, TTL and IPv4's checksum (RFC 1624), as the stack would; 0 if the headers are not at hand. */
MS_INLINE int rewrite(struct __sk_buff *skb, const struct ms_hop *hop)
{
	__u32 *link = (void *)(long)skb->data;
	struct ethhdr *eth = (void *)link;
	void *end = (void *)(long)skb->data_end;

	if ((void *)(eth + 1) + sizeof(struct iphdr) > end)
		return 0;
	if (eth->h_proto == ms_be16(MS_ETH_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		__u32 check = ip->check + ms_be16(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
		/* ip_forward() does so too: rt_tos2priority(), four bits each (linux/pkt_sched.h). */
		skb->priority = (0x4444666622220000ULL >> ((ip->tos & 0x1e) * 2)) & 0xf;
	} else {
		struct ipv6hdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return 0;
		__u16 *word = (__u16 *)&ip->nexthdr;
		__u32 before = (__u16) ~*word;
		ip->hop_limit--;
		/* IPv4's header always has the same sum, this one has not. */
		bpf_csum_update(skb, before + *word);
	}
	link[0] = hop->link[0];
	link[1] = hop->link[1];
	link[2] = hop->link[2];
	return 1;
}

MS_INLINE int redirect_to_hop(struct __sk_buff *skb, struct ms_config *cfg)
{
	__u32 number = skb->cb[2];
	struct ms_hop *hop = hops_lookup(&number);

	/* All of it is there: also its MTU, or everything is too long. */
	if (!hop || hop->from != skb->ifindex || skb->cb[3] > hop->mtu || !hop->link[0] || !hop->link[1] ||
	    !hop->link[2] || !hop->ifindex)
		return MS_PASS;
	/* A neighbour whose entry nobody uses is never probed, and may be gone for long (RFC 4861 7.3.3):
	 * now and then the stack sends it a packet. */
	__u16 clock = hop_clock(cfg, bpf_jiffies64());
	if ((__u16)(clock - hop->turn) >= cfg->hop_age) {
		hop->turn = clock;
		return MS_PASS;
	}
	if (!rewrite(skb, hop))
		return MS_PASS;
	count_n(MS_STAT_ACCELERATED, skb->gso_segs ?: 1);
	return bpf_redirect(hop->ifindex, 0);
}

#endif

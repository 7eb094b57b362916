/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Header prediction (RFC 1323 A, after Van Jacobson): nearly every packet is a segment or datagram in the midst of a
 * decided session, without VLAN tag, IP option, extension header or fragment. Its fields stand at known places, so a
 * few comparisons say whether it is one. Nothing is decided here otherwise than on the long way: what differs in the
 * least takes that, and until then nothing has been written.
 */
#ifndef MS_PREDICT_H
#define MS_PREDICT_H

#define MS_LONG_WAY 1 /* no answer of a program */

/* 1 if it is such a packet: then `key` and what a session asks of a packet are filled in. No packet whose ends
 * parse() refuses has a session; but it keeps mapped addresses from meeting those of IPv4. */
MS_INLINE int predict(struct __sk_buff *skb, struct ms_key *key, struct ms_packet *p)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct tcphdr *tcp;
	__u64 *a = (__u64 *)key->addr_a, *b = (__u64 *)key->addr_b;
	__u32 header;
	int lower;

	if (data + ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr) > end)
		return 0;
	if (eth->h_proto == ms_be16(MS_ETH_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		tcp = (void *)(ip + 1);
		header = sizeof(*ip);
		if (*(__u8 *)ip != 0x45 || (ip->frag_off & ms_be16(0xbfff)) || ip->saddr == ip->daddr ||
		    !ipv4_checksum_ok(skb, ip, ETH_HLEN, sizeof(*ip)))
			return 0;
		p->ip_len = ms_be16(ip->tot_len);
		p->l4 = ip->protocol;
		p->hop_limit = ip->ttl;
		lower = ms_be32(ip->saddr) < ms_be32(ip->daddr);
		map_ipv4(key->addr_a, lower ? ip->saddr : ip->daddr);
		map_ipv4(key->addr_b, lower ? ip->daddr : ip->saddr);
	} else if (eth->h_proto == ms_be16(MS_ETH_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		__u64 *s = (__u64 *)&ip->saddr, *d = (__u64 *)&ip->daddr;
		tcp = (void *)(ip + 1);
		header = sizeof(*ip);
		if ((void *)tcp + sizeof(struct udphdr) > end || ip->version != 6 || !s[0] || !d[0])
			return 0;
		p->ip_len = sizeof(*ip) + ms_be16(ip->payload_len);
		p->l4 = ip->nexthdr;
		p->hop_limit = ip->hop_limit;
		lower = s[0] != d[0] ? ms_be64(s[0]) < ms_be64(d[0]) : ms_be64(s[1]) < ms_be64(d[1]);
		if (s[0] == d[0] && s[1] == d[1])
			return 0;
		a[0] = lower ? s[0] : d[0];
		a[1] = lower ? s[1] : d[1];
		b[0] = lower ? d[0] : s[0];
		b[1] = lower ? d[1] : s[1];
	} else {
		return 0;
	}
	__u32 rest = p->ip_len - header, size;
	if (p->ip_len < header || p->ip_len > skb->len - ETH_HLEN)
		return 0;
	if (p->l4 == MS_IP_TCP) {
		if ((void *)(tcp + 1) > end)
			return 0;
		__u32 word = ms_be16(((__u16 *)tcp)[6]);
		size = (word >> 12) * 4;
		if ((word & MS_TCP_FLAGS_USED) != MS_TCP_ACK_BIT || size < sizeof(*tcp) || size > rest)
			return 0;
		p->seq = ms_be32(tcp->seq);
		p->ack = ms_be32(tcp->ack_seq);
		p->window = ms_be16(tcp->window);
	} else if (p->l4 == MS_IP_UDP) {
		__u32 length = ms_be16(((struct udphdr *)tcp)->len);
		size = sizeof(struct udphdr);
		if (length < size || length > rest || !tcp->dest)
			return 0;
	} else {
		return 0;
	}
	p->payload = ETH_HLEN + header + size;
	p->payload_len = rest - size;
	key->port_a = lower ? tcp->source : tcp->dest;
	key->port_b = lower ? tcp->dest : tcp->source;
	key->l4 = p->l4;
	key->zone = 0;
	key->a_asks = 0;
	p->src_is_a = lower;
	p->l3 = ETH_HLEN;
	p->segments = skb->gso_segs ?: 1;
	return 1;
}

/* What becomes of it, or MS_LONG_WAY. */
MS_INLINE int predicted(struct __sk_buff *skb, struct ms_config *cfg, int hook, __u64 now)
{
	/* Apart: the key is memory that a map reads, the rest stays in registers. */
	struct ms_key key;
	struct ms_packet p;

	if (!predict(skb, &key, &p))
		return MS_LONG_WAY;
	struct ms_session *s = sessions_lookup(&key);
	struct ms_counters *counters = stats_get();
	if (!s || !counters)
		return MS_LONG_WAY;
	__u64 word = s->verdict;
	int dir = direction_of(s, &p), denied = word_blocks(word);
	__u32 hop = 0;
	if (word_revision(word) != cfg->revision || expired(s, cfg, now))
		return MS_LONG_WAY;
	if (!denied) {
		if (word_verdict(word) != MS_VERDICT_ALLOW || s->provisional || (p.l4 == MS_IP_TCP && !tcp_is_open(s)))
			return MS_LONG_WAY;
		if (cfg->hop_age && may_accelerate(skb, s, hook, p.hop_limit)) {
			hop = s->hop[dir & 1];
			if (!hop_is_fresh(cfg, hop, now))
				return MS_LONG_WAY;
		}
		if (p.l4 == MS_IP_TCP) {
			if (tcp_outside(s, &p, dir))
				return MS_LONG_WAY;
			tcp_advance(s, &p, p.seq + p.payload_len, dir, s->scale[dir & 1]);
		}
	} else if (word & (1 << MS_WORD_RESET)) {
		return MS_LONG_WAY;
	}
	account(s, &p, dir, now);
	counters->stats[MS_STAT_PACKETS] += p.segments;
	counters->stats[MS_STAT_BYTES] += p.ip_len;
	if (denied)
		return drop(word_reason(word), 0);
	counters->stats[MS_STAT_FAST] += p.segments;
	return accelerate(skb, &p, hop);
}

#endif

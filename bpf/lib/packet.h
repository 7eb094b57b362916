/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Headers of one frame: Ethernet, up to two in-band VLAN tags besides the
 * offloaded one, IPv4 with options, IPv6 with up to eight extension headers,
 * TCP, UDP, ICMP; other protocols have no ports. parse() answers 0 or the reason why the packet is dropped;
 * MS_REASON_TRUNCATED may only mean that headers lie outside the linear part.
 */
#ifndef MS_PACKET_H
#define MS_PACKET_H

enum ms_kind {
	MS_KIND_SESSION = 0,
	MS_KIND_NEIGHBOUR = 1,	       /* ARP, ND, MLD, link control */
	MS_KIND_ICMP_ERROR = 2,	       /* key is that of the quoted packet */
	MS_KIND_FRAGMENT = 3,	       /* later fragment: no ports */
	MS_KIND_NEIGHBOUR_UNICAST = 4, /* ND to a unicast address: only for the gateway itself */
};

struct ms_packet {
	struct ms_key key;
	__u16 l3; /* offsets from the frame's start */
	__u16 l4_off;
	__u16 payload;
	__u16 sport; /* network order */
	__u16 dport;
	__u16 vlan[2];
	__u8 src_is_a;
	__u8 l4;
	__u32 ip_len;
	__u32 segments; /* packets as the wire will see them: those of a super-packet */
	__u32 payload_len;
	__u32 seq;
	__u32 ack;
	__u32 frag_id;
	__u16 frag_off; /* bytes */
	__u16 frag_len;
	__u8 tcp_flags;
	__u8 version; /* 4 or 6 */
	__u8 first_fragment;
	__u8 kind;
	__u8 icmp_reply; /* the ports and the key are its query's */
	__u8 hop_limit;
	__u16 window; /* as it stands in the header, host order */
	__u16 icmp;   /* its own type << 8 | code, network order */
	__u8 more_fragments;
	__u8 pad;
	__u16 ethertype; /* behind the tags, host order */
	__u16 pad2;
};

/* TCP options that a gateway looks at. */
struct ms_tcp_options {
	__u32 timestamp; /* TSval (RFC 7323 3.2); 0 = none */
	__u8 scaled;	 /* a window scale option is there */
	__u8 scale;
};

#define MS_TCP_FIN_BIT 1
#define MS_TCP_SYN_BIT 2
#define MS_TCP_RST_BIT 4
#define MS_TCP_ACK_BIT 16

/* What RFC 9293 3.10.7 has a use for, a bit each: SYN, SYN ACK, RST, RST ACK, FIN ACK, ACK, and URG with SYN, ACK
 * and FIN ACK. PSH and the bits of congestion control go with any. */
#define MS_TCP_FLAGS_USED 0x37
#define MS_TCP_FLAGS_VALID                                                                                             \
	(1ULL << 2 | 1ULL << 18 | 1ULL << 4 | 1ULL << 20 | 1ULL << 17 | 1ULL << 16 | 1ULL << 34 | 1ULL << 48 |         \
	 1ULL << 49)

#define MS_ETH_IP 0x0800
#define MS_ETH_ARP 0x0806
#define MS_ETH_VLAN 0x8100
#define MS_ETH_QINQ 0x88a8
#define MS_ETH_IPV6 0x86dd
#define MS_ETH_SLOW 0x8809  /* LACP */
#define MS_ETH_EAPOL 0x888e /* 802.1X */
#define MS_ETH_LLDP 0x88cc

#define MS_IP_ICMP 1
#define MS_IP_TCP 6
#define MS_IP_UDP 17
#define MS_IP_ICMPV6 58

#define MS_MAX_EXT_HEADERS 8
#define MS_MAX_OFFSET 4095 /* nobody looks for a header behind this */

struct ms_icmp {
	__u8 type;
	__u8 code;
	__be16 check;
	__be16 id; /* of a query */
	__be16 sequence;
};

struct ms_vlan_tag {
	__be16 tci;
	__be16 type;
};

/* The lower (address, port) is `a`, compared as bytes; 1 if the source is `a`. */
MS_INLINE int source_is_lower(const __u8 *src, const __u8 *dst, __u16 sport, __u16 dport)
{
	const __u64 *s = (const __u64 *)src;
	const __u64 *d = (const __u64 *)dst;

	if (s[0] != d[0])
		return ms_be64(s[0]) < ms_be64(d[0]);
	if (s[1] != d[1])
		return ms_be64(s[1]) < ms_be64(d[1]);
	return ms_be16(sport) <= ms_be16(dport);
}

/* Fill the key from 16-byte addresses. */
MS_INLINE int make_key(struct ms_key *key, const __u8 *src, const __u8 *dst, __u16 sport, __u16 dport, __u8 l4)
{
	int lower = source_is_lower(src, dst, sport, dport);
	const __u64 *a = (const __u64 *)(lower ? src : dst);
	const __u64 *b = (const __u64 *)(lower ? dst : src);

	((__u64 *)key->addr_a)[0] = a[0];
	((__u64 *)key->addr_a)[1] = a[1];
	((__u64 *)key->addr_b)[0] = b[0];
	((__u64 *)key->addr_b)[1] = b[1];
	key->port_a = lower ? sport : dport;
	key->port_b = lower ? dport : sport;
	key->l4 = l4;
	key->zone = 0;
	key->a_asks = 0;
	return lower;
}

struct ms_addresses {
	__u8 src[16] __attribute__((aligned(8)));
	__u8 dst[16] __attribute__((aligned(8)));
};

MS_INLINE void map_ipv4(__u8 *out, __u32 addr)
{
	((__u64 *)out)[0] = 0;
	((__u32 *)out)[2] = ms_be32(0xffff);
	((__u32 *)out)[3] = addr;
}

/* Is it one of IPv4? Its words are in host order. */
MS_INLINE int is_mapped(const __u32 *address)
{
	return !address[0] && !address[1] && address[2] == 0xffff;
}

/* Extension headers of IPv6 that lead to another one (RFC 8200 4, RFC 4302, RFC 6275). */
MS_INLINE int is_extension(__u8 next)
{
	return next == 0 || next == 43 || next == 44 || next == 51 || next == 60 || next == 135;
}

MS_INLINE int icmp_is_error(__u8 l4, __u8 type)
{
	/* RFC 792 3, 4, 5, 11, 12; redirects are for hosts, never through a gateway. RFC 4443: 1 to 4. */
	if (l4 == MS_IP_ICMP)
		return type == 3 || type == 4 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

/* Queries with an identifier that comes back with the reply: echo, timestamp, information, address mask, extended echo
 * (RFC 792, RFC 950, RFC 8335); those of ICMPv6, less 128: echo, home agents, mobile prefixes, extended echo (RFC 4443,
 * RFC 6275). The type of the reply is the next one, but for echo, where it is 0. */
#define MS_ICMP_QUERIES (1ULL << 8 | 1ULL << 13 | 1ULL << 15 | 1ULL << 17 | 1ULL << 42)
#define MS_ICMP_REPLIES (1ULL << 0 | 1ULL << 14 | 1ULL << 16 | 1ULL << 18 | 1ULL << 43)
#define MS_ICMPV6_QUERIES (1ULL << 0 | 1ULL << 16 | 1ULL << 18 | 1ULL << 32)
#define MS_ICMPV6_REPLIES (MS_ICMPV6_QUERIES << 1)

/* Ports of a message from its sender to its receiver, as struct ms_key says; 1 if it is a reply. */
MS_INLINE int icmp_ports(const struct ms_icmp *icmp, __u8 l4, __u16 *sport, __u16 *dport)
{
	__u8 type = icmp->type, code = icmp->code, place = l4 == MS_IP_ICMP ? type : type - 128;
	__u64 bit = place < 64 ? 1ULL << place : 0;
	int reply = (bit & (l4 == MS_IP_ICMP ? MS_ICMP_REPLIES : MS_ICMPV6_REPLIES)) != 0;
	int query = (bit & (l4 == MS_IP_ICMP ? MS_ICMP_QUERIES : MS_ICMPV6_QUERIES)) != 0;
	__u16 id = query || reply ? icmp->id : 0;

	if (!reply) {
		*sport = id;
		*dport = ms_be16(type << 8 | code);
		return 0;
	}
	/* The reply to an extended echo has its result there (RFC 8335 3). */
	if (type == 43 || type == 161)
		code = 0;
	type = type ? type - 1 : 8;
	*sport = ms_be16(type << 8 | code);
	*dport = id;
	return 1;
}

/*
 * Key of the packet that an error quotes, of which eight bytes behind the IP headers are there (RFC 792, RFC 4443
 * 2.4). An error is for the sender of what it quotes: to anyone else, `dst`, the ends of any session could send
 * what they like.
 */
MS_INLINE int parse_quote(struct ms_packet *p, void *data, void *end, __u32 off, const __u8 *dst)
{
	struct ms_addresses addr;
	__u32 limit = p->l3 + p->ip_len;
	__u16 ports[2] = {};
	__u16 frag = 0;
	int icmp = 0, answers = 0;
	__u8 l4;

	if (p->version == 4) {
		struct iphdr *ip = data + off;
		if (off + sizeof(*ip) > limit)
			return MS_REASON_ICMP_QUOTE;
		if ((void *)(ip + 1) > end)
			return MS_REASON_TRUNCATED;
		if (ip->version != 4 || ip->ihl < 5)
			return MS_REASON_ICMP_QUOTE;
		frag = ms_be16(ip->frag_off) & 0x1fff;
		map_ipv4(addr.src, ip->saddr);
		map_ipv4(addr.dst, ip->daddr);
		l4 = ip->protocol;
		off += ip->ihl * 4;
	} else {
		struct ipv6hdr *ip = data + off;
		if (off + sizeof(*ip) > limit)
			return MS_REASON_ICMP_QUOTE;
		if ((void *)(ip + 1) > end)
			return MS_REASON_TRUNCATED;
		if (ip->version != 6)
			return MS_REASON_ICMP_QUOTE;
		__builtin_memcpy(addr.src, &ip->saddr, 16);
		__builtin_memcpy(addr.dst, &ip->daddr, 16);
		/* A mapped address would lead to a session of IPv4. */
		if (ipv6_martian(addr.src, addr.dst))
			return MS_REASON_ICMP_QUOTE;
		l4 = ip->nexthdr;
		off += sizeof(*ip);
		ms_untracked(at, off);
		ms_untracked(next, l4);
		ms_untracked(place, 0);
#pragma nounroll
		for (int n = 0; n < 4; n++) {
			l4 = next.n;
			off = at.n;
			if (!is_extension(l4) || place.n)
				break;
			if (off + 8 > limit || off > MS_MAX_OFFSET)
				return MS_REASON_ICMP_QUOTE;
			__u8 *ext = data + off;
			if ((void *)(ext + 8) > end)
				return MS_REASON_TRUNCATED;
			if (l4 == 44) {
				place.n = (((__u32)ext[2] << 8) | ext[3]) & 0xfff8;
				at.n = off + 8;
			} else {
				at.n = off + (l4 == 51 ? (ext[1] + 2) * 4 : (ext[1] + 1) * 8);
			}
			next.n = ext[0];
			ms_jump_back();
		}
		l4 = next.n;
		frag = place.n;
		off = at.n;
		if (off > MS_MAX_OFFSET)
			return MS_REASON_ICMP_QUOTE;
	}
	if (off > limit)
		return MS_REASON_ICMP_QUOTE;
	if (!same_address(addr.src, dst) || frag)
		return MS_REASON_ICMP_UNRELATED;
	if (l4 == MS_IP_TCP || l4 == MS_IP_UDP || l4 == MS_IP_ICMP || l4 == MS_IP_ICMPV6) {
		__u16 *quoted = data + off;
		if (off + 8 > limit || ((l4 == MS_IP_ICMP || l4 == MS_IP_ICMPV6) && l4 != p->l4))
			return MS_REASON_ICMP_QUOTE;
		if ((void *)(quoted + 4) > end)
			return MS_REASON_TRUNCATED;
		__u8 type = *(__u8 *)quoted;
		if (l4 == MS_IP_TCP || l4 == MS_IP_UDP) {
			ports[0] = quoted[0];
			ports[1] = quoted[1];
			p->seq = ms_be32(*(__u32 *)(quoted + 2));
		} else if (icmp_is_error(l4, type)) {
			/* Nobody sends an error about an error (RFC 1122 3.2.2, RFC 4443 2.4). */
			return MS_REASON_ICMP_QUOTE;
		} else {
			answers = icmp_ports((struct ms_icmp *)quoted, l4, &ports[0], &ports[1]);
			icmp = 1;
		}
	}
	p->src_is_a = make_key(&p->key, addr.src, addr.dst, ports[0], ports[1], l4);
	if (icmp)
		p->key.a_asks = p->src_is_a ^ answers;
	return 0;
}

MS_INLINE int parse(struct __sk_buff *skb, struct ms_packet *p)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ms_addresses addr;
	struct ethhdr *eth = data;
	__u32 off = sizeof(*eth);
	__u16 type;
	__u8 l4;
	int fragmented = 0;

	__builtin_memset(p, 0, sizeof(*p));
	p->segments = skb->gso_segs ?: 1;
	if ((void *)(eth + 1) > end)
		return MS_REASON_TRUNCATED;
	type = ms_be16(eth->h_proto);
	int tags = 0;
	if (skb->vlan_present) {
		p->vlan[0] = skb->vlan_tci & 0xfff;
		tags = 1;
	}
#pragma unroll
	for (int n = 0; n < 2; n++) {
		if (type != MS_ETH_VLAN && type != MS_ETH_QINQ)
			break;
		struct ms_vlan_tag *tag = data + off;
		if ((void *)(tag + 1) > end)
			return MS_REASON_TRUNCATED;
		if (tags == 0)
			p->vlan[0] = ms_be16(tag->tci) & 0xfff;
		else
			p->vlan[1] = ms_be16(tag->tci) & 0xfff;
		tags++;
		type = ms_be16(tag->type);
		off += sizeof(*tag);
	}
	p->l3 = off;
	p->ethertype = type;

	if (type == MS_ETH_IP) {
		struct iphdr *ip = data + off;
		if ((void *)(ip + 1) > end)
			return MS_REASON_TRUNCATED;
		if (ip->version != 4 || ip->ihl < 5)
			return MS_REASON_IP_HEADER;
		__u32 header = ip->ihl * 4;
		p->ip_len = ms_be16(ip->tot_len);
		/* BIG TCP: the length field cannot hold it and is zero. */
		if (p->ip_len == 0 && skb->gso_segs)
			p->ip_len = skb->len - off;
		if (p->ip_len < header)
			return MS_REASON_IP_LENGTH;
		if (p->ip_len > skb->len - off)
			return MS_REASON_TRUNCATED;
		if (header > sizeof(*ip)) {
			int reason = ipv4_options(ip + 1, end, ms_fresh((__u8 *)ip) % 16 * 4 - sizeof(*ip));
			if (reason)
				return reason;
		}
		if (!ipv4_checksum_ok(skb, ip, off, header))
			return MS_REASON_IP_CHECKSUM;
		__u16 frag = ms_be16(ip->frag_off);
		if (frag & 0xbfff) {
			if (frag & 0x8000) /* reserved, must be zero (RFC 791 3.1) */
				return MS_REASON_IP_HEADER;
			fragmented = 1;
			p->more_fragments = (frag & 0x2000) != 0;
			p->frag_off = (frag & 0x1fff) * 8;
			p->frag_len = p->ip_len - header;
			p->frag_id = ip->id;
		}
		map_ipv4(addr.src, ip->saddr);
		map_ipv4(addr.dst, ip->daddr);
		l4 = ip->protocol;
		p->version = 4;
		p->hop_limit = ip->ttl;
		off += header;
	} else if (type == MS_ETH_IPV6) {
		struct ipv6hdr *ip = data + off;
		if ((void *)(ip + 1) > end)
			return MS_REASON_TRUNCATED;
		if (ip->version != 6)
			return MS_REASON_IP_HEADER;
		p->ip_len = sizeof(*ip) + ms_be16(ip->payload_len);
		if (ip->payload_len == 0 && skb->gso_segs)
			p->ip_len = skb->len - off;
		if (p->ip_len > skb->len - off)
			return MS_REASON_TRUNCATED;
		__builtin_memcpy(addr.src, &ip->saddr, 16);
		__builtin_memcpy(addr.dst, &ip->daddr, 16);
		l4 = ip->nexthdr;
		p->version = 6;
		p->hop_limit = ip->hop_limit;
		off += sizeof(*ip);
		if (ipv6_martian(addr.src, addr.dst))
			return MS_REASON_SPOOFED;
		__u32 chain_end = p->l3 + p->ip_len;
		if (is_extension(l4)) {
			ms_untracked(at, off);
			ms_untracked(next, l4);
			ms_untracked(seen, 0);
			ms_untracked(place, 0);
			ms_untracked(id, 0);
			ms_untracked(behind, 0);
#pragma nounroll
			for (int n = 0; n <= MS_MAX_EXT_HEADERS; n++) {
				off = at.n;
				l4 = next.n;
				/* What follows in a later fragment is no header. */
				if (!is_extension(l4) || (place.n & 0xfff8))
					break;
				if (l4 == 0 && n) /* RFC 8200 4.1 */
					return MS_REASON_EXT_ORDER;
				if (off + 8 > chain_end || off > MS_MAX_OFFSET) {
					if (place.n) /* RFC 7112 5 */
						return MS_REASON_FRAGMENT_TINY;
					return l4 == 0 && !ip->payload_len ? MS_REASON_JUMBOGRAM : MS_REASON_EXT_LENGTH;
				}
				__u8 *ext = data + off;
				if ((void *)(ext + 8) > end)
					return MS_REASON_TRUNCATED;
				/* Once each, destination options twice (RFC 8200 4.1). A nested fragment would have
				 * two places. */
				__u32 bit = 1U << (l4 & 31);
				if (seen.n & bit) {
					if (l4 != 60 || (seen.n & 2))
						return MS_REASON_EXT_HEADERS;
					bit = 2;
				}
				seen.n |= bit;
				if (l4 == 43 && ext[3]) /* routing header with segments left (RFC 8200 4.4) */
					return MS_REASON_SOURCE_ROUTE;
				if (l4 == 44) {
					off += 8;
					/* Zero of an atomic fragment, which is none (RFC 6946). */
					place.n = (((__u32)ext[2] << 8) | ext[3]) & 0xfff9;
					id.n = *(__u32 *)(ext + 4);
					behind.n = off;
				} else {
					off += l4 == 51 ? (ext[1] + 2) * 4 : (ext[1] + 1) * 8;
				}
				at.n = off;
				next.n = ext[0];
				ms_jump_back();
			}
			off = at.n;
			l4 = next.n;
			if (is_extension(l4) && !(place.n & 0xfff8))
				return MS_REASON_EXT_HEADERS;
			if (place.n) {
				fragmented = 1;
				p->more_fragments = place.n & 1;
				p->frag_off = place.n & 0xfff8;
				p->frag_len = chain_end - behind.n;
				p->frag_id = id.n;
			}
			if (off > MS_MAX_OFFSET)
				return MS_REASON_EXT_LENGTH;
		}
		if (ip->nexthdr == 0 && !skb->gso_segs) {
			__u8 *hop = (__u8 *)(ip + 1);
			if ((void *)(hop + 8) > end)
				return MS_REASON_TRUNCATED;
			__u32 size = (hop[1] + 1) * 8 - 2;
			if (p->l3 + sizeof(*ip) + 2 + size > chain_end)
				return fragmented ? MS_REASON_FRAGMENT_TINY : MS_REASON_EXT_LENGTH;
			int reason = hop_options(hop + 2, end, (ms_fresh(hop + 1) + 1) * 8 - 2);
			if (reason)
				return reason;
		}
	} else if (type == MS_ETH_ARP || type == MS_ETH_LLDP || type == MS_ETH_EAPOL || type == MS_ETH_SLOW ||
		   type < 0x600) {
		/* Judged by nobody, forwarded by nobody: these end at the gateway. */
		p->kind = MS_KIND_NEIGHBOUR;
		return 0;
	} else {
		return MS_REASON_NOT_IP;
	}

	p->l4 = l4;
	p->l4_off = off;
	if (off - p->l3 > p->ip_len)
		return fragmented ? MS_REASON_FRAGMENT_TINY : MS_REASON_EXT_LENGTH;
	__u32 rest = p->ip_len - (off - p->l3);
	p->payload = off;
	p->payload_len = rest;
	if (fragmented) {
		/* RFC 791 3.2, RFC 8200 4.5. */
		if (!p->frag_len || (p->more_fragments && (p->frag_len & 7)) ||
		    (__u32)p->frag_off + p->frag_len > 65535)
			return MS_REASON_FRAGMENT_LENGTH;
		if (p->frag_off) {
			/* It could only rewrite the header that the first one brought (RFC 3128). */
			if (l4 == MS_IP_TCP && p->frag_off < sizeof(struct tcphdr))
				return MS_REASON_FRAGMENT_TINY;
			p->kind = MS_KIND_FRAGMENT;
			/* The key of a later fragment has no ports; its map has its own. */
			p->src_is_a = make_key(&p->key, addr.src, addr.dst, 0, 0, l4);
			return 0;
		}
		p->first_fragment = 1;
	}

	if (l4 == MS_IP_TCP) {
		struct tcphdr *tcp = data + off;
		if (rest < sizeof(*tcp))
			return fragmented ? MS_REASON_FRAGMENT_TINY : MS_REASON_L4_SHORT;
		if ((void *)(tcp + 1) > end)
			return MS_REASON_TRUNCATED;
		__u32 header = tcp->doff * 4;
		if (header < sizeof(*tcp))
			return MS_REASON_TCP_OFFSET;
		if (header > rest)
			return fragmented ? MS_REASON_FRAGMENT_TINY : MS_REASON_TCP_OFFSET;
		__u8 flags = ((__u8 *)tcp)[13];
		if (!((MS_TCP_FLAGS_VALID >> (flags & MS_TCP_FLAGS_USED)) & 1))
			return MS_REASON_TCP_FLAGS;
		if ((flags & (MS_TCP_SYN_BIT | MS_TCP_FIN_BIT | MS_TCP_RST_BIT)) && header == rest && !fragmented &&
		    !tcp_checksum_ok(skb, tcp, end, off, header, addr.src, addr.dst))
			return MS_REASON_L4_CHECKSUM;
		p->sport = tcp->source;
		p->dport = tcp->dest;
		p->seq = ms_be32(tcp->seq);
		p->ack = ms_be32(tcp->ack_seq);
		p->tcp_flags = flags;
		p->window = ms_be16(tcp->window);
		p->payload = off + header;
		p->payload_len = rest - header;
	} else if (l4 == MS_IP_UDP) {
		struct udphdr *udp = data + off;
		if (rest < sizeof(*udp))
			return fragmented ? MS_REASON_FRAGMENT_TINY : MS_REASON_L4_SHORT;
		if ((void *)(udp + 1) > end)
			return MS_REASON_TRUNCATED;
		__u32 len = ms_be16(udp->len);
		if (len < sizeof(*udp) || (len > rest && !fragmented && !skb->gso_segs))
			return MS_REASON_UDP_LENGTH;
		/* A source that wants no answer is 0 (RFC 768). */
		if (!udp->dest)
			return MS_REASON_PORT_ZERO;
		p->sport = udp->source;
		p->dport = udp->dest;
		p->payload = off + sizeof(*udp);
		/* What lies behind UDP's own length the receiver never sees (RFC 768). */
		p->payload_len = (len < rest ? len : rest) - sizeof(*udp);
	} else if (l4 == MS_IP_ICMP || l4 == MS_IP_ICMPV6) {
		struct ms_icmp *icmp = data + off;
		if ((l4 == MS_IP_ICMP) != (p->version == 4))
			return MS_REASON_ICMP_FAMILY;
		if (rest < sizeof(*icmp))
			return fragmented ? MS_REASON_FRAGMENT_TINY : MS_REASON_L4_SHORT;
		if ((void *)(icmp + 1) > end)
			return MS_REASON_TRUNCATED;
		p->payload = off + sizeof(*icmp);
		p->payload_len = rest - sizeof(*icmp);
		if (icmp_is_error(l4, icmp->type)) {
			p->kind = MS_KIND_ICMP_ERROR;
			int reason = implausible(p->version, addr.src, addr.dst);
			if (reason)
				return reason;
			return parse_quote(p, data, end, off + sizeof(*icmp), addr.dst);
		}
		/* Neighbour discovery (RFC 4861) and MLD end at the link. To a unicast address beyond
		 * it they would be forwarded, so the gateway only takes those meant for itself. */
		if (l4 == MS_IP_ICMPV6 && ((icmp->type >= 133 && icmp->type <= 137 && p->hop_limit == 255) ||
					   (icmp->type >= 130 && icmp->type <= 132) || icmp->type == 143)) {
			__u32 first = ms_be32(((__u32 *)addr.dst)[0]);
			if (fragmented) /* RFC 6980 5 */
				return MS_REASON_NEIGHBOUR;
			p->kind = (first >> 24) == 0xff || (first >> 22) == 0x3fa ? MS_KIND_NEIGHBOUR
										  : MS_KIND_NEIGHBOUR_UNICAST;
		}
		p->icmp = *(__u16 *)icmp;
		p->icmp_reply = icmp_ports(icmp, l4, &p->sport, &p->dport);
	}
	p->src_is_a = make_key(&p->key, addr.src, addr.dst, p->sport, p->dport, l4);
	if (l4 == MS_IP_ICMP || l4 == MS_IP_ICMPV6)
		p->key.a_asks = p->src_is_a ^ p->icmp_reply;
	return 0;
}

/* A reply that nobody has asked for is a message like another, and no query may share its session. */
MS_INLINE void icmp_unasked(struct ms_packet *p)
{
	p->sport = p->dport;
	p->dport = p->icmp;
	p->icmp_reply = 0;
	p->key.port_a = p->src_is_a ? p->sport : p->dport;
	p->key.port_b = p->src_is_a ? p->dport : p->sport;
	p->key.a_asks = p->src_is_a;
}

/* Address pointers out of the key, which outlives the packet's data. */
MS_INLINE __u8 *packet_src(struct ms_packet *p)
{
	return p->src_is_a ? p->key.addr_a : p->key.addr_b;
}

MS_INLINE __u8 *packet_dst(struct ms_packet *p)
{
	return p->src_is_a ? p->key.addr_b : p->key.addr_a;
}

#endif

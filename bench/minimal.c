// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What any session tracker in TC must do, and nothing else: the bench's reference.
 *
 *   empty    returns
 *   minimal  Ethernet, IPv4 or IPv6, ports; one lookup in the same kind of map as the gateway's
 *            sessions, with the same key, value size and clock; two counters; a miss inserts
 *   scatter  puts the next client address into the frame, then calls target[0]: many flows
 *            in one BPF_PROG_TEST_RUN
 *   replay   puts both ends of the next of FLOWS flows into the frame and notes the time, then calls target[0]:
 *            what each packet costs lies between two notes
 *
 * ENTRIES, VALUE_BYTES and TABLE_FLAGS come from the gateway's own table; SHORT_KEY makes the key one of IPv4 alone.
 */
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define PASS (-1) /* TC_ACT_UNSPEC, as the gateway */
#define BE16(x) __builtin_bswap16(x)
#define BE32(x) __builtin_bswap32(x)
#define BE64(x) __builtin_bswap64(x)

#ifdef SHORT_KEY
#define WORDS 1
#else
#define WORDS 4
#endif

struct key {
	__u32 addr_a[WORDS];
	__u32 addr_b[WORDS];
	__u16 port_a;
	__u16 port_b;
	__u8 l4;
	__u8 zone;
	__u16 pad;
};

struct value {
	__u64 packets;
	__u64 bytes;
	__u64 last_jiffies;
	__u8 rest[VALUE_BYTES - 24];
};

struct walk {
	__u64 next;
	__u64 step;
	__u64 count;
	__u64 base; /* host order; of `replay` what is added to source ports */
};

/* Addresses in network order, of IPv4 in the last word; ports in host order. */
struct ends {
	__u32 source[4];
	__u32 destination[4];
	__u16 sport;
	__u16 dport;
};

BPF_F_TABLE("lru_hash", struct key, struct value, flows, ENTRIES, TABLE_FLAGS);
BPF_TABLE("percpu_array", __u32, struct value, fresh, 1);
BPF_TABLE("array", __u32, struct walk, walk, 1);
BPF_TABLE("prog", __u32, __u32, target, 1);
BPF_TABLE("array", __u32, struct ends, ends, FLOWS);
BPF_TABLE("array", __u32, __u64, stamps, FLOWS);

int empty(struct __sk_buff *skb)
{
	return PASS;
}

int minimal(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct key key = {};
	__u16 *ports;
	int lower;

	/* Both protocols have the ports in front and at least eight bytes. One entry for both
	 * directions: the lower end is `a`. */
	if ((void *)(eth + 1) > end)
		return PASS;
	if (eth->h_proto == BE16(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		ports = (void *)(ip + 1);
		if ((void *)(ports + 4) > end || ip->ihl != 5)
			return PASS;
		key.l4 = ip->protocol;
		lower = BE32(ip->saddr) < BE32(ip->daddr);
#ifndef SHORT_KEY
		key.addr_a[2] = key.addr_b[2] = BE32(0xffff);
#endif
		key.addr_a[WORDS - 1] = lower ? ip->saddr : ip->daddr;
		key.addr_b[WORDS - 1] = lower ? ip->daddr : ip->saddr;
#ifndef SHORT_KEY
	} else if (eth->h_proto == BE16(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		ports = (void *)(ip + 1);
		if ((void *)(ports + 4) > end)
			return PASS;
		key.l4 = ip->nexthdr;
		__u64 *s = (__u64 *)&ip->saddr, *d = (__u64 *)&ip->daddr;
		lower = s[0] != d[0] ? BE64(s[0]) < BE64(d[0]) : BE64(s[1]) < BE64(d[1]);
		__builtin_memcpy(key.addr_a, lower ? s : d, 16);
		__builtin_memcpy(key.addr_b, lower ? d : s, 16);
#endif
	} else {
		return PASS;
	}
	if (key.l4 != 6 && key.l4 != 17)
		return PASS;
	key.port_a = lower ? ports[0] : ports[1];
	key.port_b = lower ? ports[1] : ports[0];

	struct value *flow = flows.lookup(&key);
	if (!flow) {
		__u32 zero = 0;
		struct value *made = fresh.lookup(&zero);
		if (made)
			flows.insert(&key, made);
		return PASS;
	}
	flow->packets += 1;
	flow->bytes += skb->len;
	__u64 now = bpf_jiffies64();
	if (flow->last_jiffies != now)
		flow->last_jiffies = now;
	return PASS;
}

/* A checksum (RFC 1624) over a word that changes; in TCP's it stands in the pseudo header. */
static inline __attribute__((always_inline)) void mend(__u16 *check, __u32 from, __u32 to)
{
	__u64 sum = (__u64)(__u16) ~*check + (__u32)~from + to;

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*check = ~sum;
}

/* skb->priority says where the last word of the client's address stands: 0 as the source, 4 as the destination;
 * in IPv6 these are 8 and 24. */
int scatter(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct walk *w = walk.lookup(&zero);

	if (!w)
		return 2;
	__u32 index = (w->next++ * w->step) % w->count;
	int six = skb->priority & 8;
	__u32 *address = (void *)(long)skb->data + 26 + (skb->priority & 28);
	__u16 *ip_check = (void *)(long)skb->data + 24, *tcp_check = (void *)(long)skb->data + (six ? 70 : 50);
	void *end = (void *)(long)skb->data_end;
	if ((void *)(address + 1) > end || (void *)(tcp_check + 1) > end)
		return 2;
	__u32 next = BE32((__u32)w->base + index);
	if (!six)
		mend(ip_check, *address, next);
	mend(tcp_check, *address, next);
	*address = next;
	target.call(skb, 0);
	return 2;
}

/* A word of the frame, and TCP's checksum with it. */
static inline __attribute__((always_inline)) void put(__u16 *check, __u32 *place, __u32 word)
{
	mend(check, *place, word);
	*place = word;
}

/* skb->priority as for `scatter`: the source is the client, or where 4 or 16 is set the server. */
int replay(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct walk *w = walk.lookup(&zero);

	if (!w)
		return 2;
	__u32 index = w->next++ % w->count;
	struct ends *flow = ends.lookup(&index);
	__u64 *stamp = stamps.lookup(&index);
	if (!flow || !stamp)
		return 2;
	*stamp = bpf_ktime_get_ns();

	int back = skb->priority & 20;
	__u32 *from = back ? flow->destination : flow->source, *to = back ? flow->source : flow->destination;
	__u32 near = BE16((__u16)(flow->sport + w->base)), far = BE16(flow->dport);
	__u32 ports = back ? far | near << 16 : near | far << 16;
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	if (skb->priority & 8) {
		__u32 *place = data + 22;
		__u16 *check = data + 70;
		if ((void *)(check + 1) > end)
			return 2;
		for (int n = 0; n < 4; n++) {
			put(check, place + n, from[n]);
			put(check, place + 4 + n, to[n]);
		}
		put(check, place + 8, ports);
	} else {
		__u16 *ip_check = data + 24, *check = data + 50;
		__u32 *place = data + 26;
		if ((void *)(check + 1) > end)
			return 2;
		mend(ip_check, place[0], from[3]);
		mend(ip_check, place[1], to[3]);
		put(check, place, from[3]);
		put(check, place + 1, to[3]);
		put(check, place + 2, ports);
	}
	target.call(skb, 0);
	return 2;
}

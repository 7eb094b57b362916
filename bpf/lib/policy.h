/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The policy walk: the first rule in priority order that matches.
 *
 * Source address, destination address and (protocol, port) each have a class,
 * and each class a set of the rules it satisfies; the intersection's lowest bit
 * is the first match. A rule that names application protocols is certain when
 * the flow can only be one of them, and open while it still may be: an open rule
 * that would decide otherwise than the certain one leaves the flow undecided.
 * fastpath/policy/evaluate.py says the same without sets; tests compare them.
 */
#ifndef MS_POLICY_H
#define MS_POLICY_H

#define MS_PORT_TCP 0
#define MS_PORT_UDP 65536
#define MS_PORT_OTHER 131072

MS_INLINE __u32 all_protocols(__u8 l4)
{
	if (l4 == MS_IP_ICMP || l4 == MS_IP_ICMPV6)
		return 1 << MS_PROTOCOL_ICMP;
	if (l4 == MS_IP_TCP)
		return ((1 << MS_PROTOCOL_MAX) - 2) & ~(1 << MS_PROTOCOL_ICMP) & ~(1 << MS_PROTOCOL_QUIC);
	if (l4 == MS_IP_UDP)
		return (1 << MS_PROTOCOL_UNKNOWN) | (1 << MS_PROTOCOL_DNS) | (1 << MS_PROTOCOL_QUIC) |
		       (1 << MS_PROTOCOL_MEMCACHED);
	return 1 << MS_PROTOCOL_UNKNOWN;
}

/* Index of the lowest set bit: the population count of the bits below it. Without
 * branches, each of which would double the verifier's paths through the walk. */
MS_INLINE __u32 lowest_bit(__u64 x)
{
	x = (x & -x) - 1;
	x = x - ((x >> 1) & 0x5555555555555555ULL);
	x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return ((x * 0x0101010101010101ULL) >> 56) & 63;
}

MS_INLINE __u64 make_word(__u64 verdict, __u64 scope, __u32 flags, __u64 reason, __u64 rule, __u64 revision)
{
	__u64 word = verdict | (scope << MS_WORD_SCOPE) | (reason << MS_WORD_REASON) | (rule << MS_WORD_RULE) |
		     (revision << MS_WORD_REVISION);
	if (flags & MS_RULE_MONITOR)
		word |= 1 << MS_WORD_MONITOR;
	if (flags & MS_RULE_RESET)
		word |= 1 << MS_WORD_RESET;
	return word;
}

MS_INLINE struct ms_rule_set *class_of_address(void *trie, void *sets, __u32 side, const __u8 *addr)
{
	struct ms_prefix key = {.prefixlen = 32 + 128, .side = side};
	__builtin_memcpy(key.addr, addr, 16);
	__u32 *class = bpf_map_lookup_elem(trie, &key);
	return class ? bpf_map_lookup_elem(sets, class) : 0;
}

/* 0, or MS_REASON_NO_POLICY when no revision is loaded. `dport` in host order. */
MS_INLINE int policy_walk(struct ms_config *cfg, const __u8 *src, const __u8 *dst, __u8 l4, __u32 dport, __u32 possible,
			  struct ms_walk_state *w, struct ms_walk *out)
{
	__u32 revision = cfg->revision;
	int slot = revision & 1;
	void *trie, *ports, *sets, *rules;

	/* Out to memory and back: the loop below is verified once, not once for each value. */
	w->possible = possible;
	w->by_protocol = (possible & (possible - 1)) == 0 && (l4 == MS_IP_TCP || l4 == MS_IP_UDP);
	w->one_protocol = (possible & (possible - 1)) == 0;
	if (!revision)
		return MS_REASON_NO_POLICY;
	trie = pol_addr_slot(slot);
	if (!trie)
		return MS_REASON_NO_POLICY;
	ports = pol_port_slot(slot);
	if (!ports)
		return MS_REASON_NO_POLICY;
	sets = pol_set_slot(slot);
	if (!sets)
		return MS_REASON_NO_POLICY;
	rules = pol_rule_slot(slot);
	if (!rules)
		return MS_REASON_NO_POLICY;

	__u32 port_key = l4 == MS_IP_TCP   ? MS_PORT_TCP + dport
			 : l4 == MS_IP_UDP ? MS_PORT_UDP + dport
					   : MS_PORT_OTHER + l4;
	__u32 *port_class = bpf_map_lookup_elem(ports, &port_key);
	struct ms_rule_set *p = port_class ? bpf_map_lookup_elem(sets, port_class) : 0;
	struct ms_rule_set *s = class_of_address(trie, sets, 0, src);
	struct ms_rule_set *d = class_of_address(trie, sets, 1, dst);

	possible = *(volatile __u32 *)&w->possible;
	w->open_rule = 0;
	w->open_actions = 0;
	w->hit = 0;
	if (s && d && p) {
		w->summary = s->summary & d->summary & p->summary;
		w->word = 0;
#pragma nounroll
		for (int n = 0; n < MS_POLICY_WORDS + MS_POLICY_CANDIDATES; n++) {
			__u64 word = w->word;
			if (!word) {
				__u64 summary = w->summary;
				if (!summary)
					break;
				__u32 index = lowest_bit(summary);
				w->summary = summary & (summary - 1);
				w->index = index;
				w->word = s->words[index] & d->words[index] & p->words[index];
				continue;
			}
			__u32 number = w->index * 64 + lowest_bit(word) + 1;
			w->word = word & (word - 1);
			struct ms_rule *rule = bpf_map_lookup_elem(rules, &number);
			if (!rule)
				break;
			__u32 apps = rule->apps;
			if (!(apps & possible))
				continue;
			if (!(possible & ~apps) && !(rule->flags & MS_RULE_IDENTIFY)) {
				w->hit = number;
				break;
			}
			/* `inspect` without rule files only asks to identify first. */
			if (w->one_protocol && (rule->flags & MS_RULE_IDENTIFY))
				continue;
			if (!w->open_rule)
				w->open_rule = number;
			w->open_actions |= rule->action ^ MS_ACTION_DENY;
			ms_jump_back();
		}
	}
	__u32 hit = w->hit, open_rule = w->open_rule, open_actions = w->open_actions;

	/* Rule 0 is the default; it lies with the others, so that it belongs to the same revision. */
	struct ms_rule *decisive = bpf_map_lookup_elem(rules, &hit);
	if (!decisive)
		return MS_REASON_NO_POLICY;
	__u64 verdict = decisive->action;
	__u64 reason = !hit ? MS_REASON_DEFAULT : w->by_protocol ? MS_REASON_PROTOCOL : MS_REASON_POLICY;
	out->flags = decisive->flags;
	out->hash = decisive->hash;
	/* The handshake passes while some rule may still allow. */
	if (open_rule && (open_actions || verdict != MS_ACTION_DENY)) {
		struct ms_rule *rule = bpf_map_lookup_elem(rules, &open_rule);
		if (!rule)
			return MS_REASON_NO_POLICY;
		verdict = MS_VERDICT_UNDECIDED;
		reason = MS_REASON_PENDING;
		hit = open_rule;
		out->flags = rule->flags;
		out->hash = 0;
	}
	out->word = make_word(verdict, reason == MS_REASON_PROTOCOL ? MS_SCOPE_CONNECTION : MS_SCOPE_NONE, out->flags,
			      reason, hit, revision);
	return 0;
}

#endif

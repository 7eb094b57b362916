/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The policy walk: the first rule in priority order that matches.
 *
 * Both addresses have a class. A class knows the sets of addresses that hold it, and has indices: of the rules *to*
 * each of these sets, and of those *from* them (the compiler files a rule under one of its two sides). An index leads
 * from protocol and port to a list of candidates, rules that hold if the other address, too, is in a set. The lowest
 * number of all lists decides, so their order does not matter. What lies where, tells struct ms_policy.
 *
 * A rule that names application protocols is certain when the flow can only be one of them, and open while it still
 * may be: an open rule that would decide otherwise than the certain one leaves the flow undecided.
 * fastpath/policy/evaluate.py says the same without tables; tests compare them.
 */
#ifndef MS_POLICY_H
#define MS_POLICY_H

#define MS_NO_RULE 0x7fffffff
#define MS_MORE 0x80000000
/* One for each candidate that a class's signature lets through, one for each block. */
#define MS_POLICY_TURNS (MS_POLICY_CANDIDATES + MS_POLICY_CANDIDATES / 8 + MS_POLICY_LISTS)
#define MS_BLOCK_WORDS (sizeof(struct ms_block) / 4)
#define MS_CLASS_WORDS (sizeof(struct ms_class) / 4)
#define MS_POLICY_WORDS (sizeof(struct ms_policy) / 4)
#define MS_RULE_WORDS (sizeof(struct ms_rule) / 4)

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

MS_INLINE struct ms_rule *rule_at(void *pages, __u32 number)
{
	__u32 location = MS_POLICY_WORDS + number * MS_RULE_WORDS;
	__u32 *page = page_at(pages, location);
	return page ? (struct ms_rule *)word_at(page, location, MS_RULE_WORDS) : 0;
}

/* All lookups go on side by side, one step each and then the next: then the processor waits for memory once for each
 * step and not once for each lookup's. */
MS_INLINE void find_classes(struct ms_walk_state *w, void *pages, struct ms_policy *policy)
{
#pragma unroll
	for (int side = 0; side < 2; side++) {
		__u32 *address = w->address[side];
		int ipv4 = is_mapped(address);
		w->word[side] = ipv4 ? 3 : 0;
		w->class[side] = ipv4 ? policy->ipv4 : policy->ipv6;
	}
#pragma nounroll
	for (int n = 0; n < 4 * MS_INDEX_LEVELS; n++) {
		ms_turn();
		if (!((w->class[0] | w->class[1]) & MS_INDEX_DEPTH))
			break;
#pragma unroll
		for (int side = 0; side < 2; side++) {
			__u32 at = w->class[side], word = w->word[side];
			if (!(at & MS_INDEX_DEPTH))
				continue;
			at = step(pages, at, w->address[side][word & 3]);
			w->word[side] = word + ((at / MS_INDEX_ON) & 1);
			w->class[side] = at & ~MS_INDEX_ON;
		}
		ms_jump_back();
	}
}

/* What the verifier learns of `count` from a comparison it would keep, and go on once for each value. */
MS_INLINE int is_end(__u32 n, __u32 count)
{
	ms_opaque(n);
	count -= n;
	ms_opaque(count);
	return !count;
}

MS_INLINE void take_trees(struct ms_walk_state *w, __u32 *class_page, __u32 first, __u32 count)
{
#pragma nounroll
	for (int n = 0; n < MS_POLICY_LISTS / 2; n++) {
		if (is_end(n, count))
			break;
		__u32 lists = w->lists;
		w->found[lists & (MS_POLICY_LISTS - 1)] = *word_at(class_page, first + n, 1);
		w->lists = lists + 1;
		ms_jump_back();
	}
}

MS_INLINE void find_lists(struct ms_walk_state *w, void *pages)
{
#pragma nounroll
	for (int n = 0; n < MS_INDEX_LEVELS; n++) {
		w->busy = 0;
#pragma nounroll
		for (int m = 0; m < MS_POLICY_LISTS; m++) {
			if (is_end(m, w->lists))
				break;
			__u32 at = w->found[m];
			if (at & MS_INDEX_DEPTH) {
				at = step(pages, at, w->key);
				w->found[m] = at;
				w->busy |= at & MS_INDEX_DEPTH;
			}
			ms_jump_back();
		}
		if (!w->busy)
			break;
		ms_jump_back();
	}
}

/* The lists that follow test an address of this class. */
MS_INLINE void test_class(struct ms_walk_state *w, struct ms_class *class, __u32 location)
{
	w->spread = class->spread;
	w->shift = class->shift;
	w->sets = location + MS_CLASS_WORDS + ((class->by_destination + class->by_source + 3) & ~3);
}

MS_INLINE int in_set(struct ms_walk_state *w, __u32 *page, __u32 set)
{
	__u64 product = (__u32)(set * w->spread);
	__u32 *bucket = word_at(page, w->sets + ((__u32)(product >> (w->shift & 63)) << 2), 4);
	/* Only of zero the sign bit is set when it is made one less. */
	__u64 found = ((__u64)(bucket[0] ^ set) - 1) | ((__u64)(bucket[1] ^ set) - 1) | ((__u64)(bucket[2] ^ set) - 1) |
		      ((__u64)(bucket[3] ^ set) - 1);
	ms_opaque(found);
	return found >> 63;
}

/* Which candidates of a block a class may hold, a bit each, and whether another block follows. */
MS_INLINE __u32 passes(__u64 signature, const struct ms_block *block)
{
	__u64 found = block->rules[7] / MS_MORE << 8;
#pragma unroll
	for (int n = 0; n < 8; n++)
		found |= ((signature >> (block->sets[n] & 63)) & 1) << n;
	return found;
}

/* The same of all lists' first blocks. */
MS_INLINE void look_at_lists(struct ms_walk_state *w, void *pages)
{
#pragma nounroll
	for (int n = 0; n < MS_POLICY_LISTS; n++) {
		if (is_end(n, w->lists))
			break;
		__u32 at = w->found[n];
		__u32 *page = page_at(pages, at);
		if (!page)
			break;
		__u64 signature = w->signature[((__u64)w->to_lists - 1 - n) >> 63];
		__u32 found = passes(signature, (struct ms_block *)word_at(page, at, MS_BLOCK_WORDS));
		/* No list: what lies at the beginning is none either. */
		w->passes[n] = at ? found : 0;
		ms_jump_back();
	}
}

MS_INLINE __u32 policy_key(__u8 l4, __u32 dport)
{
	if (l4 == MS_IP_TCP)
		return MS_KEY_TCP + dport;
	if (l4 == MS_IP_UDP)
		return MS_KEY_UDP + dport;
	if (l4 == MS_IP_ICMP)
		return MS_KEY_ICMP + dport;
	return l4 == MS_IP_ICMPV6 ? MS_KEY_ICMPV6 + dport : MS_KEY_OTHER + l4;
}

/* What the walk is about: a packet from `src` to `dst`, `dport` in host order (of ICMP type and code, as in struct
 * ms_key), that may belong to these protocols. */
MS_INLINE void policy_ask(struct ms_walk_state *w, const __u8 *src, const __u8 *dst, __u8 l4, __u32 dport,
			  __u32 possible)
{
	__u32 words[8];

	__builtin_memcpy(words, dst, 16);
	__builtin_memcpy(words + 4, src, 16);
	for (int n = 0; n < 4; n++) {
		w->address[MS_TO_SERVER][n] = ms_be32(words[n]);
		w->address[MS_TO_CLIENT][n] = ms_be32(words[4 + n]);
	}
	w->key = policy_key(l4, dport);
	int known = (possible & (possible - 1)) == 0;
	w->l4 = l4;
	w->possible = possible;
	w->by_protocol = known && (l4 == MS_IP_TCP || l4 == MS_IP_UDP);
	/* `inspect` without rule files only asks to identify first. */
	w->passed_over = known ? MS_RULE_IDENTIFY : 0;
}

/* And what a session knows of where its packets go, if it has been asked already. */
MS_INLINE void policy_ask_session(struct ms_walk_state *w, struct ms_config *cfg, struct ms_session *s)
{
	int known = word_revision(s->verdict) >= cfg->zoned_since;

	w->vlan = s->vlan[0];
	w->zones[MS_TO_SERVER] = known ? s->zones[MS_TO_SERVER] : MS_ZONE_UNKNOWN;
	w->zones[MS_TO_CLIENT] = known ? s->zones[MS_TO_CLIENT] : MS_ZONE_UNKNOWN;
}

/* Answers what was asked: 0, or MS_REASON_NO_POLICY when no revision is loaded. */
MS_INLINE int policy_walk(struct __sk_buff *skb, struct ms_config *cfg, struct ms_walk_state *w, struct ms_walk *out)
{
	__u32 revision = cfg->revision;
	int slot = revision & 1;
	void *pages;
	__u32 *page_to, *page_from, *page;

	if (!revision)
		return MS_REASON_NO_POLICY;
	pages = pol_page_slot(slot);
	if (!pages)
		return MS_REASON_NO_POLICY;
	page = page_at(pages, 0);
	if (!page)
		return MS_REASON_NO_POLICY;
	struct ms_policy *policy = (struct ms_policy *)page;
	if (policy->asks_for_zones && !w->zones[MS_TO_SERVER])
		find_zones(skb, w);
	__u32 to_zone = w->zones[MS_TO_SERVER], from_zone = w->zones[MS_TO_CLIENT];
	w->course = from_zone == MS_ZONE_HOST ? MS_COURSE_FROM_HOST
		    : to_zone == MS_ZONE_HOST ? MS_COURSE_TO_HOST
					      : MS_COURSE_THROUGH;
	w->otherwise = policy->defaults ? policy->defaults + from_zone * policy->zones + to_zone : 0;
	find_classes(w, pages, policy);
	page_to = page_at(pages, w->class[MS_TO_SERVER]);
	if (!page_to)
		return MS_REASON_NO_POLICY;
	page_from = page_at(pages, w->class[MS_TO_CLIENT]);
	if (!page_from)
		return MS_REASON_NO_POLICY;
	struct ms_class *to = (struct ms_class *)word_at(page_to, w->class[MS_TO_SERVER], MS_CLASS_WORDS);
	struct ms_class *from = (struct ms_class *)word_at(page_from, w->class[MS_TO_CLIENT], MS_CLASS_WORDS);
	__u32 *other = page_from;

	w->lists = 0;
	take_trees(w, page_to, w->class[MS_TO_SERVER] + MS_CLASS_WORDS, to->by_destination);
	w->to_lists = w->lists;
	take_trees(w, page_from, w->class[MS_TO_CLIENT] + MS_CLASS_WORDS + from->by_destination, from->by_source);
	find_lists(w, pages);
	w->signature[0] = from->signature;
	w->signature[1] = to->signature;
	look_at_lists(w, pages);

	w->hit = MS_NO_RULE;
	w->open_rule = MS_NO_RULE;
	w->open_other = MS_NO_RULE;
	w->list = 0;
	w->left = 0;
	test_class(w, from, w->class[MS_TO_CLIENT]);
	page = page_to;
#pragma nounroll
	for (int n = 0; n < MS_POLICY_TURNS; n++) {
		ms_turn();
		__u32 left = w->left;
		if (!(left & 0xff)) {
			if (left) {
				/* A list lies within one page. */
				w->at += MS_BLOCK_WORDS;
				w->left = passes(w->signature[w->by_source & 1],
						 (struct ms_block *)word_at(page, w->at, MS_BLOCK_WORDS));
				continue;
			}
			__u32 list = w->list;
			if (list == w->lists)
				break;
			if (list == w->to_lists) {
				other = page_to;
				test_class(w, to, w->class[MS_TO_SERVER]);
			}
			w->by_source = list >= w->to_lists;
			w->list = list + 1;
			w->at = w->found[list & (MS_POLICY_LISTS - 1)];
			w->left = w->passes[list & (MS_POLICY_LISTS - 1)];
			page = page_at(pages, w->at);
			if (!page)
				break;
			continue;
		}
		struct ms_block *block = (struct ms_block *)word_at(page, w->at, MS_BLOCK_WORDS);
		__u32 place = lowest_bit(left) & 7;
		__u32 number = block->rules[place] & ~MS_MORE, set = block->sets[place];
		w->left = left & (left - 1);
		/* Behind what decides already, which a list's end always is. */
		if (number >= w->hit) {
			w->left = 0;
			continue;
		}
		if (set && !in_set(w, other, set))
			continue;
		struct ms_rule *rule = rule_at(pages, number);
		if (!rule)
			break;
		__u32 where = rule->where;
		__u32 *page_where = page_at(pages, where);
		if (!page_where)
			break;
		__u32 fits = rule->apps & w->possible & -is_there(w, page_where, where),
		      identify = rule->flags & MS_RULE_IDENTIFY;
		if (!fits || (identify & w->passed_over))
			continue;
		if (fits == w->possible && !identify) {
			w->hit = number;
			continue;
		}
		if (number < w->open_rule)
			w->open_rule = number;
		if (rule->action != MS_ACTION_DENY && number < w->open_other)
			w->open_other = number;
		ms_jump_back();
	}
	__u32 hit = w->hit, open_rule = w->open_rule;
	int open = open_rule < hit, allows = w->open_other < hit;

	__u64 reason = w->by_protocol ? MS_REASON_PROTOCOL : MS_REASON_POLICY;
	if (hit == MS_NO_RULE) {
		reason = MS_REASON_DEFAULT;
		hit = 0;
		if (w->otherwise) {
			page = page_at(pages, w->otherwise);
			if (!page)
				return MS_REASON_NO_POLICY;
			hit = *word_at(page, w->otherwise, 1);
		}
	}
	struct ms_rule *decisive = rule_at(pages, hit);
	if (!decisive)
		return MS_REASON_NO_POLICY;
	__u64 verdict = decisive->action;
	out->flags = decisive->flags;
	out->hash = decisive->hash;
	/* The handshake passes while some rule may still allow. */
	if (open && (allows || verdict != MS_ACTION_DENY)) {
		decisive = rule_at(pages, open_rule);
		if (!decisive)
			return MS_REASON_NO_POLICY;
		verdict = MS_VERDICT_UNDECIDED;
		reason = MS_REASON_PENDING;
		hit = open_rule;
		out->flags = decisive->flags;
		out->hash = 0;
	}
	out->word = make_word(verdict, reason == MS_REASON_PROTOCOL ? MS_SCOPE_CONNECTION : MS_SCOPE_NONE, out->flags,
			      reason, hit, revision);
	return 0;
}

/* Whether frames of an ethertype that is no IP pass. */
MS_INLINE int passes_ethertype(struct ms_config *cfg, __u16 ethertype)
{
	__u32 revision = cfg->revision;
	void *pages = revision ? pol_page_slot(revision & 1) : 0;
	struct ms_policy *policy = pages ? (struct ms_policy *)page_at(pages, 0) : 0;
	__u64 found = 0;

	if (!policy)
		return 0;
#pragma unroll
	for (int n = 0; n < MS_POLICY_ETHERTYPES; n++) {
		__u64 difference = policy->ethertypes[n] ^ ethertype;
		ms_opaque(difference);
		found |= difference - 1;
	}
	return found >> 63;
}

#endif

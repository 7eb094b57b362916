/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Later fragments follow what their first one met: it alone has the ports. One
 * that comes before its first, or reaches into it, takes the `fragment` exception.
 */
#ifndef MS_FRAGMENTS_H
#define MS_FRAGMENTS_H

MS_INLINE void fragment_key(struct ms_packet *p, struct ms_fragment_key *key)
{
	__builtin_memcpy(key->src, packet_src(p), 16);
	__builtin_memcpy(key->dst, packet_dst(p), 16);
	key->id = p->frag_id;
	/* IPv6 goes by the identification alone; later fragments need not name the same header (RFC 8200 4.5). */
	key->l4 = p->version == 4 ? p->l4 : 0;
}

/* Remember the first fragment of a datagram that is allowed, or that monitor mode lets pass. */
MS_INLINE void fragment_first(struct ms_packet *p, __u64 word, __u64 now)
{
	if (word_verdict(word) != MS_VERDICT_ALLOW && !(word & (1 << MS_WORD_MONITOR)))
		return;
	struct ms_fragment_key key;
	struct ms_fragment value = {.jiffies = now, .allowed = 1};

	fragment_key(p, &key);
	value.first_end = p->ip_len - (p->l4_off - p->l3);
	fragments_update(&key, &value);
}

MS_INLINE int fragment_later(struct ms_packet *p, struct ms_config *cfg, __u64 now)
{
	struct ms_fragment_key key;
	int monitor = cfg->monitor;

	count(MS_STAT_FRAGMENTS);
	if (cfg->exceptions[MS_EXCEPTION_FRAGMENT] == MS_ACTION_ALLOW)
		return MS_PASS;
	fragment_key(p, &key);
	struct ms_fragment *first = fragments_lookup(&key);
	/* RFC 8200 4.5: a datagram whose fragments take longer than 60 s is given up; 30 s is Linux's time. */
	if (!first || !first->allowed || now - first->jiffies > cfg->timeouts[MS_TIMEOUT_CLOSING] ||
	    p->frag_off < first->first_end)
		return drop(MS_REASON_FRAGMENT, monitor);
	return MS_PASS;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Later fragments follow their first one, which alone has the ports: they go on as long as its session does, under
 * the verdict that it has by then. One that comes before its first, or brings what another brought, takes the
 * `fragment` exception. Two CPUs with fragments of one datagram may miss each other's; a receive queue is steered
 * by addresses, which all of them share.
 */
#ifndef MS_FRAGMENTS_H
#define MS_FRAGMENTS_H

#define MS_FRAGMENT_HOLES 4

MS_INLINE void fragment_key(struct ms_packet *p, struct ms_fragment_key *key)
{
	__builtin_memcpy(key->src, packet_src(p), 16);
	__builtin_memcpy(key->dst, packet_dst(p), 16);
	key->id = p->frag_id;
	/* IPv6 goes by the identification alone; later fragments need not name the same header (RFC 8200 4.5). */
	key->l4 = p->version == 4 ? p->l4 : 0;
}

/* Linux keeps fragments for 30 s (RFC 8200 4.5: 60 s). */
MS_INLINE int fragment_fresh(const struct ms_fragment *f, struct ms_config *cfg, __u64 now)
{
	return now - f->jiffies <= cfg->fragment_timeout || now < f->jiffies;
}

/*
 * Remember a first fragment; `s` is null where an allowed one has no session. Answers 0 or a reason. While its datagram is
 * incomplete, another one with the same identification is an overlap (RFC 5722), but for its own repetition.
 */
MS_INLINE int fragment_first(struct ms_packet *p, struct ms_session *s, struct ms_config *cfg, __u64 now)
{
	struct ms_fragment_key key;
	struct ms_fragment value = {};
	__u16 end = p->frag_len >> 3;

	fragment_key(p, &key);
	value.jiffies = now;
	value.allowed = 1;
	if (s) {
		__u32 verdict = word_verdict(s->verdict);
		value.id = s->id;
		value.allowed = verdict == MS_VERDICT_ALLOW || verdict == MS_VERDICT_DRAIN ||
				(s->verdict & (1 << MS_WORD_MONITOR));
	}
	value.key = p->key;
	value.seq = p->seq + !!(p->tcp_flags & MS_TCP_SYN_BIT) + !!(p->tcp_flags & MS_TCP_FIN_BIT) -
		    (p->payload - p->l4_off);
	value.revision = cfg->revision;
	value.hole[0] = end;
	value.hole_end[0] = MS_FRAGMENT_UNITS;

	struct ms_fragment *old = fragments_lookup(&key);
	if (old && old->allowed && fragment_fresh(old, cfg, now) && *(__u64 *)old->hole != *(__u64 *)old->hole_end) {
		if (old->id == value.id && old->key.port_a == p->key.port_a && old->key.port_b == p->key.port_b &&
		    old->key.l4 == p->key.l4 && old->first_end == end)
			return old->refused;
		if (cfg->exceptions[MS_EXCEPTION_FRAGMENT] != MS_ACTION_ALLOW) {
			old->refused = MS_REASON_FRAGMENT_OVERLAP;
			return MS_REASON_FRAGMENT_OVERLAP;
		}
	}
	value.first_end = end;
	fragments_update(&key, &value);
	return 0;
}

/* What a later fragment of a segment sends counts as sent: it will be acknowledged. */
MS_INLINE void fragment_sends(const struct ms_packet *p, const struct ms_fragment *f, struct ms_session *s)
{
	int dir = direction_of(s, p);
	__u32 end = f->seq + p->frag_off + p->frag_len;

	if (f->key.l4 == MS_IP_TCP && (__s32)(end - s->end[dir & 1]) > 0)
		s->end[dir & 1] = end;
}

/* Put a later fragment into the hole it fills (RFC 815 3). Answers 0 or a reason. */
MS_INLINE int fragment_place(struct ms_packet *p, struct ms_fragment *f)
{
	__u32 from = p->frag_off >> 3, to = ((__u32)p->frag_off + p->frag_len + 7) >> 3;
	__u32 hit = MS_FRAGMENT_HOLES, room = MS_FRAGMENT_HOLES;

	if (f->pieces >= MS_FRAGMENT_PIECES)
		return f->refused = MS_REASON_FRAGMENT_LIMIT;
	f->pieces += 1;
#pragma unroll
	for (__u32 n = 0; n < MS_FRAGMENT_HOLES; n++) {
		__u32 hole = f->hole[n], end = f->hole_end[n];
		if (hole == end)
			room = n;
		else if (from < end && to > hole)
			hit = n;
	}
	/* Wholly inside what was there: a repetition, which no receiver misses. */
	if (hit == MS_FRAGMENT_HOLES)
		return MS_REASON_FRAGMENT_OVERLAP;
	ms_opaque(hit);
	hit &= MS_FRAGMENT_HOLES - 1;
	__u32 hole = f->hole[hit], end = f->hole_end[hit];
	/* Also the last one, where bytes behind it were there. */
	if (from < hole || to > end || (!p->more_fragments && end != MS_FRAGMENT_UNITS))
		return f->refused = MS_REASON_FRAGMENT_OVERLAP;
	if (!p->more_fragments)
		end = to;
	if (from > hole && to < end) {
		if (room == MS_FRAGMENT_HOLES)
			return f->refused = MS_REASON_FRAGMENT_LIMIT;
		ms_opaque(room);
		room &= MS_FRAGMENT_HOLES - 1;
		f->hole[room] = to;
		f->hole_end[room] = end;
		end = from;
	} else if (from > hole) {
		end = from;
	} else {
		hole = to;
	}
	f->hole[hit] = hole;
	f->hole_end[hit] = end;
	/* Holes that are none are all the same, which is how a whole datagram is known. */
	if (hole == end)
		f->hole[hit] = f->hole_end[hit] = 0;
	return 0;
}

MS_INLINE int fragment_later(struct ms_packet *p, struct ms_config *cfg, __u64 now)
{
	struct ms_fragment_key key;
	int monitor = cfg->monitor;
	int lenient = cfg->exceptions[MS_EXCEPTION_FRAGMENT] == MS_ACTION_ALLOW;

	count(MS_STAT_FRAGMENTS);
	fragment_key(p, &key);
	struct ms_fragment *f = fragments_lookup(&key);
	if (!f || !fragment_fresh(f, cfg, now) || f->revision != cfg->revision)
		return lenient ? MS_PASS : drop(MS_REASON_FRAGMENT, monitor);
	struct ms_session *s = 0;
	if (f->id) {
		s = sessions_lookup(&f->key);
		if (!s || s->id != f->id)
			return lenient ? MS_PASS : drop(MS_REASON_FRAGMENT, monitor);
		__u64 word = s->verdict;
		__u32 verdict = word_verdict(word);
		if (verdict == MS_VERDICT_DENY)
			return drop(word_reason(word), (word >> MS_WORD_MONITOR) & 1);
		if (verdict != MS_VERDICT_ALLOW && verdict != MS_VERDICT_DRAIN)
			return drop(MS_REASON_FRAGMENT, (word >> MS_WORD_MONITOR) & 1);
	}
	int reason = lenient ? 0 : f->refused ?: fragment_place(p, f);
	if (reason)
		return drop(reason, monitor);
	if (s)
		fragment_sends(p, f, s);
	return MS_PASS;
}

#endif

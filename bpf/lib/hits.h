/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What each rule judged: sessions, packets, bytes. Packets of a session cost nothing here: it counts them itself, and
 * its rule gets them when it goes. What a rule has had is this and what its live sessions count by then.
 *
 * A reload may give a session to another rule. What it counted until then is added to the old rule, and taken from
 * the new one, which will get the whole sum: so nothing needs to be remembered. While an application protocol is
 * awaited, no rule has decided yet: the one that does gets all of it.
 *
 * Rules are numbered anew with each revision, so each has counters of its own (`hits`), for as long as the next
 * MS_HITS_SLOTS - 1. A session that is older goes over to its next rule undivided; if there is none, to MS_HITS_LOST.
 */
#ifndef MS_HITS_H
#define MS_HITS_H

MS_INLINE struct ms_hits *hits_of(__u32 revision, __u32 number)
{
	void *slot = hits_slot(revision & (MS_HITS_SLOTS - 1));
	struct ms_hits *hits = slot ? bpf_map_lookup_elem(slot, &number) : 0;

	hits = hits && hits->revision == revision ? hits : 0;
	/* Else the compiler knows which way led here and asks for no null; the verifier does not. */
	ms_opaque(hits);
	return hits;
}

/* Of the rule in a word; `flags` are those of its session. */
MS_INLINE struct ms_hits *hits_of_word(__u64 word, __u32 flags)
{
	__u32 rule = word_rule(word);

	return hits_of(word_revision(word), !rule && (flags & MS_SESSION_HOST) ? MS_HITS_HOST : MS_HITS_RULES + rule);
}

MS_INLINE void hits_add(struct ms_hits *hits, __u64 sessions, __u64 packets, __u64 bytes)
{
	if (sessions)
		__sync_fetch_and_add(&hits->sessions, sessions);
	__sync_fetch_and_add(&hits->packets, packets);
	__sync_fetch_and_add(&hits->bytes, bytes);
}

/* A packet that has no session. */
MS_INLINE void hits_packet(const struct ms_packet *p, __u64 word, __u32 flags)
{
	struct ms_hits *hits = hits_of_word(word, flags);

	if (hits)
		hits_add(hits, 0, p->segments, p->ip_len);
}

/* Another revision judges: `word` is about to be the session's. Two CPUs at once may both do this; the sum over all
 * rules is right even so. */
MS_INLINE void hits_divide(struct ms_session *s, __u64 word)
{
	__u64 packets = s->packets[0] + s->packets[1], bytes = s->bytes[0] + s->bytes[1];
	struct ms_hits *from = hits_of_word(s->verdict, s->flags), *to = hits_of_word(word, s->flags);

	if (!from || !to || word_reason(s->verdict) == MS_REASON_PENDING)
		return;
	hits_add(from, 1, packets, bytes);
	hits_add(to, -1, -packets, -bytes);
}

/* A session goes, and its rule gets what it counted. */
MS_INLINE void remove_session(struct ms_key *key, struct ms_session *s)
{
	struct ms_config *cfg = config_get();
	__u64 packets = s->packets[0] + s->packets[1], bytes = s->bytes[0] + s->bytes[1];
	struct ms_hits *hits = hits_of_word(s->verdict, s->flags);

	if (!hits && cfg)
		hits = hits_of(cfg->revision, MS_HITS_LOST);
	/* Another CPU may have been first. */
	if (sessions_delete(key))
		return;
	count(MS_STAT_DELETES);
	if (hits)
		hits_add(hits, 1, packets, bytes);
}

#endif

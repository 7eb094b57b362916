/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* First packets, and packets of sessions that were judged under an older revision. */
#ifndef MS_JUDGE_H
#define MS_JUDGE_H

/* Does the packet end at the gateway itself? */
MS_INLINE int to_host(struct __sk_buff *skb, struct ms_packet *p)
{
	struct bpf_fib_lookup fib;

	route_ask(&fib, skb->ifindex, p->version, packet_src(p), packet_dst(p), p->l4);
	return ends_here(bpf_fib_lookup(skb, &fib, sizeof(fib), 0));
}

/* Walk the policy for a packet, `reversed` if the server sent it, of a session if it has one, and go on with the program
 * `answer`. */
MS_INLINE int ask(struct __sk_buff *skb, struct ms_scratch *room, struct ms_config *cfg, struct ms_session *s,
		  int reversed, __u32 possible, int answer)
{
	struct ms_packet *p = &room->packet;
	struct ms_walk_state *w = &room->walk;
	__u16 port = reversed ? p->sport : p->icmp_reply ? p->icmp : p->dport;
	__u32 hook = skb->cb[0], here = skb->ifindex, before = skb->ingress_ifindex;

	/* Read before one of them is chosen: the verifier takes no chosen offset. */
	ms_opaque(here);
	ms_opaque(before);
	if (s) {
		policy_ask_session(w, cfg, s);
	} else {
		w->vlan = p->vlan[0];
		w->zones[0] = MS_ZONE_UNKNOWN;
		w->zones[1] = MS_ZONE_UNKNOWN;
	}
	w->reversed = reversed;
	w->came_in = hook == MS_EGRESS ? before : here;
	w->goes_out = hook == MS_EGRESS ? here : 0;
	policy_ask(w, reversed ? packet_dst(p) : packet_src(p), reversed ? packet_src(p) : packet_dst(p), p->l4,
		   ms_be16(port), possible);
	room->answer = answer;
	progs_call(skb, MS_PROG_POLICY);
	return drop(MS_REASON_NO_POLICY, 0);
}

MS_INLINE int is_failsafe(struct ms_config *cfg, struct ms_packet *p)
{
	__u16 port = ms_be16(p->dport);
	if (p->l4 != MS_IP_TCP || !port)
		return 0;
	for (int n = 0; n < MS_FAILSAFE_PORTS; n++) {
		if (cfg->failsafe[n] == port)
			return 1;
	}
	return 0;
}

/* A rule must see the start of a flow whose start was not seen. */
MS_INLINE void midstream(struct ms_config *cfg, struct ms_walk *walk)
{
	__u32 verdict = word_verdict(walk->word);
	__u8 action = cfg->exceptions[MS_EXCEPTION_MIDSTREAM];

	if (action == MS_ACTION_DENY || verdict == MS_VERDICT_UNDECIDED || verdict == MS_VERDICT_INSPECT) {
		if (action != MS_ACTION_ALLOW)
			walk->word =
				word_with_reason(word_with_verdict(walk->word, MS_VERDICT_DENY), MS_REASON_MIDSTREAM);
		else
			walk->word =
				word_with_reason(word_with_verdict(walk->word, MS_VERDICT_ALLOW), MS_REASON_MIDSTREAM);
	}
}

/* Verdict of a flow without a session; `error` is the walk's. Answers 0 or a reason to drop at once. */
MS_INLINE int judge_first(struct __sk_buff *skb, struct ms_packet *p, struct ms_config *cfg, int hook, int error,
			  struct ms_walk *walk, __u32 *flags)
{
	int own = hook == MS_EGRESS && skb->ingress_ifindex == 0;
	__u32 reason = MS_REASON_NONE;

	/* The gateway's own traffic is allowed unless a rule says otherwise. */
	if (own && (error || word_rule(walk->word) == 0))
		reason = MS_REASON_HOST;
	else if (!own && hook == MS_INGRESS && is_failsafe(cfg, p) && to_host(skb, p))
		reason = MS_REASON_FAILSAFE;
	if (own || reason)
		*flags |= MS_SESSION_HOST;
	if (reason) {
		walk->flags = 0;
		walk->hash = 0;
		walk->word = make_word(MS_VERDICT_ALLOW, MS_SCOPE_NONE, 0, reason, 0, cfg->revision);
		return 0;
	}
	if (error)
		return error;
	if (*flags & MS_SESSION_MIDSTREAM)
		midstream(cfg, walk);
	return 0;
}

/* Walked again for a session of an older revision, with what is known of it by now. */
MS_INLINE void rejudge(struct ms_packet *p, struct ms_session *s, struct ms_config *cfg, struct ms_walk_state *state,
		       struct ms_walk *walk)
{
	__u64 old = s->verdict;
	__u32 old_verdict = word_verdict(old), old_reason = word_reason(old);
	__u32 verdict = word_verdict(walk->word);
	__u64 keep = (1ULL << MS_WORD_RULE) - 1;

	count(MS_STAT_REJUDGED);
	remember_zones(s, state, direction_of(s, p));
	/* The number that its rule had stands for another one now. */
	if (closed(s)) {
		__u64 word = (old & keep) | (walk->word & ~keep);
		hits_divide(s, word);
		s->verdict = word;
		return;
	}
	/* As it is judged first: whatever a rule said of it is over. */
	if ((s->flags & MS_SESSION_HOST) && (word_rule(walk->word) == 0 || old_reason == MS_REASON_FAILSAFE)) {
		__u64 reason = old_reason == MS_REASON_FAILSAFE ? MS_REASON_FAILSAFE : MS_REASON_HOST;
		__u64 word = make_word(MS_VERDICT_ALLOW, MS_SCOPE_NONE, 0, reason, 0, cfg->revision);
		hits_divide(s, word);
		s->verdict = word;
		s->rule_hash = 0;
		return;
	}
	int same = walk->hash && walk->hash == s->rule_hash;
	int waiting = old_verdict == MS_VERDICT_INSPECT || old_verdict == MS_VERDICT_UNDECIDED;
	if (same || (waiting && (verdict == MS_VERDICT_INSPECT || verdict == MS_VERDICT_UNDECIDED))) {
		/* Judged by the same rule: keep the outcome, carry rule number and revision. */
		__u64 word = (old & keep) | (walk->word & ~keep);
		hits_divide(s, word);
		s->verdict = word;
		if (!same)
			s->rule_hash = walk->hash;
		return;
	}
	if (p->l4 == MS_IP_TCP && (verdict == MS_VERDICT_INSPECT || verdict == MS_VERDICT_UNDECIDED))
		midstream(cfg, walk);
	hits_divide(s, walk->word);
	s->verdict = walk->word;
	s->rule_hash = walk->hash;
	emit_verdict(&p->key, s, walk->flags);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What happens to a packet under its session's verdict. */
#ifndef MS_VERDICT_H
#define MS_VERDICT_H

MS_INLINE int inspector_alive(struct ms_config *cfg, __u64 now)
{
	__u64 *beat = heartbeat_get();
	return beat && *beat && now - *beat <= cfg->inspector_timeout;
}

/* Redirect the frame to the inspector. */
MS_INLINE int hold(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg, int dir,
		   int hook)
{
	/* Coming back it would count as meant for the gateway, whoever it was sent to. */
	if (skb->pkt_type != 0 && hook == MS_INGRESS)
		return drop(MS_REASON_TAP, 0);
	if (s->ifindex[dir & 1] != skb->ifindex)
		s->ifindex[dir & 1] = skb->ifindex;
	/* The CPU its frames come back to may change only while none is on its way. */
	__u32 cpu = bpf_get_smp_processor_id();
	if (s->cpu[dir & 1] != cpu && s->held[dir & 1] == s->released[dir & 1])
		s->cpu[dir & 1] = cpu;
	if (hook == MS_EGRESS && !(s->told & (2 << dir)))
		s->told |= 2 << dir;
	__sync_fetch_and_add(&s->held[dir & 1], 1);
	count_packets(p, MS_STAT_HELD);
	return bpf_redirect(cfg->tap_ifindex, 0);
}

MS_INLINE int deny(struct __sk_buff *skb, struct ms_packet *p, __u64 word, int hook)
{
	if (word & (1 << MS_WORD_MONITOR)) {
		drop(word_reason(word), 1);
		return MS_PASS;
	}
	/* The resets of `sessions close`: only the gateway itself sends at egress. */
	if (word_reason(word) == MS_REASON_CLOSED && hook == MS_EGRESS && skb->ingress_ifindex == 0 &&
	    (p->tcp_flags & MS_TCP_RST_BIT))
		return MS_PASS;
	if ((word & (1 << MS_WORD_RESET)) && p->l4 == MS_IP_TCP && !(p->tcp_flags & MS_TCP_RST_BIT) &&
	    hook == MS_INGRESS && !p->first_fragment) {
		drop(word_reason(word), 0);
		return tail(skb, p, MS_PROG_RESET, hook, 0);
	}
	return drop(word_reason(word), 0);
}

/* Nobody answers: the rule that would have been inspected says what then. */
MS_INLINE int inspector_down(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg,
			     __u64 word, int hook)
{
	__u32 flags = 0;
	void *pages = pol_page_slot(cfg->revision & 1);
	if (pages) {
		struct ms_rule *rule = rule_at(pages, word_rule(word));
		if (rule)
			flags = rule->flags;
	}
	int allow = (flags & MS_RULE_DOWN_ALLOW) || cfg->exceptions[MS_EXCEPTION_INSPECTOR_DOWN] == MS_ACTION_ALLOW;
	word = word_with_reason(word_with_verdict(word, allow ? MS_VERDICT_ALLOW : MS_VERDICT_DENY),
				MS_REASON_INSPECTOR_DOWN);
	s->verdict = word;
	emit_verdict(&p->key, s, flags);
	return allow ? MS_PASS : deny(skb, p, word, hook);
}

/* Only segments that carry nothing a rule could refuse overtake held ones. */
MS_INLINE int carries_nothing(struct ms_packet *p)
{
	return p->l4 == MS_IP_TCP && p->payload_len == 0 && !(p->tcp_flags & (MS_TCP_FIN_BIT | MS_TCP_RST_BIT));
}

MS_INLINE int inspect(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg,
		      __u64 word, int dir, int hook, __u64 now)
{
	if (carries_nothing(p)) {
		count_packets(p, MS_STAT_FAST);
		return MS_PASS;
	}
	if (!inspector_alive(cfg, now))
		return inspector_down(skb, p, s, cfg, word, hook);
	if (p->first_fragment)
		return drop(MS_REASON_FRAGMENT, (word >> MS_WORD_MONITOR) & 1);
	return hold(skb, p, s, cfg, dir, hook);
}

/* From now on the inspector has it. */
MS_INLINE int begin_to_inspect(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg,
			       __u64 word, int dir, int hook, __u64 now)
{
	word = word_with_verdict(word, MS_VERDICT_INSPECT);
	s->verdict = word;
	return inspect(skb, p, s, cfg, word, dir, hook, now);
}

/*
 * Hand-over in order: a direction goes straight again once nothing of it is held, on the CPU that its last
 * held frame was steered to. On another one that frame may still be on its way through the stack, although
 * it counts as released. The session flips when both directions go straight.
 */
MS_INLINE int drain(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg, __u64 word,
		    int dir, int hook, __u64 now)
{
	if (carries_nothing(p)) {
		count_packets(p, MS_STAT_FAST);
		return MS_PASS;
	}
	int other = (dir ^ 1) & 1;
	__u32 waiting = s->held[dir & 1] - s->released[dir & 1];
	int behind = waiting || (s->held[dir & 1] && s->cpu[dir & 1] != bpf_get_smp_processor_id());
	int overdue = (__u32)now - s->stamp > cfg->drain_timeout || waiting > MS_DRAIN_PACKETS;

	if (!behind && !(s->told & (MS_STRAIGHT_BIT << dir)))
		s->told |= MS_STRAIGHT_BIT << dir;
	if (overdue || (!behind && (!s->held[other] || (s->told & (MS_STRAIGHT_BIT << other))))) {
		s->verdict = word_with_verdict(word, MS_VERDICT_ALLOW);
		s->stamp = 0;
		if (overdue && waiting) {
			s->held[dir & 1] = s->released[dir & 1];
			count(MS_STAT_DRAIN_LIMIT);
		}
		count(MS_STAT_DRAINS);
	}
	if (overdue || !behind) {
		count_packets(p, MS_STAT_FAST);
		return MS_PASS;
	}
	return hold(skb, p, s, cfg, dir, hook);
}

/*
 * A segment the kernel identified may be a decoy that never reaches the server
 * (bad checksum, low TTL). The verdict is provisional until the peer has
 * acknowledged these very bytes; other bytes in their place go to the inspector.
 */
MS_INLINE int provisional_changes(struct ms_session *s, struct ms_packet *p, int dir)
{
	int identified = s->provisional - 1;
	if (dir != identified) {
		if ((p->tcp_flags & MS_TCP_ACK_BIT) && (__s32)(p->ack - s->ident_end) >= 0)
			s->provisional = 0;
		return 0;
	}
	return p->payload_len && (__s32)(p->seq - s->ident_end) < 0;
}

/* A segment that belongs to no state or window of its session. It is no evidence and keeps nothing alive; its
 * payload goes on only where all bytes do. To a SYN the receiver must be able to answer (RFC 5961 4.2). */
MS_INLINE int stray(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg,
		    __u32 reason)
{
	int monitor = (s->verdict >> MS_WORD_MONITOR) & 1;

	if (reason == MS_REASON_CLOSED)
		return drop(reason, monitor);
	count(MS_STAT_TCP_STATE + ((reason - MS_REASON_TCP_STATE) & 7));
	int harmless = !p->payload_len || word_verdict(s->verdict) == MS_VERDICT_ALLOW;
	int asks = reason == MS_REASON_TCP_SYN && !p->payload_len && !(p->tcp_flags & MS_TCP_ACK_BIT);
	if (!harmless || (cfg->strict_tcp && !asks))
		return drop(reason, monitor);
	count_packets(p, MS_STAT_FAST);
	return MS_PASS;
}

MS_INLINE int act(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, struct ms_config *cfg, int dir,
		  int hook, __u64 now)
{
	__u64 word = s->verdict;

	switch (word_verdict(word)) {
	case MS_VERDICT_ALLOW:
		if (s->provisional && provisional_changes(s, p, dir)) {
			s->provisional = 0;
			s->protocol = MS_PROTOCOL_NONE;
			word = word_with_reason(word, MS_REASON_PENDING);
			return begin_to_inspect(skb, p, s, cfg, word, dir, hook, now);
		}
		count_packets(p, MS_STAT_FAST);
		return forward(skb, p, s, cfg, dir, hook, now);
	case MS_VERDICT_UNDECIDED:
		if (p->payload_len == 0) {
			count_packets(p, MS_STAT_FAST);
			return MS_PASS;
		}
		return tail(skb, p, MS_PROG_IDENTIFY, hook, 0);
	case MS_VERDICT_INSPECT:
		return inspect(skb, p, s, cfg, word, dir, hook, now);
	case MS_VERDICT_DRAIN:
		return drain(skb, p, s, cfg, word, dir, hook, now);
	default:
		return deny(skb, p, word, hook);
	}
}

#endif

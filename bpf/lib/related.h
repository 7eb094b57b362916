/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* ICMP errors pass when they quote a packet of an allowed session (design.md, rule 7), and change nothing in it. */
#ifndef MS_RELATED_H
#define MS_RELATED_H

/* Is `seq` of a quoted segment in flight (RFC 5927 4.1)? An acknowledgment may have overtaken the error: what
 * was in flight a window ago counts too. */
MS_INLINE int in_flight(const struct ms_session *s, int dir, __u32 seq)
{
	int other = dir ^ 1;
	__u32 end = s->end[dir & 1];
	__u32 una = s->ack[other & 1] ?: s->isn[dir & 1];
	__u32 slack = tcp_slack(s, other);

	if (!end || (s->flags & MS_SESSION_MIDSTREAM))
		return 1;
	return seq - (una - slack) <= end - una + slack;
}

MS_INLINE int icmp_error(struct __sk_buff *skb, struct ms_packet *p, struct ms_config *cfg, int hook, __u64 now)
{
	if (hook == MS_EGRESS && skb->ingress_ifindex == 0)
		return MS_PASS;
	struct ms_session *s = sessions_lookup(&p->key);
	/* Of an older revision: the quoted packet itself would have been judged again. */
	if (!s || expired(s, cfg, now) || word_revision(s->verdict) != cfg->revision)
		return drop(MS_REASON_ICMP_UNRELATED, cfg->monitor);
	__u64 word = s->verdict;
	int dir = direction_of(s, p);
	/* About a packet that its receiver never sent. */
	if (!s->packets[dir & 1] || (p->key.l4 == MS_IP_TCP && !in_flight(s, dir, p->seq)))
		return drop(MS_REASON_ICMP_UNRELATED, cfg->monitor);
	if (word_verdict(word) == MS_VERDICT_DENY)
		return drop(MS_REASON_ICMP_UNRELATED, (word >> MS_WORD_MONITOR) & 1);
	return MS_PASS;
}

#endif

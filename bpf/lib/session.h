/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Session entries: create, account, expire. The kernel is their only writer. */
#ifndef MS_SESSION_H
#define MS_SESSION_H

MS_INLINE int direction_of(const struct ms_session *s, const struct ms_packet *p)
{
	int server_is_a = s->flags & MS_SESSION_SERVER_IS_A;
	return (p->src_is_a != 0) == (server_is_a != 0) ? MS_TO_CLIENT : MS_TO_SERVER;
}

MS_INLINE int expired(const struct ms_session *s, const struct ms_config *cfg, __u64 now)
{
	return now - s->last_jiffies > cfg->timeouts[s->timeout & (MS_TIMEOUT_MAX - 1)] && now > s->last_jiffies;
}

/* Ended by the operator: nothing but a new SYN opens it again, no policy and no inspector. */
MS_INLINE int closed(const struct ms_session *s)
{
	return word_verdict(s->verdict) == MS_VERDICT_DENY && word_reason(s->verdict) == MS_REASON_CLOSED;
}

/* Counters and time. One call for each packet that belongs to its session, never for a released one. */
MS_INLINE void account(struct ms_session *s, struct ms_packet *p, int dir, __u64 now)
{
	__sync_fetch_and_add(&s->packets[dir & 1], p->segments);
	__sync_fetch_and_add(&s->bytes[dir & 1], p->ip_len);
	if (s->last_jiffies != now)
		s->last_jiffies = now;
	if (dir == MS_TO_CLIENT && s->timeout == MS_TIMEOUT_UDP)
		s->timeout = MS_TIMEOUT_UDP_STREAM;
}

MS_INLINE void end_session(struct ms_key *key, struct ms_session *s, __u8 end)
{
	emit_end(key, s, end);
	remove_session(key, s);
}

/* 53 bits, so that JSON readers with doubles keep it: 4 ms of boot time (99 days), the CPU, and the lower bits of how
 * many sessions it has made, more than it can make in that time. */
MS_INLINE __u64 new_id(__u64 ns)
{
	struct ms_counters *counters = stats_get();
	__u64 number = counters ? counters->stats[MS_STAT_INSERTS] : 0;

	return ((ns >> 22) & 0x7fffffff) << 22 | (__u64)(bpf_get_smp_processor_id() & 63) << 16 | (number & 0xffff);
}

/* Those of a walk for a packet of this direction. */
MS_INLINE void remember_zones(struct ms_session *s, struct ms_walk_state *w, int dir)
{
	/* As the packet goes, whoever was taken for the client then. */
	__u8 to = w->zones[w->reversed & 1], from = w->zones[~w->reversed & 1];

	if (s->zones[dir & 1] != to)
		s->zones[dir & 1] = to;
	if (s->zones[~dir & 1] != from)
		s->zones[~dir & 1] = from;
}

/* A new session in scratch memory, its packet not accounted. */
MS_INLINE void compose(struct ms_scratch *room, struct ms_packet *p, struct ms_walk *walk, __u32 flags,
		       int server_is_source, __u64 now)
{
	struct ms_session *s = &room->session;
	int dir = server_is_source ? MS_TO_CLIENT : MS_TO_SERVER;

	__builtin_memset(s, 0, sizeof(*s));
	s->verdict = walk->word;
	s->rule_hash = walk->hash;
	/* The exact clock costs 22 ns more, and only records have a use for it. */
	s->first_ns =
		walk->flags & (MS_RULE_LOG_ALL | MS_RULE_LOG_DENY) ? bpf_ktime_get_ns() : bpf_ktime_get_coarse_ns();
	s->id = new_id(s->first_ns);
	s->last_jiffies = now;
	s->flags = flags | (wants_record(walk->word, walk->flags) ? MS_SESSION_LOGGED : 0);
	remember_zones(s, &room->walk, dir);
	if ((p->src_is_a != 0) == (server_is_source != 0))
		s->flags |= MS_SESSION_SERVER_IS_A;
	s->vlan[0] = p->vlan[0];
	s->vlan[1] = p->vlan[1];
	if (p->l4 == MS_IP_TCP) {
		if (flags & MS_SESSION_MIDSTREAM) {
			tcp_adopt(s, p, dir);
		} else {
			s->tcp[MS_TO_SERVER] = MS_TCP_SYN_SENT;
			s->tcp[MS_TO_CLIENT] = MS_TCP_LISTEN;
			s->timeout = MS_TIMEOUT_SYN;
			tcp_open(s, p, &room->options, MS_TO_SERVER);
		}
	} else if (p->l4 == MS_IP_UDP) {
		s->timeout = MS_TIMEOUT_UDP;
	} else if (p->l4 == MS_IP_ICMP || p->l4 == MS_IP_ICMPV6) {
		s->timeout = MS_TIMEOUT_ICMP;
		s->protocol = MS_PROTOCOL_ICMP;
		s->first_protocol = MS_PROTOCOL_ICMP;
	} else {
		s->timeout = MS_TIMEOUT_OTHER;
	}
}

#endif

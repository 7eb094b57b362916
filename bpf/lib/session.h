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
	if (!sessions_delete(key))
		count(MS_STAT_DELETES);
}

/* 53 bits, so that JSON readers with doubles keep it: 16 ns of boot time, then the CPU. */
MS_INLINE __u64 new_id(__u64 ns)
{
	return (((ns >> 4) << 6) | (bpf_get_smp_processor_id() & 63)) & ((1ULL << 53) - 1);
}

MS_INLINE struct ms_session *create(struct __sk_buff *skb, struct ms_packet *p, struct ms_walk *walk, __u32 flags,
				    int server_is_source, __u64 now)
{
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);
	if (!room)
		return 0;
	struct ms_session *s = &room->session;
	__builtin_memset(s, 0, sizeof(*s));
	s->verdict = walk->word;
	s->rule_hash = walk->hash;
	s->first_ns = bpf_ktime_get_ns();
	s->id = new_id(s->first_ns);
	s->last_jiffies = now;
	s->flags = flags;
	if ((p->src_is_a != 0) == (server_is_source != 0))
		s->flags |= MS_SESSION_SERVER_IS_A;
	s->vlan[0] = p->vlan[0];
	s->vlan[1] = p->vlan[1];
	if (p->l4 == MS_IP_TCP) {
		if (flags & MS_SESSION_MIDSTREAM) {
			tcp_adopt(s, p, server_is_source ? MS_TO_CLIENT : MS_TO_SERVER);
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
	int error = sessions_insert(&p->key, s);
	if (!error)
		count(MS_STAT_INSERTS);
	else
		count(MS_STAT_INSERT_FAILURES);
	/* -EEXIST: another CPU was first, its entry is as good. */
	return sessions_lookup(&p->key);
}

#endif

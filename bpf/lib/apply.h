/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Commands of the daemons, as the packet data of a BPF_PROG_TEST_RUN. A session
 * is only ever written by BPF programs, so no counter update is lost, and a
 * command that was meant for another session or an older policy is refused.
 */
#ifndef MS_APPLY_H
#define MS_APPLY_H

MS_INLINE void apply_verdict(struct ms_command *c, struct ms_session *s, __u64 now)
{
	__u64 word = c->verdict;

	if (c->protocol)
		s->protocol = c->protocol;
	if (c->first_protocol)
		s->first_protocol = c->first_protocol;
	s->flags |= MS_SESSION_LOGGED;
	s->provisional = 0;
	if (word_verdict(word) == MS_VERDICT_ALLOW) {
		count(MS_STAT_OFFLOADED);
		/* Frames are still on their way through the tap: hand over in order. */
		if (s->held[0] != s->released[0] || s->held[1] != s->released[1]) {
			s->stamp = now;
			s->told &= ~(MS_STRAIGHT_BIT | MS_STRAIGHT_BIT << 1);
			word = word_with_verdict(word, MS_VERDICT_DRAIN);
		}
	}
	s->verdict = word;
}

/* Both ends are reset by who asks for it, with the numbers that stand here from now on; later segments
 * are answered with resets. A record is always left: an operator did this. */
MS_INLINE void apply_close(struct ms_key *key, struct ms_session *s)
{
	__u64 word = word_with_reason(word_with_verdict(s->verdict, MS_VERDICT_DENY), MS_REASON_CLOSED);

	word = (word & ~(1ULL << MS_WORD_MONITOR)) | (1ULL << MS_WORD_RESET);
	if (key->l4 == MS_IP_TCP) {
		s->verdict = word;
		s->told |= 1;
		s->tcp[0] = MS_TCP_CLOSED;
		s->tcp[1] = MS_TCP_CLOSED;
		s->timeout = MS_TIMEOUT_CLOSING;
	}
	s->flags |= MS_SESSION_LOGGED;
	emit_end(key, s, MS_END_REMOVED);
	if (key->l4 != MS_IP_TCP)
		remove_session(key, s);
}

MS_INLINE void apply_one(struct ms_command *c, struct ms_config *cfg, __u64 now)
{
	struct ms_key key = c->key;
	struct ms_session *s;

	c->status = MS_STATUS_OK;
	if (c->op == MS_OP_HEARTBEAT) {
		__u64 *beat = heartbeat_get();
		if (beat)
			*beat = now;
		c->last_jiffies = now;
		return;
	}
	if (c->op == MS_OP_NOW) {
		c->ns = bpf_ktime_get_ns();
		c->last_jiffies = now;
		c->revision = cfg->revision;
		return;
	}
	s = sessions_lookup(&key);
	if (!s) {
		c->status = MS_STATUS_NO_SESSION;
		return;
	}
	if (s->id != c->id) {
		c->status = MS_STATUS_STALE_ID;
		return;
	}
	if (closed(s) && (c->op == MS_OP_VERDICT || c->op == MS_OP_CLOSE)) {
		c->status = MS_STATUS_NO_SESSION;
		return;
	}
	if (c->op == MS_OP_VERDICT) {
		if (c->revision != cfg->revision || c->revision != word_revision(s->verdict)) {
			c->revision = cfg->revision;
			c->status = MS_STATUS_STALE_REVISION;
			return;
		}
		apply_verdict(c, s, now);
	} else if (c->op == MS_OP_DISCARD) {
		__sync_fetch_and_add(&s->released[c->direction & 1], c->count);
	} else if (c->op == MS_OP_CLOSE) {
		apply_close(&key, s);
	} else if (c->op == MS_OP_DELETE) {
		if (s->last_jiffies != c->last_jiffies) {
			c->status = MS_STATUS_USED;
			return;
		}
		end_session(&key, s, c->end);
	} else {
		c->status = MS_STATUS_BAD_OP;
	}
}

/* The number of none. */
#define MS_NO_INTERFACE 0xffffffff

/* JUDGE stamps the session with the walk's result; WALK only answers. `key` holds, for WALK,
 * source in `a` and destination in `b`. */
MS_INLINE void apply_walk(struct __sk_buff *skb, struct ms_command *c, struct ms_config *cfg,
			  struct ms_walk_state *state)
{
	struct ms_walk walk;
	struct ms_key key = c->key;
	struct ms_session *s = 0;
	int server_is_a = 0;

	c->status = MS_STATUS_OK;
	if (c->op == MS_OP_JUDGE) {
		s = sessions_lookup(&key);
		if (!s || closed(s)) {
			c->status = MS_STATUS_NO_SESSION;
			return;
		}
		if (s->id != c->id) {
			c->status = MS_STATUS_STALE_ID;
			return;
		}
		server_is_a = s->flags & MS_SESSION_SERVER_IS_A;
		policy_ask_session(state, cfg, s);
		/* As the packets of it that were held. */
		int dir = s->ifindex[MS_TO_SERVER] ? MS_TO_SERVER : MS_TO_CLIENT, out = s->told & (2 << dir);
		__u32 ifindex = s->ifindex[dir];
		state->reversed = dir;
		state->came_in = !out ? ifindex : s->flags & MS_SESSION_HOST ? 0 : MS_NO_INTERFACE;
		state->goes_out = out ? ifindex : 0;
	} else if (c->op != MS_OP_WALK) {
		c->status = MS_STATUS_BAD_OP;
		return;
	} else {
		state->vlan = c->vlan & 0xfff;
		state->zones[MS_TO_SERVER] = c->zones[MS_TO_SERVER] ?: MS_ZONE_NONE;
		state->zones[MS_TO_CLIENT] = c->zones[MS_TO_CLIENT] ?: MS_ZONE_NONE;
	}
	policy_ask(state, server_is_a ? key.addr_b : key.addr_a, server_is_a ? key.addr_a : key.addr_b, key.l4,
		   ms_be16(server_is_a ? key.port_a : key.port_b), c->possible ? c->possible : all_protocols(key.l4));
	if (policy_walk(skb, cfg, state, &walk)) {
		c->status = MS_STATUS_NO_POLICY;
		return;
	}
	c->verdict = walk.word;
	c->revision = cfg->revision;
	c->rule_flags = walk.flags;
	if (c->op == MS_OP_WALK)
		return;
	/* Looked up anew: the walk is verified once, not once for each outcome of the first time. */
	s = sessions_lookup(&key);
	if (!s || s->id != c->id)
		return;
	/* The flow stays with the inspector until it says otherwise; only rule and revision are stamped. */
	__u64 keep = (1ULL << MS_WORD_RULE) - 1, word = (s->verdict & keep) | (walk.word & ~keep);
	if (word_revision(s->verdict) != word_revision(word))
		hits_divide(s, word);
	s->verdict = word;
	s->rule_hash = walk.hash;
	s->zones[MS_TO_SERVER] = state->zones[MS_TO_SERVER];
	s->zones[MS_TO_CLIENT] = state->zones[MS_TO_CLIENT];
	/* Inspected flows always leave records. */
	s->flags |= MS_SESSION_LOGGED;
	if (c->possible && !(c->possible & (c->possible - 1))) {
		s->protocol = lowest_bit(c->possible);
		if (!s->first_protocol)
			s->first_protocol = s->protocol;
	}
}

#endif

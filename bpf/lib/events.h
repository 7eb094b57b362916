/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Records for userspace: a verdict and an end per session, never one per packet. */
#ifndef MS_EVENTS_H
#define MS_EVENTS_H

MS_INLINE void emit(struct ms_key *key, struct ms_session *s, __u8 kind, __u8 end)
{
	struct ms_event *event = events_reserve();
	if (!event) {
		count(MS_STAT_EVENTS_LOST);
		return;
	}
	event->ns = bpf_ktime_get_ns();
	event->key = *key;
	event->session = *s;
	event->kind = kind;
	event->end = end;
	event->reason = word_reason(s->verdict);
	__builtin_memset(event->pad, 0, sizeof(event->pad));
	events_submit(event);
}

/* A verdict the kernel reached, and whose rule asks for a record. */
MS_INLINE int wants_record(__u64 word, __u32 rule_flags)
{
	__u32 verdict = word_verdict(word);

	return ((rule_flags & MS_RULE_LOG_ALL) && (verdict == MS_VERDICT_ALLOW || verdict == MS_VERDICT_DENY)) ||
	       ((rule_flags & MS_RULE_LOG_DENY) && verdict == MS_VERDICT_DENY);
}

MS_INLINE void emit_verdict(struct ms_key *key, struct ms_session *s, __u32 rule_flags)
{
	if (!wants_record(s->verdict, rule_flags))
		return;
	s->flags |= MS_SESSION_LOGGED;
	emit(key, s, MS_EVENT_VERDICT, 0);
}

MS_INLINE void emit_end(struct ms_key *key, struct ms_session *s, __u8 end)
{
	if (!(s->flags & MS_SESSION_LOGGED))
		return;
	s->flags &= ~MS_SESSION_LOGGED;
	emit(key, s, MS_EVENT_END, end);
}

#endif

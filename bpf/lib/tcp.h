/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a segment does to its connection: handshake, established, half-close,
 * close, reset (RFC 9293 3.3.2), for each endpoint as far as the middle can see.
 */
#ifndef MS_TCP_H
#define MS_TCP_H

/* A reset counts when it lies this far at most behind what its receiver
 * acknowledged: the largest window without scaling, times 16. */
#define MS_RESET_WINDOW (1 << 20)

/* A SYN that is no retransmission of the session's own opening begins a new connection. */
MS_INLINE int opens_anew(const struct ms_session *s, const struct ms_packet *p, int dir)
{
	if ((p->tcp_flags & (MS_TCP_SYN_BIT | MS_TCP_ACK_BIT)) != MS_TCP_SYN_BIT)
		return 0;
	if (dir == MS_TO_SERVER)
		return !(s->tcp[MS_TO_SERVER] != MS_TCP_NONE && s->tcp[MS_TO_SERVER] <= MS_TCP_ESTABLISHED &&
			 s->isn[MS_TO_SERVER] == p->seq);
	/* Simultaneous open (RFC 9293 3.5): the second SYN belongs to the session, unless the first was
	 * refused: else any host could close another's way to itself. */
	return !(word_verdict(s->verdict) != MS_VERDICT_DENY && s->tcp[MS_TO_SERVER] == MS_TCP_SYN_SENT &&
		 (s->tcp[MS_TO_CLIENT] == MS_TCP_NONE || s->isn[MS_TO_CLIENT] == p->seq));
}

MS_INLINE __u8 tcp_timeout(const struct ms_session *s)
{
	__u8 a = s->tcp[0], b = s->tcp[1];
	if (a == MS_TCP_CLOSED && b == MS_TCP_CLOSED)
		return MS_TIMEOUT_TIME_WAIT;
	if (a >= MS_TCP_FIN_SENT || b >= MS_TCP_FIN_SENT)
		return a == MS_TCP_ESTABLISHED || b == MS_TCP_ESTABLISHED ? MS_TIMEOUT_ESTABLISHED : MS_TIMEOUT_CLOSING;
	if (a == MS_TCP_ESTABLISHED && b == MS_TCP_ESTABLISHED)
		return MS_TIMEOUT_ESTABLISHED;
	return MS_TIMEOUT_SYN;
}

/* Answers enum ms_end when the segment ended the connection, else 0. */
MS_INLINE int tcp_step(struct ms_session *s, const struct ms_packet *p, int dir)
{
	__u8 flags = p->tcp_flags;
	int other = dir ^ 1;
	__u8 mine = s->tcp[dir & 1], theirs = s->tcp[other & 1];

	if (flags & MS_TCP_ACK_BIT) {
		if ((__s32)(p->ack - s->ack[dir & 1]) > 0 || mine < MS_TCP_ESTABLISHED || !s->ack[dir & 1])
			s->ack[dir & 1] = p->ack;
	}
	/* The common case: data and acknowledgments of an open connection. */
	if (!(flags & (MS_TCP_SYN_BIT | MS_TCP_FIN_BIT | MS_TCP_RST_BIT)) && mine == MS_TCP_ESTABLISHED &&
	    theirs == MS_TCP_ESTABLISHED)
		return 0;

	int end = 0;
	if (flags & MS_TCP_RST_BIT) {
		/* RFC 9293 3.10.7.3: while opening, a reset must acknowledge the SYN. */
		int valid = theirs == MS_TCP_SYN_SENT && mine == MS_TCP_NONE
				    ? (flags & MS_TCP_ACK_BIT) && p->ack == s->isn[other & 1] + 1
				    : p->seq - s->ack[other & 1] < MS_RESET_WINDOW ||
					      (mine == MS_TCP_SYN_SENT && p->seq == s->isn[dir & 1] + 1);
		if (!valid) {
			count(MS_STAT_BAD_TCP);
			return 0;
		}
		mine = theirs = MS_TCP_RESET;
		end = MS_END_RESET;
	} else {
		if (flags & MS_TCP_SYN_BIT) {
			if (mine == MS_TCP_NONE) {
				mine = MS_TCP_SYN_SENT;
				s->isn[dir & 1] = p->seq;
			} else if (s->isn[dir & 1] != p->seq) {
				count(MS_STAT_BAD_TCP);
				return 0;
			}
		}
		if (flags & MS_TCP_ACK_BIT) {
			if (theirs == MS_TCP_SYN_SENT && p->ack - s->isn[other & 1] - 1 < 0x40000000)
				theirs = MS_TCP_ESTABLISHED;
			if (mine == MS_TCP_FIN_SENT && theirs == MS_TCP_FIN_SENT && !(flags & MS_TCP_FIN_BIT)) {
				mine = theirs = MS_TCP_CLOSED;
				end = MS_END_CLOSED;
			}
		}
		if ((flags & MS_TCP_FIN_BIT) && (mine == MS_TCP_ESTABLISHED || mine == MS_TCP_SYN_SENT))
			mine = MS_TCP_FIN_SENT;
	}
	s->tcp[dir & 1] = mine;
	s->tcp[other & 1] = theirs;
	s->timeout = tcp_timeout(s);
	return end;
}

#endif

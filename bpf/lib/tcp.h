/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * TCP as the middle can know it (RFC 9293): the state of each endpoint, and the windows
 * that each opened for the other.
 *
 * An endpoint's state follows from what it sent: it has taken in its peer's SYN or FIN when
 * it acknowledges them, not when they passed here, for they may be lost behind. Only an
 * acknowledgment of its own SYN or FIN moves it by what it gets; lost, it is sent again, and
 * a segment of the state before stays legal until then.
 *
 * A segment that is illegal or outside the window changes nothing, and tcp_step() or
 * tcp_outside() answers the reason, MS_REASON_TCP_*.
 */
#ifndef MS_TCP_H
#define MS_TCP_H

/* What an endpoint does, or gets, that moves it. */
enum ms_tcp_event {
	MS_TCP_SENDS = 0,     /* nothing but data and acknowledgments */
	MS_TCP_SENDS_SYN = 1, /* without an acknowledgment */
	MS_TCP_SENDS_SYN_ACK = 2,
	MS_TCP_SENDS_FIN = 3,
	MS_TCP_ACKS_SYN = 4, /* its acknowledgment covers the peer's SYN */
	MS_TCP_ACKS_FIN = 5,
	MS_TCP_SYN_ACKED = 6, /* the peer's covers its own */
	MS_TCP_FIN_ACKED = 7,
};

/*
 * The table of transitions, RFC 9293 3.3.2 figure 5: a row for each event, in it the next state
 * for each present one, four bits each. XXX is illegal. Under bcc there are no constant tables:
 * a row is a number, and clang makes of it one shift.
 */
#define MS_TCP_ROW(clo, lis, snt, rcv, est, fw1, fw2, clw, clg, lac, tmw)                                              \
	((__u64)(clo) | (__u64)(lis) << 4 | (__u64)(snt) << 8 | (__u64)(rcv) << 12 | (__u64)(est) << 16 |              \
	 (__u64)(fw1) << 20 | (__u64)(fw2) << 24 | (__u64)(clw) << 28 | (__u64)(clg) << 32 | (__u64)(lac) << 36 |      \
	 (__u64)(tmw) << 40)

#define CLO MS_TCP_CLOSED
#define LIS MS_TCP_LISTEN
#define SNT MS_TCP_SYN_SENT
#define RCV MS_TCP_SYN_RECEIVED
#define EST MS_TCP_ESTABLISHED
#define FW1 MS_TCP_FIN_WAIT_1
#define FW2 MS_TCP_FIN_WAIT_2
#define CLW MS_TCP_CLOSE_WAIT
#define CLG MS_TCP_CLOSING
#define LAC MS_TCP_LAST_ACK
#define TMW MS_TCP_TIME_WAIT
#define XXX 15

/* clang-format off */
/*                                       CLO  LIS  SNT  RCV  EST  FW1  FW2  CLW  CLG  LAC  TMW */
#define MS_TCP_ROW_SENDS      MS_TCP_ROW(CLO, XXX, XXX, RCV, EST, FW1, FW2, CLW, CLG, LAC, TMW)
#define MS_TCP_ROW_SYN        MS_TCP_ROW(SNT, SNT, SNT, RCV, EST, FW1, FW2, CLW, CLG, LAC, TMW)
#define MS_TCP_ROW_SYN_ACK    MS_TCP_ROW(XXX, RCV, RCV, RCV, EST, FW1, FW2, CLW, CLG, LAC, TMW)
#define MS_TCP_ROW_FIN        MS_TCP_ROW(CLO, XXX, XXX, FW1, FW1, FW1, FW2, LAC, CLG, LAC, TMW)
#define MS_TCP_ROW_ACKS_SYN   MS_TCP_ROW(CLO, LIS, EST, RCV, EST, FW1, FW2, CLW, CLG, LAC, TMW)
#define MS_TCP_ROW_ACKS_FIN   MS_TCP_ROW(CLO, XXX, XXX, CLW, CLW, CLG, TMW, CLW, CLG, LAC, TMW)
#define MS_TCP_ROW_SYN_ACKED  MS_TCP_ROW(CLO, LIS, SNT, EST, EST, FW1, FW2, CLW, CLG, LAC, TMW)
#define MS_TCP_ROW_FIN_ACKED  MS_TCP_ROW(CLO, XXX, XXX, RCV, EST, FW2, FW2, CLW, TMW, CLO, TMW)
/* clang-format on */

MS_INLINE __u8 tcp_next(__u8 state, int event)
{
	__u64 row = event == MS_TCP_SENDS_SYN	    ? MS_TCP_ROW_SYN
		    : event == MS_TCP_SENDS_SYN_ACK ? MS_TCP_ROW_SYN_ACK
		    : event == MS_TCP_SENDS_FIN	    ? MS_TCP_ROW_FIN
		    : event == MS_TCP_ACKS_SYN	    ? MS_TCP_ROW_ACKS_SYN
		    : event == MS_TCP_ACKS_FIN	    ? MS_TCP_ROW_ACKS_FIN
		    : event == MS_TCP_SYN_ACKED	    ? MS_TCP_ROW_SYN_ACKED
		    : event == MS_TCP_FIN_ACKED	    ? MS_TCP_ROW_FIN_ACKED
						    : MS_TCP_ROW_SENDS;
	return (row >> ((state & 15) * 4)) & 15;
}

#undef CLO
#undef LIS
#undef SNT
#undef RCV
#undef EST
#undef FW1
#undef FW2
#undef CLW
#undef CLG
#undef LAC
#undef TMW

#define MS_TCP_IN(state, set) ((1 << (state)) & (set))
/* Its FIN has passed; CLOSED by a reset, where none did, is asked for apart. */
#define MS_TCP_FINISHED                                                                                                \
	(1 << MS_TCP_FIN_WAIT_1 | 1 << MS_TCP_FIN_WAIT_2 | 1 << MS_TCP_CLOSING | 1 << MS_TCP_LAST_ACK |                \
	 1 << MS_TCP_TIME_WAIT | 1 << MS_TCP_CLOSED)
/* Nothing more is expected of it. */
#define MS_TCP_DONE (1 << MS_TCP_CLOSED | 1 << MS_TCP_TIME_WAIT)
#define MS_TCP_OPENING (1 << MS_TCP_LISTEN | 1 << MS_TCP_SYN_SENT | 1 << MS_TCP_SYN_RECEIVED)
#define MS_TCP_MAY_SEND (1 << MS_TCP_ESTABLISHED | 1 << MS_TCP_CLOSE_WAIT)

/* RFC 7323 2.3: a larger shift counts as this. */
#define MS_TCP_MAX_SCALE 14
/* No window scale option; its lower bits are the shift. */
#define MS_TCP_UNSCALED 0x80
/* How far behind the present a segment may lie at least: late copies are common, and whoever guesses a
 * number within 65,535 of 4,294,967,296 is no better off (RFC 5961 5.2 takes the largest window). */
#define MS_TCP_SLACK 65535

/* The widest window there is. */
#define MS_TCP_MOST (0xffffU << MS_TCP_MAX_SCALE)

/* Options of a segment that opens or closes, into scratch memory. Those behind a malformed one are not there, as for
 * the receivers. */
MS_INLINE void tcp_options(struct __sk_buff *skb, struct ms_scratch *scratch)
{
	const struct ms_packet *p = &scratch->packet;
	struct ms_tcp_options *o = &scratch->options;
	__u8 *room = scratch->bytes;
	__u32 at = p->l4_off + 20, n = p->payload - at, i = 0;

	o->timestamp = 0;
	o->scaled = 0;
	o->scale = 0;
	if (n == 0 || n > 40)
		return;
	n -= 1;
	ms_opaque(n);
	n = (n & 63) + 1;
	/* Behind the header no option begins. */
	__builtin_memset(room, 0, 64);
	if (bpf_skb_load_bytes(skb, at, room, n))
		return;
#pragma nounroll
	for (int turn = 0; turn < 40; turn++) {
		ms_opaque(i);
		i &= 63;
		__u8 kind = room[i];
		__u8 len = room[i + 1];
		if (kind == 0)
			return;
		if (kind == 1) {
			i += 1;
		} else {
			if (len < 2 || i + len > n)
				return;
			if (kind == 3 && len == 3) {
				o->scaled = 1;
				o->scale = room[i + 2] > MS_TCP_MAX_SCALE ? MS_TCP_MAX_SCALE : room[i + 2];
			}
			if (kind == 8 && len == 10)
				o->timestamp = (__u32)room[i + 2] << 24 | (__u32)room[i + 3] << 16 |
					       (__u32)room[i + 4] << 8 | room[i + 5];
			i += len;
		}
		if (i >= n)
			return;
		ms_jump_back();
	}
}

/* Both ends are closed though no FIN was seen of one: a reset. */
MS_INLINE int tcp_was_reset(const struct ms_session *s)
{
	return s->tcp[0] == MS_TCP_CLOSED && s->tcp[1] == MS_TCP_CLOSED;
}

/* A SYN that begins a new connection in place of the session's own. */
MS_INLINE int opens_anew(const struct ms_session *s, const struct ms_packet *p, const struct ms_tcp_options *o, int dir)
{
	int other = dir ^ 1;
	__u8 mine = s->tcp[dir & 1], theirs = s->tcp[other & 1];

	if ((p->tcp_flags & (MS_TCP_SYN_BIT | MS_TCP_ACK_BIT)) != MS_TCP_SYN_BIT)
		return 0;
	/* The first was refused and nobody has a connection: else any host could close another's way to itself. */
	if (word_blocks(s->verdict))
		return !(mine == MS_TCP_SYN_SENT && s->isn[dir & 1] == p->seq);
	if (MS_TCP_IN(mine, MS_TCP_DONE) && MS_TCP_IN(theirs, MS_TCP_DONE)) {
		if (theirs == MS_TCP_CLOSED)
			return 1;
		/* RFC 9293 3.6.1, RFC 6191 2: TIME-WAIT ends early for what can be no old duplicate. */
		return (__s32)(p->seq - s->end[dir & 1]) > 0 ||
		       (mine == MS_TCP_CLOSED && s->stamp && o->timestamp && (__s32)(o->timestamp - s->stamp) > 0);
	}
	/* It gave up its first try, which nobody has answered. */
	return mine == MS_TCP_SYN_SENT && theirs == MS_TCP_LISTEN && s->isn[dir & 1] != p->seq;
}

/* The answer to a SYN that came in the midst of the connection: for the endpoint that gives it
 * there is no connection. Had it one, it would acknowledge that instead (RFC 5961 4.2). */
MS_INLINE int answers_syn(const struct ms_session *s, const struct ms_packet *p, int dir)
{
	return s->syn && (p->tcp_flags & (MS_TCP_SYN_BIT | MS_TCP_ACK_BIT)) == (MS_TCP_SYN_BIT | MS_TCP_ACK_BIT) &&
	       p->ack == s->syn + 1 && p->seq != s->isn[dir & 1];
}

MS_INLINE __u8 tcp_timeout(__u8 a, __u8 b)
{
	if (MS_TCP_IN(a, MS_TCP_OPENING) || MS_TCP_IN(b, MS_TCP_OPENING))
		return MS_TIMEOUT_SYN;
	if (MS_TCP_IN(a, MS_TCP_DONE) && MS_TCP_IN(b, MS_TCP_DONE))
		return a == MS_TCP_CLOSED && b == MS_TCP_CLOSED ? MS_TIMEOUT_CLOSING : MS_TIMEOUT_TIME_WAIT;
	if (MS_TCP_IN(a, MS_TCP_MAY_SEND) || MS_TCP_IN(b, MS_TCP_MAY_SEND))
		return MS_TIMEOUT_ESTABLISHED;
	return MS_TIMEOUT_CLOSING;
}

/* Data and acknowledgments. */
MS_INLINE int tcp_is_plain(const struct ms_packet *p)
{
	return (p->tcp_flags & (MS_TCP_SYN_BIT | MS_TCP_FIN_BIT | MS_TCP_RST_BIT | MS_TCP_ACK_BIT)) == MS_TCP_ACK_BIT;
}

/* Both are ESTABLISHED and no reset is doubted: tcp_outside() and tcp_advance() are all a plain segment needs. */
MS_INLINE int tcp_is_open(const struct ms_session *s)
{
	/* tcp[2], flags and timeout in one load */
	__u32 word = *(const __u32 *)s->tcp;

	return (word & ms_le32(0xff00ffff)) ==
	       ms_le32(MS_TIMEOUT_ESTABLISHED << 24 | MS_TCP_ESTABLISHED << 8 | MS_TCP_ESTABLISHED);
}

/* Largest window that the direction's sender announced. */
MS_INLINE __u32 tcp_slack(const struct ms_session *s, int dir)
{
	__u32 window = (__u32)s->window[dir & 1] << (s->scale[dir & 1] & 15);
	return window > MS_TCP_SLACK ? window : MS_TCP_SLACK;
}

/*
 * RFC 9293 3.10.7.4 and RFC 5961 5.2 with what passed here: the segment begins no further than the window that
 * the other side opened and no earlier than one window behind what it acknowledged; it acknowledges nothing
 * that was not sent, and nothing older than one window. Modulo 2^32 each range is one comparison.
 */
MS_INLINE int tcp_outside(struct ms_session *s, const struct ms_packet *p, int dir)
{
	int other = (dir ^ 1) & 1;
	__u32 edge = s->edge[dir & 1], end = s->end[other];

	if (edge - p->seq > edge - s->ack[other] + tcp_slack(s, other)) {
		/* Behind a byte or a FIN sent into a closed window (RFC 9293 3.8.6.1), acknowledgments go on, even if
		 * that never got here. */
		if (p->payload_len || (p->tcp_flags & MS_TCP_FIN_BIT) || p->seq != edge + 1)
			return MS_REASON_TCP_SEQUENCE;
	}
	if (end - p->ack > end - s->ack[dir & 1] + tcp_slack(s, dir)) {
		/* Of a flow whose beginning was not seen, more may have been sent than passed here. */
		if (!(s->flags & MS_SESSION_MIDSTREAM) || p->ack - end > MS_TCP_MOST)
			return MS_REASON_TCP_ACK;
		s->end[other] = p->ack;
	}
	return 0;
}

/* What the segment sent, acknowledged and opened; `shift` is 0 on a SYN (RFC 7323 2.2). */
MS_INLINE void tcp_advance(struct ms_session *s, const struct ms_packet *p, __u32 end, int dir, __u32 shift)
{
	int other = (dir ^ 1) & 1;
	__u32 edge = p->ack + ((__u32)p->window << (shift & 15));

	if ((__s32)(end - s->end[dir & 1]) > 0)
		s->end[dir & 1] = end;
	if ((__s32)(p->ack - s->ack[dir & 1]) > 0)
		s->ack[dir & 1] = p->ack;
	if ((__s32)(edge - s->edge[other]) > 0)
		s->edge[other] = edge;
	__u16 window = p->window;
	if (window > s->window[dir & 1] && shift == (s->scale[dir & 1] & 15))
		s->window[dir & 1] = window;
}

/*
 * Resets. The receiver takes one whose number is exactly what it expects, answers one elsewhere in its window
 * with a challenge, and ignores all others (RFC 5961 3.2). What it expects lies between what it acknowledged
 * and what was sent: a reset at either end is taken, for these are where stacks put theirs.
 */
MS_INLINE int tcp_reset(struct ms_session *s, const struct ms_packet *p, int dir, int *end)
{
	int other = (dir ^ 1) & 1;
	__u8 mine = s->tcp[dir & 1], theirs = s->tcp[other];

	/* Nothing is left to reset, but who is asked again answers again. */
	if (tcp_was_reset(s))
		return 0;
	int refuses = (p->tcp_flags & MS_TCP_ACK_BIT) && s->end[other] - p->ack < s->end[other] - s->isn[other];
	if (theirs == MS_TCP_SYN_SENT && (refuses || mine == MS_TCP_LISTEN)) {
		/* RFC 9293 3.10.7.3: it must acknowledge the SYN, and then its number does not matter. */
		if (!refuses)
			return MS_REASON_TCP_RESET;
	} else if (theirs == MS_TCP_LISTEN) {
		/* To an acknowledgment of an older connection it answers with that one's number (RFC 9293 3.5.1). */
		if (p->seq != s->end[dir & 1])
			return 0;
	} else {
		__u32 expected = s->ack[other], edge = s->edge[dir & 1];
		if (p->seq != expected && p->seq != s->end[dir & 1]) {
			if (edge - p->seq > edge - expected)
				return MS_REASON_TCP_RESET;
			/* If it was taken after all, nobody speaks any more. */
			s->timeout = MS_TIMEOUT_CLOSING;
			return 0;
		}
	}
	*end = MS_TCP_IN(mine, MS_TCP_DONE) && MS_TCP_IN(theirs, MS_TCP_DONE) ? 0 : MS_END_RESET;
	s->tcp[0] = MS_TCP_CLOSED;
	s->tcp[1] = MS_TCP_CLOSED;
	s->timeout = MS_TIMEOUT_CLOSING;
	return 0;
}

/* The first SYN of an endpoint, or the same one again while nobody has answered: its numbers and options. */
MS_INLINE void tcp_open(struct ms_session *s, const struct ms_packet *p, const struct ms_tcp_options *o, int dir)
{
	int other = (dir ^ 1) & 1;

	s->isn[dir & 1] = p->seq;
	s->end[dir & 1] = p->seq + 1 + p->payload_len;
	s->window[dir & 1] = p->window;
	s->scale[dir & 1] = o->scaled ? o->scale : MS_TCP_UNSCALED;
	/* The other will expect what follows it. */
	s->ack[other] = p->seq + 1;
	s->edge[dir & 1] = s->end[dir & 1];
	if (s->tcp[other] == MS_TCP_LISTEN)
		return;
	/* Both are known: windows are scaled if both asked for it, but never those of a SYN (RFC 7323 2.2, 2.3). */
	s->edge[dir & 1] = p->seq + 1 + s->window[other];
	s->edge[other] = s->isn[other] + 1 + p->window;
	if (s->scale[0] == MS_TCP_UNSCALED || s->scale[1] == MS_TCP_UNSCALED) {
		s->scale[0] = 0;
		s->scale[1] = 0;
	}
	s->window[0] >>= s->scale[0] & 15;
	s->window[1] >>= s->scale[1] & 15;
}

/* A flow whose beginning was not seen: its windows are as wide as can be. */
MS_INLINE void tcp_adopt(struct ms_session *s, const struct ms_packet *p, int dir)
{
	int other = (dir ^ 1) & 1;
	s->tcp[0] = MS_TCP_ESTABLISHED;
	s->tcp[1] = MS_TCP_ESTABLISHED;
	s->scale[0] = MS_TCP_MAX_SCALE;
	s->scale[1] = MS_TCP_MAX_SCALE;
	s->window[0] = 0xffff;
	s->window[1] = 0xffff;
	s->end[dir & 1] = p->seq;
	s->ack[other] = p->seq;
	s->edge[dir & 1] = p->seq + MS_TCP_MOST;
	s->ack[dir & 1] = p->ack;
	s->end[other] = p->ack;
	s->edge[other] = p->ack + MS_TCP_MOST;
	s->timeout = MS_TIMEOUT_ESTABLISHED;
}

/*
 * One segment, in the order of RFC 9293 3.10.7: reset, SYN, sequence number, acknowledgment, FIN. Answers 0 or why
 * it counts for nothing; `*end` is enum ms_end when the segment ended the connection.
 */
MS_INLINE int tcp_step(struct ms_session *s, const struct ms_packet *p, const struct ms_tcp_options *o, int dir,
		       int *end)
{
	__u8 flags = p->tcp_flags;
	int other = (dir ^ 1) & 1;
	__u8 mine = s->tcp[dir & 1], theirs = s->tcp[other];
	__u32 behind = p->seq + p->payload_len + !!(flags & MS_TCP_SYN_BIT) + !!(flags & MS_TCP_FIN_BIT);
	int syn = flags & MS_TCP_SYN_BIT, ack = flags & MS_TCP_ACK_BIT, fin = flags & MS_TCP_FIN_BIT;

	if (flags & MS_TCP_RST_BIT)
		return tcp_reset(s, p, dir, end);
	/* Who has not got the reset goes on for a while: its FIN is its first, and its windows are not followed. */
	if (tcp_was_reset(s))
		return p->payload_len ? MS_REASON_CLOSED : 0;

	if (syn) {
		int first = theirs == MS_TCP_LISTEN ? mine == MS_TCP_CLOSED || mine == MS_TCP_SYN_SENT
						    : mine == MS_TCP_LISTEN;
		if (!first && p->seq != s->isn[dir & 1]) {
			if (!ack)
				s->syn = p->seq;
			return MS_REASON_TCP_SYN;
		}
		mine = tcp_next(mine, ack ? MS_TCP_SENDS_SYN_ACK : MS_TCP_SENDS_SYN);
		if (mine == XXX)
			return MS_REASON_TCP_STATE;
		/* A SYN and ACK must acknowledge the SYN that it answers (RFC 9293 3.10.7.3). */
		if (ack && s->end[other] - p->ack >= s->end[other] - s->isn[other])
			return MS_REASON_TCP_ACK;
		if (first)
			tcp_open(s, p, o, dir);
	} else if (!ack) {
		return MS_REASON_TCP_STATE;
	} else if (mine == MS_TCP_LISTEN) {
		/* Of an older connection it may hold, the opener's SYN brings a bare acknowledgment (RFC 9293 3.5.1). */
		return p->payload_len || fin ? MS_REASON_TCP_STATE : 0;
	} else if (theirs == MS_TCP_LISTEN) {
		return MS_REASON_TCP_STATE;
	}

	if (ack) {
		int reason = tcp_outside(s, p, dir);
		if (reason)
			return reason;
		if ((__s32)(p->ack - s->isn[other]) > 0 || !MS_TCP_IN(theirs, MS_TCP_OPENING)) {
			theirs = tcp_next(theirs, MS_TCP_SYN_ACKED);
			if (!syn)
				mine = tcp_next(mine, MS_TCP_ACKS_SYN);
		}
		if (!syn) {
			mine = tcp_next(mine, MS_TCP_SENDS);
			if (mine == XXX)
				return MS_REASON_TCP_STATE;
		}
		if (MS_TCP_IN(mine, MS_TCP_FINISHED) && (__s32)(behind - s->end[dir & 1]) > 0)
			return MS_REASON_TCP_FIN;
		if (fin && (__s32)(behind - s->end[dir & 1]) < 0)
			return MS_REASON_TCP_FIN;
		if (MS_TCP_IN(theirs, MS_TCP_FINISHED) && p->ack == s->end[other]) {
			theirs = tcp_next(theirs, MS_TCP_FIN_ACKED);
			mine = tcp_next(mine, MS_TCP_ACKS_FIN);
		}
		if (fin) {
			mine = tcp_next(mine, MS_TCP_SENDS_FIN);
			if (o->timestamp && word_verdict(s->verdict) != MS_VERDICT_DRAIN)
				s->stamp = o->timestamp;
		}
		if (mine == XXX || theirs == XXX)
			return MS_REASON_TCP_STATE;
		tcp_advance(s, p, behind, dir, syn ? 0 : s->scale[dir & 1]);
	}
	int was = MS_TCP_IN(s->tcp[0], MS_TCP_DONE) && MS_TCP_IN(s->tcp[1], MS_TCP_DONE);
	if (!was && MS_TCP_IN(mine, MS_TCP_DONE) && MS_TCP_IN(theirs, MS_TCP_DONE))
		*end = MS_END_CLOSED;
	s->tcp[dir & 1] = mine;
	s->tcp[other] = theirs;
	s->timeout = tcp_timeout(mine, theirs);
	return 0;
}

#undef XXX

#endif

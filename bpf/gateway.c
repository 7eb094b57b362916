// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The gateway's programs. One packet's way:
 *
 *   ms_ingress, ms_egress   parse, one session lookup, account, act
 *   ms_judge                no session, an ended one, or an older revision: walk the policy
 *   ms_tcp                  segments that open, close or reset a connection, or come while it opens or closes
 *   ms_identify, ms_decide  first payload of an undecided session: what is it, and the policy again
 *   ms_route, ms_accelerate  next hop of an allowed packet, and past the stack to it
 *   ms_reset                answer a denied TCP segment
 *   ms_tap                  frames that the inspector released
 *   ms_release              released frames to the CPU of their flow
 *   ms_wall                 far end of the tap: nothing enters the host there
 *   ms_apply, ms_walk       commands of the daemons (BPF_PROG_TEST_RUN)
 */
#ifdef MS_PLAIN_CLANG
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define MS_PROGRAM(name) SEC("tc/" #name) int name
#else
#define MS_PROGRAM(name) int name
#endif
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "include/abi.h"
#include "lib/base.h"
#include "lib/martian.h"
#include "lib/options.h"
#include "lib/checksum.h"
#include "lib/packet.h"
#include "lib/maps.h"
#include "lib/stats.h"
#include "lib/index.h"
#include "lib/route.h"
#include "lib/zones.h"
#include "lib/policy.h"
#include "lib/hits.h"
#include "lib/events.h"
#include "lib/tcp.h"
#include "lib/session.h"
#include "lib/tail.h"
#include "lib/accelerate.h"
#include "lib/verdict.h"
#include "lib/predict.h"
#include "lib/related.h"
#include "lib/fragments.h"
#include "lib/judge.h"
#include "lib/identify.h"
#include "lib/reset.h"
#include "lib/apply.h"

#define MS_PULL_BYTES 256

/* A frame the inspector let go: it was accounted when it was held. */
MS_INLINE int released(struct __sk_buff *skb, struct ms_packet *p, struct ms_session *s, int dir, int hook)
{
	__u64 word = s->verdict;

	__sync_fetch_and_add(&s->released[dir & 1], 1);
	count_packets(p, MS_STAT_RELEASED);
	if (word_verdict(word) == MS_VERDICT_DENY)
		return deny(skb, p, word, hook);
	return MS_PASS;
}

MS_INLINE int packet_in(struct __sk_buff *skb, int hook)
{
	struct ms_packet p;
	struct ms_config *cfg = config_get();
	__u64 now = bpf_jiffies64();
	int reason;

	if (!cfg)
		return MS_DROP;
	/* Seen only because the port is promiscuous: the stack drops it. */
	if (hook == MS_INGRESS && skb->pkt_type == 3)
		return MS_PASS;

	int judged = (skb->mark & cfg->mark_mask) == cfg->mark_judged;
	if (judged)
		skb->mark &= ~cfg->mark_mask;
	else if ((reason = predicted(skb, cfg, hook, now)) != MS_LONG_WAY)
		return reason;

	reason = parse(skb, &p);
	if (reason) {
		/* Headers outside the linear part: pull them in, and begin anew. */
		__u32 len = skb->len, linear = skb->data_end - skb->data;
		if (reason == MS_REASON_TRUNCATED && linear < len && linear < MS_PULL_BYTES) {
			bpf_skb_pull_data(skb, len < MS_PULL_BYTES ? len : MS_PULL_BYTES);
			if (judged)
				skb->mark |= cfg->mark_judged;
			return tail(skb, &p, hook == MS_INGRESS ? MS_PROG_INGRESS : MS_PROG_EGRESS, hook, 0);
		}
		if (reason == MS_REASON_NOT_IP && passes_ethertype(cfg, p.ethertype)) {
			count(MS_STAT_ETHERTYPE);
			return MS_PASS;
		}
		return drop(reason, cfg->monitor);
	}
	if (p.kind == MS_KIND_NEIGHBOUR || (p.kind == MS_KIND_NEIGHBOUR_UNICAST && hook == MS_EGRESS)) {
		count(MS_STAT_NEIGHBOUR);
		return MS_PASS;
	}
	struct ms_counters *counters = stats_get();
	if (counters) {
		counters->stats[MS_STAT_PACKETS] += p.segments;
		counters->stats[MS_STAT_BYTES] += p.ip_len;
	}
	if (p.kind == MS_KIND_FRAGMENT)
		return fragment_later(&p, cfg, now);
	if (p.kind == MS_KIND_ICMP_ERROR)
		return icmp_error(skb, &p, cfg, hook, now);
	if (p.kind == MS_KIND_NEIGHBOUR_UNICAST)
		return tail(skb, &p, MS_PROG_JUDGE, hook, 0);

	struct ms_session *s = sessions_lookup(&p.key);
	if (!s) {
		/* It was judged once and its session is gone since: nobody vouches for it. */
		if (judged)
			return drop(MS_REASON_TAP, 0);
		return tail(skb, &p, MS_PROG_JUDGE, hook, MS_NEW);
	}
	int dir = direction_of(s, &p);
	if (judged && s->held[dir & 1] != s->released[dir & 1])
		return released(skb, &p, s, dir, hook);
	if (expired(s, cfg, now))
		return tail(skb, &p, MS_PROG_JUDGE, hook, 0);
	/* A SYN may mean another connection, before anything is judged for this one. */
	if (p.l4 == MS_IP_TCP && (p.tcp_flags & MS_TCP_SYN_BIT))
		return tail(skb, &p, MS_PROG_TCP, hook, 0);
	if (word_revision(s->verdict) != cfg->revision)
		return tail(skb, &p, MS_PROG_JUDGE, hook, 0);
	if (p.l4 == MS_IP_TCP && !word_blocks(s->verdict)) {
		if (!tcp_is_plain(&p) || !tcp_is_open(s))
			return tail(skb, &p, MS_PROG_TCP, hook, 0);
		reason = tcp_outside(s, &p, dir);
		if (reason)
			return stray(skb, &p, s, cfg, reason);
		tcp_advance(s, &p, p.seq + p.payload_len, dir, s->scale[dir & 1]);
	}
	if (p.first_fragment && (reason = fragment_first(&p, s, cfg, now)))
		return drop(reason, cfg->monitor);
	account(s, &p, dir, now);
	return act(skb, &p, s, cfg, dir, hook, now);
}

/* Forwarded packets were judged where they came in. */
MS_INLINE int judged_at_ingress(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ingress_ifindex;
	struct ms_config *cfg = config_get();

	return ifindex && cfg && is_managed(cfg, ifindex);
}

MS_PROGRAM(ms_ingress)(struct __sk_buff *skb)
{
	return packet_in(skb, MS_INGRESS);
}

MS_PROGRAM(ms_egress)(struct __sk_buff *skb)
{
	if (judged_at_ingress(skb))
		return MS_PASS;
	return packet_in(skb, MS_EGRESS);
}

MS_PROGRAM(ms_judge)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);
	__u64 now = bpf_jiffies64();

	if (!cfg || !room)
		return MS_DROP;
	struct ms_packet *p = &room->packet;
	int monitor = cfg->monitor;
	int reason;
	if (p->kind == MS_KIND_NEIGHBOUR_UNICAST)
		return to_host(skb, p) ? MS_PASS : drop(MS_REASON_NEIGHBOUR, monitor);
	/* Of sessions that there are, nobody needs to ask this again. */
	reason = implausible(p->version, packet_src(p), packet_dst(p));
	if (!reason && p->l4 == MS_IP_TCP && (!p->sport || !p->dport))
		reason = MS_REASON_PORT_ZERO;
	if (reason)
		return drop(reason, monitor);
	/* Before anything is known: the loop in it multiplies the paths of the verifier. */
	if (p->l4 == MS_IP_TCP && (p->tcp_flags & MS_TCP_SYN_BIT)) {
		reason = tcp_options(skb, room);
		if (reason)
			return drop(reason, monitor);
	}

	struct ms_session *s = skb->cb[1] ? 0 : sessions_lookup(&p->key);
	__u32 possible = all_protocols(p->l4);
	int reversed = skb->cb[1] == MS_REVERSED;
	if (s) {
		if (expired(s, cfg, now)) {
			end_session(&p->key, s, MS_END_TIMEOUT);
			s = 0;
		} else {
			reversed = direction_of(s, p) == MS_TO_CLIENT;
			/* What the inspector follows may still turn into something else. */
			if (s->protocol && word_verdict(s->verdict) != MS_VERDICT_INSPECT)
				possible = 1 << (s->protocol & 31);
		}
	}
	/* Queries that passed a full table left no session. */
	if (!s && p->icmp_reply && cfg->pressure != MS_PRESSURE_FULL) {
		icmp_unasked(p);
		return tail(skb, p, MS_PROG_JUDGE, skb->cb[0], 0);
	}
	return ask(skb, room, cfg, s, reversed, possible, MS_PROG_SETTLE);
}

/* Walks the policy with what was asked; `answer` goes on with `judged`. A program of its own, so that the walk's loops
 * are verified once. */
MS_PROGRAM(ms_policy)(struct __sk_buff *skb)
{
	struct ms_walk walk = {};
	struct ms_config *cfg = config_get();
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);

	if (!cfg || !room)
		return MS_DROP;
	room->refused = policy_walk(skb, cfg, &room->walk, &walk);
	room->judged = walk;
	progs_call(skb, room->answer);
	return drop(MS_REASON_NO_POLICY, 0);
}

MS_PROGRAM(ms_settle)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);
	__u64 now = bpf_jiffies64();
	int hook = skb->cb[0] ? MS_EGRESS : MS_INGRESS;
	__u32 flags = 0;

	if (!cfg || !room)
		return MS_DROP;
	struct ms_packet *p = &room->packet;
	struct ms_walk walk = room->judged;
	int monitor = cfg->monitor, error = room->refused, reversed = room->walk.reversed, reason;
	struct ms_session *s = skb->cb[1] ? 0 : sessions_lookup(&p->key);

	/* Of two packets at once the other may have been first. */
	if (s && word_revision(s->verdict) != cfg->revision) {
		if (error)
			return drop(error, monitor);
		rejudge(p, s, cfg, &room->walk, &walk);
		if (p->l4 == MS_IP_TCP)
			return tail(skb, p, MS_PROG_TCP, hook, 0);
	}
	if (!s) {
		/* A full table passes what is allowed without a session: then any packet may be an answer. */
		int tcp = p->l4 == MS_IP_TCP;
		int asks = p->icmp && !p->icmp_reply;
		int opens = tcp ? (p->tcp_flags & (MS_TCP_SYN_BIT | MS_TCP_ACK_BIT)) == MS_TCP_SYN_BIT
				: asks || cfg->pressure != MS_PRESSURE_FULL;
		if (tcp && !opens)
			flags |= MS_SESSION_MIDSTREAM;
		/* The first packet seen may be the server's: would the client be allowed? */
		if (!opens && !error && skb->cb[1] != MS_STRAIGHT && word_verdict(walk.word) == MS_VERDICT_DENY &&
		    (!tcp || cfg->exceptions[MS_EXCEPTION_MIDSTREAM] != MS_ACTION_DENY))
			return tail(skb, p, MS_PROG_JUDGE, hook, reversed ? MS_STRAIGHT : MS_REVERSED);
		reason = judge_first(skb, p, cfg, hook, error, &walk, &flags);
		if (reason)
			return drop(reason, monitor);
		/* Out to memory and back: what follows is verified once, not once for each way here. */
		*(volatile struct ms_walk *)&room->judged = walk;
		walk = *(volatile struct ms_walk *)&room->judged;
		int allow = word_verdict(walk.word) == MS_VERDICT_ALLOW;
		int denied = word_verdict(walk.word) == MS_VERDICT_DENY;
		/* What a rule denies is not a loss of the full table. */
		__u32 full = denied ? word_reason(walk.word) : MS_REASON_TABLE_FULL;
		/* A stray reset begins nothing. */
		int stray = p->l4 == MS_IP_TCP && (p->tcp_flags & MS_TCP_RST_BIT);
		/* DNS is told by its first datagram; without it nobody finds anything. */
		int admitted = allow || (p->l4 == MS_IP_UDP && word_verdict(walk.word) == MS_VERDICT_UNDECIDED);
		if (stray || (cfg->pressure >= MS_PRESSURE_HIGH && !admitted) || cfg->pressure == MS_PRESSURE_FULL) {
			if (allow && p->first_fragment && (reason = fragment_first(p, 0, cfg, now)))
				return drop(reason, monitor);
			hits_packet(p, walk.word, flags);
			if (allow)
				return MS_PASS;
			return drop(stray ? word_reason(walk.word) : full, (walk.word >> MS_WORD_MONITOR) & 1);
		}
		int server_is_source = reversed && allow;
		compose(room, p, &walk, flags, server_is_source, now);
		/* Nothing of the entry will be asked again. */
		int settled = (opens || !tcp) && !p->first_fragment &&
			      (allow || denied || (word_verdict(walk.word) == MS_VERDICT_UNDECIDED && !p->payload_len));
		int dir = server_is_source ? MS_TO_CLIENT : MS_TO_SERVER;
		if (settled) {
			room->session.packets[dir & 1] = p->segments;
			room->session.bytes[dir & 1] = p->ip_len;
		}
		int failed = sessions_insert(&p->key, &room->session);
		count(failed ? MS_STAT_INSERT_FAILURES : MS_STAT_INSERTS);
		if (!failed && (room->session.flags & MS_SESSION_LOGGED))
			emit(&p->key, &room->session, MS_EVENT_VERDICT, 0);
		if (!failed && settled) {
			if (denied)
				return deny(skb, p, walk.word, hook);
			count_packets(p, MS_STAT_FAST);
			return allow ? forward(skb, p, &room->session, cfg, dir, hook, now) : MS_PASS;
		}
		/* -EEXIST: another CPU was first, its entry is as good. */
		s = sessions_lookup(&p->key);
		if (!s) {
			hits_packet(p, walk.word, flags);
			return allow ? MS_PASS : drop(full, (walk.word >> MS_WORD_MONITOR) & 1);
		}
		if (tcp && !opens)
			return tail(skb, p, MS_PROG_TCP, hook, 0);
	}
	int dir = direction_of(s, p);
	if (p->first_fragment && (reason = fragment_first(p, s, cfg, now)))
		return drop(reason, monitor);
	account(s, p, dir, now);
	return act(skb, p, s, cfg, dir, hook, now);
}

MS_PROGRAM(ms_tcp)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);
	__u64 now = bpf_jiffies64();
	int hook = skb->cb[0] ? MS_EGRESS : MS_INGRESS;
	int end = 0;

	if (!cfg || !room)
		return MS_DROP;
	struct ms_packet *p = &room->packet;
	int reason = 0;
	if (p->tcp_flags & (MS_TCP_SYN_BIT | MS_TCP_FIN_BIT))
		reason = tcp_options(skb, room);
	if (reason && (p->tcp_flags & MS_TCP_SYN_BIT))
		return drop(reason, cfg->monitor);
	struct ms_session *s = sessions_lookup(&p->key);
	if (!s)
		return drop(MS_REASON_CLOSED, 0);
	int dir = direction_of(s, p);

	int anew = opens_anew(s, p, &room->options, dir);
	/* Nobody judged the SYN that it answers: it will be judged when it is sent again. */
	if (anew || answers_syn(s, p, dir)) {
		end_session(&p->key, s, MS_END_REPLACED);
		return anew ? tail(skb, p, MS_PROG_JUDGE, hook, 0) : drop(MS_REASON_CLOSED, 0);
	}
	if (word_revision(s->verdict) != cfg->revision)
		return tail(skb, p, MS_PROG_JUDGE, hook, 0);
	reason = p->first_fragment ? fragment_first(p, s, cfg, now) : 0;
	if (reason)
		return drop(reason, cfg->monitor);
	/* What comes behind a reset keeps nothing alive. */
	__u64 used = tcp_was_reset(s) ? s->last_jiffies : now;
	reason = tcp_step(s, p, &room->options, dir, &end);
	if (reason && !word_blocks(s->verdict))
		return stray(skb, p, s, cfg, reason);
	account(s, p, dir, used);
	if (end)
		emit_end(&p->key, s, end);
	return act(skb, p, s, cfg, dir, hook, now);
}

MS_PROGRAM(ms_identify)(struct __sk_buff *skb)
{
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);

	if (!room)
		return MS_DROP;
	struct ms_packet *p = &room->packet;
	struct ms_session *s = sessions_lookup(&p->key);
	if (!s)
		return drop(MS_REASON_CLOSED, 0);
	int dir = direction_of(s, p);

	room->matches = 0;
	room->open = 0;
	/* Only what starts the stream, is in order and whole can be told here. */
	int in_order = p->l4 != MS_IP_TCP || p->seq == s->isn[dir & 1] + 1;
	if (in_order && !p->first_fragment && !(p->tcp_flags & MS_TCP_SYN_BIT)) {
		room->n = load_payload(skb, p, room->bytes);
		if (room->n)
			identify(room, p->payload_len, p->l4, dir);
	}
	progs_call(skb, MS_PROG_DECIDE);
	return drop(MS_REASON_NO_POLICY, 0);
}

MS_PROGRAM(ms_decide)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);
	__u64 now = bpf_jiffies64();
	int hook = skb->cb[0] ? MS_EGRESS : MS_INGRESS;

	if (!cfg || !room)
		return MS_DROP;
	struct ms_packet *p = &room->packet;
	struct ms_session *s = sessions_lookup(&p->key);
	if (!s)
		return drop(MS_REASON_CLOSED, 0);
	int dir = direction_of(s, p);
	int reversed = dir == MS_TO_CLIENT;
	__u32 protocol = identified(room);

	if (protocol != MS_PROTOCOL_NONE) {
		room->protocol = protocol;
		return ask(skb, room, cfg, s, reversed, 1 << (protocol & 31), MS_PROG_DECIDED);
	}
	return begin_to_inspect(skb, p, s, cfg, s->verdict, dir, hook, now);
}

MS_PROGRAM(ms_decided)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);
	__u64 now = bpf_jiffies64();
	int hook = skb->cb[0] ? MS_EGRESS : MS_INGRESS;

	if (!cfg || !room)
		return MS_DROP;
	struct ms_packet *p = &room->packet;
	struct ms_session *s = sessions_lookup(&p->key);
	if (!s)
		return drop(MS_REASON_CLOSED, 0);
	struct ms_walk walk = room->judged;
	int dir = direction_of(s, p);
	__u32 protocol = room->protocol;

	if (room->refused)
		return begin_to_inspect(skb, p, s, cfg, s->verdict, dir, hook, now);
	count(MS_STAT_IDENTIFIED);
	s->protocol = protocol;
	s->first_protocol = protocol;
	s->rule_hash = walk.hash;
	s->verdict = walk.word;
	emit_verdict(&p->key, s, walk.flags);
	if (word_verdict(walk.word) != MS_VERDICT_ALLOW)
		return act(skb, p, s, cfg, dir, hook, now);
	/* Behind act(), to which these very bytes would look like others in their place. */
	if (p->l4 == MS_IP_TCP) {
		s->ident_end = p->seq + p->payload_len;
		s->provisional = 1 + dir;
	}
	count_packets(p, MS_STAT_FAST);
	return MS_PASS;
}

MS_PROGRAM(ms_route)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);

	if (!cfg || !room)
		return MS_PASS;
	struct ms_packet *p = &room->packet;
	struct ms_session *s = sessions_lookup(&p->key);
	if (!s)
		return MS_PASS;
	return accelerate(skb, p, route(skb, p, s, cfg, direction_of(s, p)));
}

MS_PROGRAM(ms_accelerate)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();

	return cfg ? redirect_to_hop(skb, cfg) : MS_PASS;
}

MS_PROGRAM(ms_reset)(struct __sk_buff *skb)
{
	struct ms_scratch *room = scratch_get(MS_SCRATCH_PACKET);

	if (!room)
		return MS_DROP;
	struct ms_packet *p = &room->packet;
	if (p->kind != MS_KIND_SESSION || p->l4 != MS_IP_TCP)
		return MS_DROP;
	struct ms_session *s = sessions_lookup(&p->key);
	return reset_both(skb, p, s, s ? direction_of(s, p) : MS_TO_SERVER);
}

MS_PROGRAM(ms_tap)(struct __sk_buff *skb)
{
	struct ms_packet p;
	struct ms_config *cfg = config_get();

	if (!cfg)
		return MS_DROP;
	__u32 len = skb->len;
	if (len > (__u32)(skb->data_end - skb->data))
		bpf_skb_pull_data(skb, len < MS_PULL_BYTES ? len : MS_PULL_BYTES);
	if (parse(skb, &p) || p.kind != MS_KIND_SESSION)
		return drop(MS_REASON_TAP, 0);
	struct ms_session *s = sessions_lookup(&p.key);
	if (!s)
		return drop(MS_REASON_TAP, 0);
	int dir = direction_of(s, &p);
	if (s->held[dir & 1] == s->released[dir & 1])
		return drop(MS_REASON_TAP, 0);
	skb->mark = (skb->mark & ~cfg->mark_mask) | cfg->mark_judged;
	return bpf_redirect(s->ifindex[dir & 1], s->told & (2 << dir) ? 0 : BPF_F_INGRESS);
}

/*
 * Egress of the tap's far end. Each receive queue of the near end is steered to a CPU of its own: there a
 * released frame runs behind those of its flow that were released before, and before those that come
 * straight from the interface. What is written here selects the transmit queue with this number less
 * one (skb_tx_hash), and veth passes that queue's number on as the receive queue's plus one (since
 * 5.17 it does not record it itself).
 */
MS_PROGRAM(ms_release)(struct __sk_buff *skb)
{
	struct ms_packet p;

	if (parse(skb, &p) || p.kind != MS_KIND_SESSION)
		return MS_PASS;
	struct ms_session *s = sessions_lookup(&p.key);
	if (s)
		skb->queue_mapping = s->cpu[direction_of(s, &p) & 1] + 2;
	return MS_PASS;
}

MS_PROGRAM(ms_wall)(struct __sk_buff *skb)
{
	return MS_DROP;
}

MS_PROGRAM(ms_apply)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();
	__u64 now = bpf_jiffies64();

	if (!cfg)
		return -1;
	bpf_skb_pull_data(skb, 0);
#pragma nounroll
	for (int n = 0; n < MS_APPLY_BATCH; n++) {
		struct ms_command c;
		__u32 off = MS_APPLY_OFFSET + n * sizeof(c);
		if (bpf_skb_load_bytes(skb, off, &c, sizeof(c)))
			break;
		apply_one(&c, cfg, now);
		bpf_skb_store_bytes(skb, off, &c, sizeof(c), 0);
	}
	return 0;
}

MS_PROGRAM(ms_walk)(struct __sk_buff *skb)
{
	struct ms_config *cfg = config_get();
	struct ms_scratch *room = scratch_get(MS_SCRATCH_COMMAND);
	struct ms_command c;

	if (!cfg || !room || bpf_skb_load_bytes(skb, MS_APPLY_OFFSET, &c, sizeof(c)))
		return -1;
	apply_walk(skb, &c, cfg, &room->walk);
	return bpf_skb_store_bytes(skb, MS_APPLY_OFFSET, &c, sizeof(c), 0);
}

#ifdef MS_PLAIN_CLANG
char _license[] SEC("license") = "GPL";
#endif

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every map and its accessors. The one place that differs between bcc, which
 * rewrites `map.lookup()`, and plain clang with libbpf's section macros, which
 * lint and the ABI generator use.
 *
 *   sessions     flow key -> session, both directions in one entry
 *   fragments    datagram id -> what became of its first fragment
 *   config       [0] settings written by the fast-path daemon
 *   stats        [0] per-CPU counters, drops by reason
 *   heartbeat    [0] jiffies of the inspector's last sign of life
 *   managed      ifindex -> enum ms_zone, for every interface the gateway judges
 *   hops         number -> next hop of accelerated packets
 *   hop_claims   numbers in use: who is first at one fills it in
 *   events       ring buffer of verdicts and ends
 *   progs        tail calls
 *   scratch      per-CPU room for payload and new sessions
 *   pol_page     what a policy is compiled to: two slots, selected by the revision's lowest bit
 *   hits         counters of each rule: MS_HITS_SLOTS slots, selected by the revision's lowest bits
 */
#ifndef MS_MAPS_H
#define MS_MAPS_H

struct ms_walk {
	__u64 word;
	__u32 hash;
	__u32 flags; /* enum ms_rule_flag */
};

struct ms_counters {
	__u64 stats[MS_STAT_MAX];
	__u64 drops[MS_REASON_MAX + 1];
};

/* The policy walk's loops keep their state in a map: what the verifier does not
 * track cannot multiply its paths. */
struct ms_walk_state {
	/* What is asked. */
	__u32 address[2][4]; /* enum ms_direction: of the server, of the client; in host order */
	__u32 key;
	__u32 possible;
	__u32 passed_over; /* flags of rules */
	__u32 by_protocol;
	__u32 l4;
	__u32 vlan;	/* the outer tag, 0 = none */
	__u32 zones[2]; /* enum ms_direction, as in the session; unknown: those of a packet are looked up if need be */
	__u32 reversed; /* the packet was sent by the server */
	__u32 came_in;	/* ifindexes of the packet: 0 = the gateway sent it */
	__u32 goes_out; /* 0 = as the routing table says */
	__u32 course;
	__u32 otherwise; /* location of the number of the rule that decides where none is hit, 0 = rule 0 */
	/* The loops'. */
	__u32 word[2];	/* of the address, that is looked up */
	__u32 class[2]; /* of the two addresses; references before they are found */
	__u32 lists;	/* in `found` */
	__u32 to_lists; /* those of the address that the packet goes to, at the beginning */
	__u32 busy;
	__u32 list; /* the next one */
	__u32 at;   /* the block */
	__u32 left; /* what of it is still to be looked at, as in `passes` */
	__u64 signature[2];
	__u32 by_source; /* the present list is one of the address that the packet comes from */
	__u32 spread;	 /* where the other address's sets are */
	__u32 shift;
	__u32 sets;
	__u32 hit;
	__u32 open_rule;
	__u32 open_other; /* the first open one that would not deny */
	__u32 found[MS_POLICY_LISTS];
	__u32 passes[MS_POLICY_LISTS];
};

/* Room for reads beyond the loaded bytes: no check looks further than 64 bytes
 * behind a position it has bounded by MS_SCAN_BYTES. */
struct ms_scratch {
	struct ms_walk_state walk;
	struct ms_walk judged;
	__u32 refused;	/* why there is none, 0 = there is */
	__u32 answer;	/* enum ms_prog: the program that gets it */
	__u32 protocol; /* as identified */
	__u32 pad;
	struct ms_packet packet;
	struct ms_tcp_options options; /* of the packet, where it opens or closes */
	__u32 matches;
	__u32 open;
	__u32 n;
	__u32 line;
	__u64 spaces;
	__u64 window;
	__u64 folded;
	struct ms_session session;
	__u8 bytes[MS_SCAN_BYTES + 512];
};

/* Slots of the scratch map. Before kernel 6.11 a test run does not keep softirqs out. */
#define MS_SCRATCH_PACKET 0
#define MS_SCRATCH_COMMAND 1

#define MS_BPF_F_NO_PREALLOC 1
#define MS_BPF_F_INNER_MAP 0x1000

#ifndef MS_PLAIN_CLANG

BPF_F_TABLE(MS_SESSIONS_TYPE, struct ms_key, struct ms_session, sessions, MS_SESSIONS, MS_SESSIONS_FLAGS);
BPF_TABLE("lru_hash", struct ms_fragment_key, struct ms_fragment, fragments, 8192);
BPF_TABLE("array", __u32, struct ms_config, config, 1);
BPF_TABLE("percpu_array", __u32, struct ms_counters, stats, 1);
BPF_TABLE("percpu_array", __u32, struct ms_scratch, scratch, 2);
BPF_TABLE("array", __u32, __u64, heartbeat, 1);
BPF_TABLE("hash", __u32, __u32, managed, 1024);
BPF_TABLE("array", __u32, struct ms_hop, hops, MS_HOPS);
BPF_F_TABLE("hash", __u32, __u32, hop_claims, MS_HOPS, MS_BPF_F_NO_PREALLOC);
BPF_RINGBUF_OUTPUT(events, 1024);
BPF_TABLE("prog", __u32, __u32, progs, MS_PROG_MAX);
typedef __u32 ms_policy_page[MS_POLICY_PAGE];
BPF_F_TABLE("array", __u32, ms_policy_page, pol_page_t, 1, MS_BPF_F_INNER_MAP);
BPF_ARRAY_OF_MAPS(pol_page, "pol_page_t", 2);
/* Of the same size but no struct: where the template has the type information of a struct and the map put in its
 * place has none, kernels before 6.3 find them different. */
typedef __u64 ms_hits_words[sizeof(struct ms_hits) / 8];
BPF_F_TABLE("array", __u32, ms_hits_words, hits_t, 1, MS_BPF_F_INNER_MAP);
BPF_TABLE(MS_HITS_TYPE, int, int, hits, MS_HITS_SLOTS);

MS_INLINE struct ms_session *sessions_lookup(struct ms_key *key)
{
	return sessions.lookup(key);
}

MS_INLINE int sessions_insert(struct ms_key *key, struct ms_session *value)
{
	return sessions.insert(key, value);
}

MS_INLINE int sessions_delete(struct ms_key *key)
{
	return sessions.delete(key);
}

MS_INLINE struct ms_fragment *fragments_lookup(struct ms_fragment_key *key)
{
	return fragments.lookup(key);
}

MS_INLINE int fragments_update(struct ms_fragment_key *key, struct ms_fragment *value)
{
	return fragments.update(key, value);
}

MS_INLINE struct ms_config *config_get(void)
{
	__u32 zero = 0;
	return config.lookup(&zero);
}

MS_INLINE struct ms_counters *stats_get(void)
{
	__u32 zero = 0;
	return stats.lookup(&zero);
}

MS_INLINE struct ms_scratch *scratch_get(__u32 slot)
{
	return scratch.lookup(&slot);
}

MS_INLINE __u64 *heartbeat_get(void)
{
	__u32 zero = 0;
	return heartbeat.lookup(&zero);
}

MS_INLINE __u32 *managed_lookup(__u32 *ifindex)
{
	return managed.lookup(ifindex);
}

MS_INLINE struct ms_hop *hops_lookup(__u32 *number)
{
	return hops.lookup(number);
}

MS_INLINE int hop_claims_insert(__u32 *number)
{
	__u32 one = 1;
	return hop_claims.insert(number, &one);
}

MS_INLINE struct ms_event *events_reserve(void)
{
	return events.ringbuf_reserve(sizeof(struct ms_event));
}

MS_INLINE void events_submit(struct ms_event *event)
{
	events.ringbuf_submit(event, 0);
}

MS_INLINE void progs_call(struct __sk_buff *skb, int slot)
{
	progs.call(skb, slot);
}

MS_INLINE void *pol_page_slot(int slot)
{
	return pol_page.lookup(&slot);
}

MS_INLINE void *hits_slot(int slot)
{
	return hits.lookup(&slot);
}

#else /* plain clang: the same maps with libbpf's macros */

#define MS_MAP(kind, k, v, name, entries, bits)                                                                        \
	struct {                                                                                                       \
		__uint(type, kind);                                                                                    \
		__type(key, k);                                                                                        \
		__type(value, v);                                                                                      \
		__uint(max_entries, entries);                                                                          \
		__uint(map_flags, bits);                                                                               \
	} name SEC(".maps")

#define MS_SLOTS(name, entries)                                                                                        \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                                                              \
		__uint(max_entries, entries);                                                                          \
		__type(key, __u32);                                                                                    \
		__type(value, __u32);                                                                                  \
	} name SEC(".maps")

MS_MAP(BPF_MAP_TYPE_LRU_HASH, struct ms_key, struct ms_session, sessions, 65536, 0);
MS_MAP(BPF_MAP_TYPE_LRU_HASH, struct ms_fragment_key, struct ms_fragment, fragments, 8192, 0);
MS_MAP(BPF_MAP_TYPE_ARRAY, __u32, struct ms_config, config, 1, 0);
MS_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct ms_counters, stats, 1, 0);
MS_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct ms_scratch, scratch, 2, 0);
MS_MAP(BPF_MAP_TYPE_ARRAY, __u32, __u64, heartbeat, 1, 0);
MS_MAP(BPF_MAP_TYPE_HASH, __u32, __u32, managed, 1024, 0);
MS_MAP(BPF_MAP_TYPE_ARRAY, __u32, struct ms_hop, hops, MS_HOPS, 0);
MS_MAP(BPF_MAP_TYPE_HASH, __u32, __u32, hop_claims, MS_HOPS, MS_BPF_F_NO_PREALLOC);
MS_MAP(BPF_MAP_TYPE_PROG_ARRAY, __u32, __u32, progs, MS_PROG_MAX, 0);
MS_SLOTS(pol_page, 2);
MS_SLOTS(hits, MS_HITS_SLOTS);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1024 * 4096);
} events SEC(".maps");

MS_INLINE struct ms_session *sessions_lookup(struct ms_key *key)
{
	return bpf_map_lookup_elem(&sessions, key);
}

MS_INLINE int sessions_insert(struct ms_key *key, struct ms_session *value)
{
	return bpf_map_update_elem(&sessions, key, value, BPF_NOEXIST);
}

MS_INLINE int sessions_delete(struct ms_key *key)
{
	return bpf_map_delete_elem(&sessions, key);
}

MS_INLINE struct ms_fragment *fragments_lookup(struct ms_fragment_key *key)
{
	return bpf_map_lookup_elem(&fragments, key);
}

MS_INLINE int fragments_update(struct ms_fragment_key *key, struct ms_fragment *value)
{
	return bpf_map_update_elem(&fragments, key, value, BPF_ANY);
}

MS_INLINE struct ms_config *config_get(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&config, &zero);
}

MS_INLINE struct ms_counters *stats_get(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&stats, &zero);
}

MS_INLINE struct ms_scratch *scratch_get(__u32 slot)
{
	return bpf_map_lookup_elem(&scratch, &slot);
}

MS_INLINE __u64 *heartbeat_get(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&heartbeat, &zero);
}

MS_INLINE __u32 *managed_lookup(__u32 *ifindex)
{
	return bpf_map_lookup_elem(&managed, ifindex);
}

MS_INLINE struct ms_hop *hops_lookup(__u32 *number)
{
	return bpf_map_lookup_elem(&hops, number);
}

MS_INLINE int hop_claims_insert(__u32 *number)
{
	__u32 one = 1;
	return bpf_map_update_elem(&hop_claims, number, &one, BPF_NOEXIST);
}

MS_INLINE struct ms_event *events_reserve(void)
{
	return bpf_ringbuf_reserve(&events, sizeof(struct ms_event), 0);
}

MS_INLINE void events_submit(struct ms_event *event)
{
	bpf_ringbuf_submit(event, 0);
}

MS_INLINE void progs_call(struct __sk_buff *skb, int slot)
{
	bpf_tail_call(skb, &progs, slot);
}

MS_INLINE void *pol_page_slot(int slot)
{
	return bpf_map_lookup_elem(&pol_page, &slot);
}

MS_INLINE void *hits_slot(int slot)
{
	return bpf_map_lookup_elem(&hits, &slot);
}

#endif

#endif

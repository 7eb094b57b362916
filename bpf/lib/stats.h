/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Per-CPU statistics. Every drop goes through drop(): counted by reason, never anonymous. */
#ifndef MS_STATS_H
#define MS_STATS_H

MS_INLINE void count_n(int stat, __u64 n)
{
	struct ms_counters *counters = stats_get();
	if (counters)
		counters->stats[stat] += n;
}

MS_INLINE void count(int stat)
{
	count_n(stat, 1);
}

MS_INLINE void count_packets(const struct ms_packet *p, int stat)
{
	count_n(stat, p->segments);
}

/* In monitor mode the drop is counted and the packet passes. */
MS_INLINE int drop(__u32 reason, int monitor)
{
	struct ms_counters *counters = stats_get();
	if (counters) {
		/* A mask on the register that indexes: the verifier before 6.3 forgets a comparison with its copy. */
		ms_opaque(reason);
		reason &= MS_REASON_MAX;
		counters->drops[reason] += 1;
		if (monitor)
			counters->stats[MS_STAT_MONITORED] += 1;
	}
	return monitor ? MS_PASS : MS_DROP;
}

#endif

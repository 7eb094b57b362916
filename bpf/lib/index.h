/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Words of a policy's pages, and steps through the indices among them. */
#ifndef MS_INDEX_H
#define MS_INDEX_H

MS_INLINE __u32 *page_at(void *pages, __u32 location)
{
	__u32 page = location >> 16;
	return bpf_map_lookup_elem(pages, &page);
}

/* A word of a page; `align` is a power of two, of what is read from there on. */
MS_INLINE __u32 *word_at(__u32 *page, __u32 location, __u32 align)
{
	ms_opaque(location);
	location &= MS_POLICY_PAGE - align;
	return page + location;
}

/* How many of a node's keys are below a key. Without branches, here and in the walk: each would multiply the verifier's
 * paths through the loops. */
MS_INLINE __u32 below(const __u32 *node, int words, __u32 key)
{
	__u64 count = 0;
#pragma unroll
	for (int n = 1; n < words; n++) {
		__u64 difference = (__u64)node[n] - key;
		ms_opaque(difference);
		count += difference >> 63;
	}
	return count;
}

/* One step towards a key's value: from a node of an index to its child, or from a leaf to the value. */
MS_INLINE __u32 step(void *pages, __u32 at, __u32 key)
{
	__u32 *node = page_at(pages, at);
	if (!node)
		return 0;
	node = word_at(node, at, MS_INDEX_NODE);
	if ((at & MS_INDEX_DEPTH) == 1)
		return node[8 + (below(node, 8, key) & 7)];
	return node[0] + below(node, MS_INDEX_NODE, key) * MS_INDEX_NODE;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Ground the other headers stand on: inlining, byte order, return codes. */
#ifndef MS_BASE_H
#define MS_BASE_H

/* bcc has no BPF-to-BPF calls: every function is inlined into its program. */
#define MS_INLINE static inline __attribute__((always_inline))

#define MS_PASS (-1) /* TC_ACT_UNSPEC: other filters of the chain still run */
#define MS_DROP 2    /* TC_ACT_SHOT */

/* Keeps clang from undoing a bound that the verifier needs to see. */
#define ms_opaque(x) asm volatile("" : "+r"(x))

/* Loops over what a packet says (lengths, next headers) keep their state in these, and read the loop's bound by
 * ms_fresh(): what the verifier does not follow cannot multiply its paths. It follows no part of the stack that lies at
 * no multiple of eight, and no second reading of a byte of the packet. The address taken keeps the padding. */
struct ms_untracked {
	__u32 pad;
	volatile __u32 n;
} __attribute__((aligned(8)));
#define ms_untracked(name, value)                                                                                      \
	struct ms_untracked name = {.n = value};                                                                       \
	asm volatile("" ::"r"(&name))
#define ms_fresh(at) ((__u32) * (volatile __u8 *)(at))

/* Last in a loop's body. Kernels before 6.3 refuse a loop that is closed by falling through ("back-edge"),
 * which is how the compiler lays it out; a jump may close it. */
#define ms_jump_back() asm volatile("goto +0" ::: "memory")
/* First in the body of a loop that the compiler would end by reading what the next turn begins with: behind the jump. */
#define ms_turn() asm volatile("" ::: "memory")

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ms_le32(x) (x)
#define ms_be16(x) __builtin_bswap16(x)
#define ms_be32(x) __builtin_bswap32(x)
#define ms_be64(x) __builtin_bswap64(x)
#else
#define ms_le32(x) __builtin_bswap32(x)
#define ms_be16(x) (x)
#define ms_be32(x) (x)
#define ms_be64(x) (x)
#endif

/* Index of the lowest set bit: the population count of the bits below it. Without
 * branches, each of which would double the verifier's paths. */
MS_INLINE __u32 lowest_bit(__u64 x)
{
	x = (x & -x) - 1;
	x = x - ((x >> 1) & 0x5555555555555555ULL);
	x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return ((x * 0x0101010101010101ULL) >> 56) & 63;
}

/* cb[1], why a program was called */
#define MS_REVERSED 2 /* judge once more with the sender as the server */
#define MS_STRAIGHT 4 /* and once more as it was sent: neither way is allowed */
#define MS_NEW 8      /* no session was found; so it is of the two above */

/* ms_session.told: this direction needs the inspector no more */
#define MS_STRAIGHT_BIT 8

enum ms_hook {
	MS_INGRESS = 0,
	MS_EGRESS = 1,
};

/* Parts of the verdict word. */
MS_INLINE __u32 word_verdict(__u64 word)
{
	return word & 0xf;
}

/* Denied, and not in monitor mode: no packet passes. */
MS_INLINE int word_blocks(__u64 word)
{
	return (word & (0xf | 1 << MS_WORD_MONITOR)) == MS_VERDICT_DENY;
}

MS_INLINE __u32 word_revision(__u64 word)
{
	return word >> MS_WORD_REVISION;
}

MS_INLINE __u32 word_rule(__u64 word)
{
	return (word >> MS_WORD_RULE) & 0xffffff;
}

MS_INLINE __u32 word_reason(__u64 word)
{
	return (word >> MS_WORD_REASON) & 0xff;
}

MS_INLINE __u64 word_with_verdict(__u64 word, __u64 verdict)
{
	return (word & ~0xfULL) | verdict;
}

MS_INLINE __u64 word_with_reason(__u64 word, __u64 reason)
{
	return (word & ~(0xffULL << MS_WORD_REASON)) | (reason << MS_WORD_REASON);
}

#endif

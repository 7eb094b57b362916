/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* bcc's helpers.h includes it and has its own bpf_log2(). */

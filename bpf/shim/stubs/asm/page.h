/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* bcc's helpers.h sizes its perf buffers by it; no program of ours has one. */
#ifndef MS_SHIM_ASM_PAGE_H
#define MS_SHIM_ASM_PAGE_H

#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)

#endif

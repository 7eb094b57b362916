/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Interface names only: icmp.h and others want IFNAMSIZ, and the original
 * leads into the C library's socket headers. */
#ifndef MS_SHIM_LINUX_IF_H
#define MS_SHIM_LINUX_IF_H

#define IFNAMSIZ 16

#endif

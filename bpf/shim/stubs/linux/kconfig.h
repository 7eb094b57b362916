/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Force-included by bcc, which takes its presence for "kernel headers are here"
 * and refuses to go on unless the kernel is said to have BPF. */
#ifndef MS_SHIM_LINUX_KCONFIG_H
#define MS_SHIM_LINUX_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

#endif

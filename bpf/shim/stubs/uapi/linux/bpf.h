/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* bcc brings its own copy, under another include guard: this one must be empty. */

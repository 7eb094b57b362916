/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Identification of the first payload, by content and never by port. Each check
 * answers match, no match or need more; a match means the whole unit of its
 * grammar lies in this segment. parsers/identify holds the same checks, and those of more protocols.
 *
 * `b` holds the first `n` of `len` payload bytes; reads behind `n` stay inside
 * the scratch buffer and are guarded by `n` where they decide anything.
 */
#ifndef MS_IDENTIFY_H
#define MS_IDENTIFY_H

enum ms_answer {
	MS_NO_MATCH = 0,
	MS_MATCH = 1,
	MS_NEED_MORE = 2,
};

MS_INLINE __u32 be32_at(const __u8 *b)
{
	return ((__u32)b[0] << 24) | ((__u32)b[1] << 16) | ((__u32)b[2] << 8) | b[3];
}

MS_INLINE __u32 le32_at(const __u8 *b)
{
	return ((__u32)b[3] << 24) | ((__u32)b[2] << 16) | ((__u32)b[1] << 8) | b[0];
}

MS_INLINE int is_digit(__u8 c)
{
	return c >= '0' && c <= '9';
}

MS_INLINE int is_letter(__u8 c)
{
	return (__u8)((c | 0x20) - 'a') < 26;
}

/* Of a request line: two spaces, and the two control characters that end it. */
#define MS_REQUEST_LINE (2 | 2ULL << 32)

/* Where the target begins behind one of the methods in use, 0 where there is another word. */
MS_INLINE __u32 target_at(const __u8 *b)
{
	__u32 m = be32_at(b), rest = be32_at(b + 4);

	if (m == 0x47455420 /* GET_ */ || m == 0x50555420 /* PUT_ */)
		return 4;
	if (m == 0x48454144 /* HEAD */ || m == 0x504f5354 /* POST */)
		return (rest >> 24) == ' ' ? 5 : 0;
	if (m == 0x50415443 /* PATC */)
		return (rest >> 16) == 0x4820 /* H_ */ ? 6 : 0;
	if (m == 0x54524143 /* TRAC */)
		return (rest >> 16) == 0x4520 /* E_ */ ? 6 : 0;
	if (m == 0x44454c45 /* DELE */)
		return (rest >> 8) == 0x544520 /* TE_ */ ? 7 : 0;
	return m == 0x4f505449 /* OPTI */ && rest == 0x4f4e5320 /* ONS_ */ ? 8 : 0;
}

/* RFC 9112 3: one of the methods in use, SP, target, SP, HTTP/1.x CRLF, and the head's end.
 * CONNECT and Upgrade turn into something else: those are for the inspector. */
MS_INLINE int is_http(struct ms_scratch *room, __u32 n)
{
	const __u8 *b = room->bytes;

	if (n < 8)
		return is_letter(b[0]) ? MS_NEED_MORE : MS_NO_MATCH;
	__u32 at = target_at(b);
	if (n < 18)
		return at ? MS_NEED_MORE : MS_NO_MATCH;
	__u8 first = at == 4 ? b[4] : at == 5 ? b[5] : at == 6 ? b[6] : at == 7 ? b[7] : b[8];
	if (!at || (!is_letter(first) && !is_digit(first) && first != '/' && first != '*' && first != '['))
		return MS_NO_MATCH;

	/* The last eight bytes, as they are and folded to lower case. In memory, or each newline
	 * seen would split the verifier's paths. */
	room->window = 0;
	room->folded = 0;
	room->spaces = 0;
	*(volatile __u32 *)&room->line = 0;
	__u32 i = 0;
	ms_opaque(i); /* else the compiler peels the first round off */
#pragma nounroll
	for (; i < MS_SCAN_BYTES; i++) {
		if (i >= n)
			break;
		__u64 c = b[i], window = room->window;
		room->window = (window << 8) | c;
		room->folded = (room->folded << 8) | (c | 0x20);
		/* One more for a space, and in the upper half for a control character, without a branch. */
		room->spaces += ((c ^ ' ') - 1) >> 63;
		room->spaces += (((c - ' ') >> 63) + (((c ^ 0x7f) - 1) >> 63)) << 32;
		if (c == '\n') {
			if (*(volatile __u32 *)&room->line) {
				if ((window & 0xffffff) == 0x0d0a0d)
					return MS_MATCH;
			} else if ((window & ~0x0100ULL) != 0x5454502f312e300dULL || room->spaces != MS_REQUEST_LINE) {
				/* The line does not end in "TTP/1.0\r" or "TTP/1.1\r", or has more than three words. */
				return MS_NO_MATCH;
			} else {
				__u32 version = i - 10;
				ms_opaque(version);
				version &= MS_SCAN_BYTES - 1;
				if (b[version] != ' ' || b[version + 1] != 'H')
					return MS_NO_MATCH;
			}
			*(volatile __u32 *)&room->line = 1;
		}
		/* "\nupgrade": the newline folds to '*' */
		if (*(volatile __u64 *)&room->folded == 0x2a75706772616465ULL)
			return MS_NEED_MORE;
		ms_jump_back();
	}
	return MS_NEED_MORE;
}

/* RFC 8446 5.1, 4.1.2: a handshake record that begins with a ClientHello, whole. */
MS_INLINE int is_tls(const __u8 *b, __u32 n, __u32 len)
{
	if (b[0] != 22)
		return MS_NO_MATCH;
	if (n < 2)
		return MS_NEED_MORE;
	if (b[1] != 3)
		return MS_NO_MATCH;
	if (n < 44)
		return n < 11 || (b[2] <= 4 && b[5] == 1) ? MS_NEED_MORE : MS_NO_MATCH;
	__u32 record = ((__u32)b[3] << 8) | b[4];
	__u32 hello = ((__u32)b[6] << 16) | ((__u32)b[7] << 8) | b[8];
	if (b[2] > 4 || b[5] != 1 || record < 40 || record > 16384 || b[9] != 3 || b[10] > 4 || b[43] > 32)
		return MS_NO_MATCH;
	if (hello < 38 || hello > 65536)
		return MS_NO_MATCH;
	return hello + 4 <= record && record + 5 <= len ? MS_MATCH : MS_NEED_MORE;
}

/* RFC 4253 4.2: "SSH-2.0-" or "SSH-1.99-" and the software, to the end of the line, from either side. */
MS_INLINE int is_ssh(const __u8 *b, __u32 n)
{
	if (n < 4)
		return b[0] == 'S' && (n < 2 || b[1] == 'S') && (n < 3 || b[2] == 'H') ? MS_NEED_MORE : MS_NO_MATCH;
	if (be32_at(b) != 0x5353482d)
		return MS_NO_MATCH;
	if (n < 10)
		return MS_NEED_MORE;
	int two = be32_at(b + 4) == 0x322e302d;
	if (!two && !(be32_at(b + 4) == 0x312e3939 && b[8] == '-'))
		return MS_NO_MATCH;
	if (b[two ? 8 : 9] <= ' ')
		return MS_NO_MATCH;
	for (__u32 i = 8; i < 255; i++) {
		if (i >= n)
			return MS_NEED_MORE;
		if (b[i] == '\n')
			return MS_MATCH;
	}
	return MS_NO_MATCH;
}

/* RFC 1035 4.1: a query, one question whose name ends inside, nothing behind it but EDNS. */
MS_INLINE int is_dns(const __u8 *b, __u32 n)
{
	if (n < 12)
		return MS_NEED_MORE;
	__u32 additional = ((__u32)b[10] << 8) | b[11];
	/* QR 0, RA 0, Z 0, response code 0; the opcode query or notify */
	if ((b[2] & 0x80) || (b[3] & 0xcf))
		return MS_NO_MATCH;
	__u8 opcode = (b[2] >> 3) & 15;
	if (opcode != 0 && opcode != 4)
		return MS_NO_MATCH;
	if (b[4] || b[5] != 1 || b[6] || b[7] || b[8] || b[9] || additional > 2)
		return MS_NO_MATCH;
	__u32 i = 12;
	for (int label = 0; label < 64; label++) {
		if (i >= n)
			return MS_NEED_MORE;
		if (i > 12 + 255)
			return MS_NO_MATCH;
		ms_opaque(i);
		i &= 511;
		__u8 size = b[i];
		if (size > 63)
			return MS_NO_MATCH;
		i += 1 + size;
		if (size == 0) {
			if (i + 4 > n)
				return MS_NEED_MORE;
			if (i > 12 + 256)
				return MS_NO_MATCH;
			ms_opaque(i);
			i &= 511;
			__u32 class = ((__u32)b[i + 2] << 8) | b[i + 3];
			if (class != 1 && class != 3 && class != 4 && class != 254 && class != 255)
				return MS_NO_MATCH;
			if (!additional)
				return i + 4 == n ? MS_MATCH : MS_NO_MATCH;
			/* OPT or TSIG: root or another name, at least eleven bytes */
			return i + 4 + 11 <= n ? MS_MATCH : MS_NO_MATCH;
		}
	}
	return MS_NEED_MORE;
}

/* MySQL protocol 10: the server's greeting, one whole packet with sequence 0. */
MS_INLINE int is_mysql(const __u8 *b, __u32 n, __u32 len)
{
	__u32 size = ((__u32)b[2] << 16) | ((__u32)b[1] << 8) | b[0];
	if (n < 5)
		return (n < 3 || b[2] == 0) && (n < 4 || b[3] == 0) ? MS_NEED_MORE : MS_NO_MATCH;
	if (b[3] != 0 || b[4] != 10 || size < 32 || size > 1024)
		return MS_NO_MATCH;
	if (n < 8)
		return MS_NEED_MORE;
	if (!is_digit(b[5]) || (b[6] == '.' ? !is_digit(b[7]) : !is_digit(b[6]) || b[7] != '.' || !is_digit(b[8])))
		return MS_NO_MATCH;
	for (__u32 i = 7; i < 60; i++) {
		if (i >= n)
			return MS_NEED_MORE;
		if (b[i] == 0) {
			/* Behind the version the connection's number, eight bytes of the salt and a zero. */
			__u32 zero = i + 13;
			ms_opaque(zero);
			zero &= 127;
			if (zero < n && b[zero])
				return MS_NO_MATCH;
			return size + 4 == len && zero < n ? MS_MATCH : size + 4 > len ? MS_NEED_MORE : MS_NO_MATCH;
		}
		if (b[i] < 0x20 || b[i] > 0x7e)
			return MS_NO_MATCH;
	}
	return MS_NO_MATCH;
}

/* PostgreSQL 3.0 and 3.2: startup message with a `user`, or one of the three requests before it. */
MS_INLINE int is_postgres(const __u8 *b, __u32 n, __u32 len)
{
	if (b[0] != 0)
		return MS_NO_MATCH;
	if (n < 8)
		return (n < 2 || b[1] == 0) ? MS_NEED_MORE : MS_NO_MATCH;
	__u32 size = be32_at(b), code = be32_at(b + 4);
	if (code == 80877103 || code == 80877104)
		return size == 8 ? (len == 8 ? MS_MATCH : MS_NEED_MORE) : MS_NO_MATCH;
	if (code == 80877102)
		return size == 16 ? (len == 16 ? MS_MATCH : MS_NEED_MORE) : MS_NO_MATCH;
	if ((code != 196608 && code != 196610) || size < 14 || size > 10000)
		return MS_NO_MATCH;
	if (n < 13)
		return MS_NEED_MORE;
	if (!is_letter(b[8]) && b[8] != '_')
		return MS_NO_MATCH;
	for (__u32 i = 9; i < 49; i++) {
		if (i >= n)
			return MS_NEED_MORE;
		if (b[i] == 0)
			return size == len && i > 9 ? MS_MATCH : size > len ? MS_NEED_MORE : MS_NO_MATCH;
		if (!is_letter(b[i]) && !is_digit(b[i]) && b[i] != '_' && b[i] != '.')
			return MS_NO_MATCH;
	}
	return MS_NO_MATCH;
}

/* RESP: an array whose first element is a command word, whole. */
MS_INLINE int is_redis(const __u8 *b, __u32 n)
{
	if (b[0] != '*')
		return MS_NO_MATCH;
	__u32 i = 1, size = 0, digits = 0;
	for (int k = 0; k < 7; k++) {
		if (i >= n)
			return MS_NEED_MORE;
		if (!is_digit(b[i]))
			break;
		i++;
		digits++;
	}
	if (!digits || digits > 6 || b[1] == '0')
		return MS_NO_MATCH;
	if (i + 4 > n)
		return MS_NEED_MORE;
	if (b[i] != '\r' || b[i + 1] != '\n' || b[i + 2] != '$' || !is_digit(b[i + 3]))
		return MS_NO_MATCH;
	size = b[i + 3] - '0';
	i += 4;
	if (i < n && is_digit(b[i])) {
		size = size * 10 + (b[i] - '0');
		i++;
	}
	if (size == 0 || size > 32)
		return MS_NO_MATCH;
	if (i + 2 + size + 2 > n)
		return MS_NEED_MORE;
	if (b[i] != '\r' || b[i + 1] != '\n' || !is_letter(b[i + 2]))
		return MS_NO_MATCH;
	i += 2;
	for (__u32 k = 0; k < 32; k++) {
		__u8 c = b[i];
		if (k >= size)
			break;
		if (!is_letter(c) && !is_digit(c) && c != '.' && c != '_' && c != '-' && c != '|')
			return MS_NO_MATCH;
		i++;
	}
	ms_opaque(i);
	i &= 63; /* at most 7 + 4 + 2 + 32: for the verifier before 6.3 */
	return b[i] == '\r' && b[i + 1] == '\n' ? MS_MATCH : MS_NO_MATCH;
}

/* MongoDB: OP_MSG (2013) with one body section or OP_QUERY (2004), whole, BSON length plausible. */
MS_INLINE int is_mongodb(const __u8 *b, __u32 n, __u32 len)
{
	if (n < 26)
		return n >= 16 && le32_at(b + 12) != 2013 && le32_at(b + 12) != 2004 ? MS_NO_MATCH
		       : n >= 4 && (b[3] != 0)					     ? MS_NO_MATCH
										     : MS_NEED_MORE;
	__u32 size = le32_at(b), opcode = le32_at(b + 12);
	if (size < 26 || size > 48000000 || le32_at(b + 8) != 0)
		return MS_NO_MATCH;
	if (opcode == 2013) {
		__u32 body = le32_at(b + 21);
		if ((le32_at(b + 16) & ~0x10003) || b[20] != 0 || body < 5 || body > size - 21)
			return MS_NO_MATCH;
		/* The first element's type, or the end of an empty document. */
		if (body == 5 ? b[25] != 0 : b[25] == 0 || (b[25] > 0x13 && b[25] != 0x7f && b[25] != 0xff))
			return MS_NO_MATCH;
	} else if (opcode == 2004) {
		if (le32_at(b + 16) & ~0xfe)
			return MS_NO_MATCH;
		/* A collection's name, with a dot in it. */
		int dots = 0;
		for (__u32 i = 20; i < 53; i++) {
			if (i >= n)
				return MS_NEED_MORE;
			if (b[i] == 0) {
				if (!dots || i < 23)
					return MS_NO_MATCH;
				return size == len ? MS_MATCH : size > len ? MS_NEED_MORE : MS_NO_MATCH;
			}
			if (b[i] < 0x21 || b[i] > 0x7e)
				return MS_NO_MATCH;
			dots |= b[i] == '.';
		}
		return MS_NO_MATCH;
	} else {
		return MS_NO_MATCH;
	}
	return size == len ? MS_MATCH : size > len ? MS_NEED_MORE : MS_NO_MATCH;
}

/* Answers go to memory, where the verifier does not follow their combinations. */
MS_INLINE void note_answer(struct ms_scratch *room, int answer, __u32 protocol)
{
	if (answer == MS_MATCH)
		room->matches |= 1 << protocol;
	else if (answer == MS_NEED_MORE)
		room->open = 1;
}

/* The first bytes of a payload, wherever they lie; answers how many. */
MS_INLINE __u32 load_payload(struct __sk_buff *skb, struct ms_packet *p, __u8 *to)
{
	__u32 n = p->payload_len;

	if (n > MS_SCAN_BYTES)
		n = MS_SCAN_BYTES;
	if (n == 0)
		return 0;
	/* The same number in a form that the verifier knows to be 1 to MS_SCAN_BYTES. */
	n -= 1;
	ms_opaque(n);
	n = (n & (MS_SCAN_BYTES - 1)) + 1;
	return bpf_skb_load_bytes(skb, p->payload, to, n) ? 0 : n;
}

/* Run the checks over a flow's first payload, `room->n` of `len` bytes. */
MS_INLINE void identify(struct ms_scratch *room, __u32 len, __u8 l4, int dir)
{
	const __u8 *b = room->bytes;

	/* Each check reads the length anew: what it learns of it is not carried into the next. */
#define MS_N (*(volatile __u32 *)&room->n)
	if (l4 == MS_IP_UDP) {
		if (dir == MS_TO_SERVER && MS_N == len)
			note_answer(room, is_dns(b, MS_N), MS_PROTOCOL_DNS);
		return;
	}
	note_answer(room, is_ssh(b, MS_N), MS_PROTOCOL_SSH);
	if (dir == MS_TO_CLIENT) {
		note_answer(room, is_mysql(b, MS_N, len), MS_PROTOCOL_MYSQL);
		return;
	}
	note_answer(room, is_tls(b, MS_N, len), MS_PROTOCOL_TLS);
	note_answer(room, is_postgres(b, MS_N, len), MS_PROTOCOL_POSTGRES);
	note_answer(room, is_mongodb(b, MS_N, len), MS_PROTOCOL_MONGODB);
	note_answer(room, is_redis(b, MS_N), MS_PROTOCOL_REDIS);
	__u32 n = MS_N;
	if (n > 14 && n == len && (((__u32)b[0] << 8) | b[1]) + 2 == n)
		note_answer(room, is_dns(b + 2, n - 2), MS_PROTOCOL_DNS);
	note_answer(room, is_http(room, MS_N), MS_PROTOCOL_HTTP);
#undef MS_N
}

/* The one protocol that matched, or MS_PROTOCOL_NONE: too short to tell, or two that fit. */
MS_INLINE __u32 identified(struct ms_scratch *room)
{
	__u32 matches = room->matches;

	if (!matches || (matches & (matches - 1)) || room->open)
		return MS_PROTOCOL_NONE;
	return lowest_bit(matches);
}

#endif

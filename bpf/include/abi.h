/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Everything the kernel half and the Python half must agree on, and nothing
 * else. fastpath/abi.py is generated from this file's debug information
 * (`make abi`); CI regenerates and compares it. The file's hash names the pin
 * directory, so code never opens maps of another layout.
 *
 * Natural alignment, explicit padding, no `packed`: one misplaced byte and the
 * verifier rejects the atomic adds. Only enums and structs: a #define leaves no
 * debug information. Enum values are never reused for another meaning.
 */
#ifndef MS_ABI_H
#define MS_ABI_H

/* Decision on a session. UNDECIDED and DRAIN are transient: the former waits
 * for the protocol, the latter hands a flow back from inspector to kernel. */
enum ms_verdict {
	MS_VERDICT_NONE = 0,
	MS_VERDICT_ALLOW = 1,
	MS_VERDICT_DENY = 2,
	MS_VERDICT_INSPECT = 3,
	MS_VERDICT_UNDECIDED = 4,
	MS_VERDICT_DRAIN = 5,
};

/* What later bytes can still change: none = decided without payload. */
enum ms_scope {
	MS_SCOPE_NONE = 0,
	MS_SCOPE_CONNECTION = 1,
	MS_SCOPE_REQUEST = 2,
};

/* What a policy rule asks for. */
enum ms_action {
	MS_ACTION_ALLOW = 1,
	MS_ACTION_DENY = 2,
	MS_ACTION_INSPECT = 3,
};

/* Why a verdict or a drop. Names appear in records, metrics and the README. */
enum ms_reason {
	MS_REASON_NONE = 0,
	MS_REASON_POLICY = 1,	    /* a rule on addresses and ports */
	MS_REASON_DEFAULT = 2,	    /* no policy rule matched */
	MS_REASON_PROTOCOL = 3,	    /* a policy rule, once the protocol was known */
	MS_REASON_RULE = 4,	    /* a rule of a rule file */
	MS_REASON_NO_RULE = 5,	    /* inspected, and no rule of the rule files matched */
	MS_REASON_HOST = 6,	    /* the gateway's own traffic */
	MS_REASON_FAILSAFE = 7,	    /* management port of the gateway itself */
	MS_REASON_RELATED = 8,	    /* ICMP error that quotes an allowed session */
	MS_REASON_PENDING = 9,	    /* handshake passes, the protocol is not known yet */
	MS_REASON_MIDSTREAM = 10,   /* exception: the start of the flow was not seen */
	MS_REASON_NEED_MORE = 11,   /* exception: too short to tell */
	MS_REASON_PARSE_ERROR = 12, /* exception: not the grammar it began with */
	MS_REASON_REASSEMBLY_LIMIT = 13,
	MS_REASON_OVERLAP_CONFLICT = 14,
	MS_REASON_FRAGMENT = 15, /* exception: later fragment whose first is missing, or needs its whole payload */
	MS_REASON_TABLE_FULL = 16,
	MS_REASON_INSPECTOR_DOWN = 17,
	MS_REASON_PATTERN_BUDGET = 18,
	MS_REASON_ECH = 19,
	MS_REASON_TRUNCATED = 20,      /* a header ends beyond the packet */
	MS_REASON_BAD_HEADER = 21,     /* a length, version or offset that cannot be (the inspector's parser) */
	MS_REASON_EXT_HEADERS = 22,    /* IPv6 extension header more often than once, destination options than twice */
	MS_REASON_NOT_IP = 23,	       /* ethertype the gateway does not judge */
	MS_REASON_TAP = 24,	       /* came out of the tap without being held */
	MS_REASON_ICMP_UNRELATED = 25, /* ICMP error that quotes no session */
	MS_REASON_DRAIN_LIMIT = 26,    /* hand-over flipped at its bound */
	MS_REASON_SPOOFED = 27,	       /* martian: an address that cannot be a source, or a destination */
	MS_REASON_SOURCE_ROUTE = 28,   /* IPv4 source routing, IPv6 routing header 0 */
	MS_REASON_CLOSED = 29,	       /* payload on a session that has ended */
	MS_REASON_NO_POLICY = 30,      /* no policy loaded yet */
	MS_REASON_IP_HEADER = 31,      /* version, header length or reserved flag */
	MS_REASON_IP_LENGTH = 32,      /* total length shorter than the header */
	MS_REASON_IP_OPTIONS = 33,     /* malformed IPv4 or hop-by-hop options */
	MS_REASON_IP_CHECKSUM = 34,    /* of the IPv4 header */
	MS_REASON_TCP_OFFSET = 35,     /* data offset within the header, or beyond the packet */
	MS_REASON_TCP_FLAGS = 36,      /* flags that no connection has */
	MS_REASON_TCP_OPTIONS = 37,    /* malformed options of a SYN */
	MS_REASON_PORT_ZERO = 38,      /* TCP, or a UDP destination */
	MS_REASON_UDP_LENGTH = 39,     /* shorter than its header, or beyond the packet */
	/* TCP segments that change nothing, by kind; passed but for strict_tcp. Counted as MS_STAT_TCP_* too. */
	MS_REASON_TCP_STATE = 40,	/* illegal in its sender's state */
	MS_REASON_TCP_SEQUENCE = 41,	/* outside the window that the other side opened */
	MS_REASON_TCP_ACK = 42,		/* acknowledges what was never sent, or what is long past */
	MS_REASON_TCP_RESET = 43,	/* a reset outside the window */
	MS_REASON_TCP_SYN = 44,		/* a SYN in the midst of a connection */
	MS_REASON_TCP_FIN = 45,		/* beyond the sender's FIN, or a FIN short of what was sent */
	MS_REASON_ICMP_FAMILY = 48,	/* ICMP over IPv6, ICMPv6 over IPv4 */
	MS_REASON_ICMP_QUOTE = 49,	/* error without the packet it is about, or about an error */
	MS_REASON_EXT_ORDER = 50,	/* hop-by-hop options that are not first */
	MS_REASON_EXT_LENGTH = 51,	/* IPv6 extension header reaches beyond the packet */
	MS_REASON_JUMBOGRAM = 52,	/* RFC 2675 */
	MS_REASON_FRAGMENT_LENGTH = 53, /* empty, no multiple of 8, or beyond 65535 */
	MS_REASON_FRAGMENT_TINY = 54,	/* exception: first without the whole header, later one that would rewrite it */
	MS_REASON_FRAGMENT_OVERLAP = 55, /* exception: bytes of the datagram that another fragment brought */
	MS_REASON_FRAGMENT_LIMIT = 56,	 /* exception: too many pieces, or in too wild an order */
	MS_REASON_L4_SHORT = 57,	 /* transport header not whole within the packet */
	MS_REASON_L4_CHECKSUM = 58,	 /* of a TCP segment that would change a connection's state */
	MS_REASON_LAND = 59,		 /* source and destination are the same */
	MS_REASON_NEIGHBOUR = 60,	 /* neighbour discovery in fragments, or to somebody beyond the link */
	MS_REASON_MAX = 63,		 /* 2^n - 1: drop counters are masked with it */
};

/* Application protocols; 1 << value is its bit in a rule's mask. */
enum ms_protocol {
	MS_PROTOCOL_NONE = 0, /* not known yet */
	MS_PROTOCOL_UNKNOWN = 1,
	MS_PROTOCOL_HTTP = 2,
	MS_PROTOCOL_HTTP2 = 3,
	MS_PROTOCOL_GRPC = 4,
	MS_PROTOCOL_WEBSOCKET = 5,
	MS_PROTOCOL_TLS = 6,
	MS_PROTOCOL_DNS = 7,
	MS_PROTOCOL_MYSQL = 8,
	MS_PROTOCOL_POSTGRES = 9,
	MS_PROTOCOL_REDIS = 10,
	MS_PROTOCOL_MONGODB = 11,
	MS_PROTOCOL_KAFKA = 12,
	MS_PROTOCOL_MEMCACHED = 13,
	MS_PROTOCOL_SSH = 14,
	MS_PROTOCOL_AMQP = 15,
	MS_PROTOCOL_MQTT = 16,
	MS_PROTOCOL_SMTP = 17,
	MS_PROTOCOL_FTP = 18,
	MS_PROTOCOL_SMB = 19,
	MS_PROTOCOL_RDP = 20,
	MS_PROTOCOL_QUIC = 21,
	MS_PROTOCOL_ICMP = 22,
	MS_PROTOCOL_MAX = 23,
};

/* State of an endpoint, as far as the middle can know it (RFC 9293 3.3.2; bpf/lib/tcp.h). A connection that was
 * reset has both CLOSED; one that ended in order one or both in TIME_WAIT. */
enum ms_tcp {
	MS_TCP_CLOSED = 0,
	MS_TCP_LISTEN = 1,
	MS_TCP_SYN_SENT = 2,
	MS_TCP_SYN_RECEIVED = 3,
	MS_TCP_ESTABLISHED = 4,
	MS_TCP_FIN_WAIT_1 = 5,
	MS_TCP_FIN_WAIT_2 = 6,
	MS_TCP_CLOSE_WAIT = 7,
	MS_TCP_CLOSING = 8,
	MS_TCP_LAST_ACK = 9,
	MS_TCP_TIME_WAIT = 10,
};

/* Direction index of every per-direction array. */
enum ms_direction {
	MS_TO_SERVER = 0,
	MS_TO_CLIENT = 1,
};

/* How a session ended. */
enum ms_end {
	MS_END_CLOSED = 1,
	MS_END_RESET = 2,
	MS_END_TIMEOUT = 3,
	MS_END_REPLACED = 4, /* a new SYN on the same ports */
	MS_END_REMOVED = 5,  /* by the operator */
};

/* ms_session.flags: set at creation, so that no two CPUs write one word; but for the last. */
enum ms_session_flag {
	MS_SESSION_SERVER_IS_A = 1, /* the key's first endpoint is the server */
	MS_SESSION_MIDSTREAM = 2,   /* created without its SYN */
	MS_SESSION_HOST = 4,	    /* one endpoint is the gateway itself */
	MS_SESSION_LOGGED = 8,	    /* a verdict record was written: write `end` too */
};

/* Zones, sets of interfaces, by number. */
enum ms_zone {
	MS_ZONE_UNKNOWN = 0, /* not looked up: the policy did not ask */
	MS_ZONE_NONE = 1,    /* an interface in no zone */
	MS_ZONE_HOST = 2,    /* the gateway itself */
	MS_ZONE_FIRST = 3,   /* those of gateway.yaml in order; what they mean is fixed while the daemon runs */
};

/* Which way a flow goes by the gateway, 1 << value is its bit in a condition. */
enum ms_course {
	MS_COURSE_THROUGH = 0,
	MS_COURSE_TO_HOST = 1,
	MS_COURSE_FROM_HOST = 2,
};

/* ms_rule.flags */
enum ms_rule_flag {
	MS_RULE_MONITOR = 1, /* record, drop nothing */
	MS_RULE_RESET = 2,   /* deny_with: reset */
	MS_RULE_LOG_DENY = 4,
	MS_RULE_LOG_ALL = 8,
	MS_RULE_FILES = 16,	 /* an inspect rule that names rule files */
	MS_RULE_DOWN_ALLOW = 32, /* on_inspector_down: allow */
	MS_RULE_IDENTIFY = 64,	 /* inspect without rule files: identify, then walk again */
};

/* Exceptions with a policy of their own, index into ms_config.exceptions. */
enum ms_exception {
	MS_EXCEPTION_MIDSTREAM = 0,
	MS_EXCEPTION_NEED_MORE = 1,
	MS_EXCEPTION_PARSE_ERROR = 2,
	MS_EXCEPTION_REASSEMBLY_LIMIT = 3,
	MS_EXCEPTION_OVERLAP_CONFLICT = 4,
	MS_EXCEPTION_FRAGMENT = 5,
	MS_EXCEPTION_TABLE_FULL = 6,
	MS_EXCEPTION_INSPECTOR_DOWN = 7,
	MS_EXCEPTION_PATTERN_BUDGET = 8,
	MS_EXCEPTION_ECH = 9,
	MS_EXCEPTION_MAX = 10,
};

/* Timeouts in ms_config.timeouts, in jiffies. */
enum ms_timeout {
	MS_TIMEOUT_SYN = 0,
	MS_TIMEOUT_ESTABLISHED = 1,
	MS_TIMEOUT_CLOSING = 2,
	MS_TIMEOUT_TIME_WAIT = 3,
	MS_TIMEOUT_UDP = 4,	   /* one side only */
	MS_TIMEOUT_UDP_STREAM = 5, /* both sides */
	MS_TIMEOUT_ICMP = 6,
	MS_TIMEOUT_OTHER = 7,
	MS_TIMEOUT_MAX = 8,
};

/* Statistics, one per-CPU counter each; drops are counted by reason besides. */
enum ms_stat {
	MS_STAT_PACKETS = 0, /* packets judged, gso_segs each */
	MS_STAT_BYTES = 1,
	MS_STAT_FAST = 2, /* packets that the kernel forwarded by itself */
	MS_STAT_HELD = 3, /* packets that went to the inspector */
	MS_STAT_RELEASED = 4,
	MS_STAT_INSERTS = 5,
	MS_STAT_DELETES = 6,
	MS_STAT_INSERT_FAILURES = 7,
	MS_STAT_REJUDGED = 8,
	MS_STAT_OFFLOADED = 9, /* sessions handed back by the inspector */
	MS_STAT_IDENTIFIED = 10,
	MS_STAT_EVENTS_LOST = 11,
	MS_STAT_RESETS = 12,
	MS_STAT_DRAIN_LIMIT = 13,
	MS_STAT_NEIGHBOUR = 14, /* ARP, neighbour discovery and link-layer control */
	MS_STAT_FRAGMENTS = 16,
	MS_STAT_MONITORED = 17,	  /* packets that only monitor mode let pass */
	MS_STAT_DRAINS = 19,	  /* hand-overs completed */
	MS_STAT_ACCELERATED = 24, /* packets sent on past the host's stack */
	/* TCP segments that changed nothing, in the order of MS_REASON_TCP_*, passed or dropped. */
	MS_STAT_TCP_STATE = 25,
	MS_STAT_TCP_SEQUENCE = 26,
	MS_STAT_TCP_ACK = 27,
	MS_STAT_TCP_RESET = 28,
	MS_STAT_TCP_SYN = 29,
	MS_STAT_TCP_FIN = 30,
	MS_STAT_ETHERTYPE = 31, /* neither IP nor ARP, passed as the policy's `ethertypes` say */
	MS_STAT_MAX = 32,
};

/* How full the session table is. */
enum ms_pressure {
	MS_PRESSURE_NONE = 0,
	MS_PRESSURE_WARN = 1, /* 70 % */
	MS_PRESSURE_HIGH = 2, /* 90 %: allowed sessions, and UDP that may be DNS */
	MS_PRESSURE_FULL = 3, /* 98 %: allowed packets pass without a session */
};

enum ms_event_kind {
	MS_EVENT_VERDICT = 1,
	MS_EVENT_END = 2,
	MS_EVENT_DROP = 3, /* a packet that belongs to no session */
};

enum ms_op {
	MS_OP_NOW = 1,	     /* clocks only */
	MS_OP_JUDGE = 2,     /* walk the policy with `possible`, stamp the session */
	MS_OP_VERDICT = 3,   /* store `verdict` */
	MS_OP_DELETE = 4,    /* if not used since `last_jiffies` */
	MS_OP_WALK = 5,	     /* walk the policy for `key`, touch nothing */
	MS_OP_DISCARD = 6,   /* `count` held frames of direction `direction` will not come back */
	MS_OP_HEARTBEAT = 7, /* the inspector lives */
	MS_OP_CLOSE = 8,     /* end it as the operator wants: TCP is refused from now on, the rest deleted */
};

enum ms_status {
	MS_STATUS_OK = 0,
	MS_STATUS_NO_SESSION = 1,
	MS_STATUS_STALE_ID = 2,
	MS_STATUS_STALE_REVISION = 3,
	MS_STATUS_USED = 4, /* a packet came since last_jiffies */
	MS_STATUS_BAD_OP = 5,
	MS_STATUS_NO_POLICY = 6,
};

/* One 64-bit word, stored once and so never seen half-written:
 * bits 0-3 verdict, 4-5 scope, 6 monitor, 7 reset, 8-15 reason, 16-39 rule (0 = default, else 1 + index in the
 * revision's rules, behind which stand the defaults of pairs of zones), 40-63 revision. */
enum ms_word {
	MS_WORD_SCOPE = 4,
	MS_WORD_MONITOR = 6,
	MS_WORD_RESET = 7,
	MS_WORD_REASON = 8,
	MS_WORD_RULE = 16,
	MS_WORD_REVISION = 40,
};

enum ms_limit {
	MS_POLICY_CANDIDATES = 512, /* of one walk, in all its lists */
	MS_POLICY_LISTS = 64,	    /* of one walk */
	MS_POLICY_PAGE = 65536,	    /* words */
	MS_POLICY_RULES = 1048575,  /* whose numbers stand in 20 bits */
	MS_POLICY_ETHERTYPES = 16,
	MS_APPLY_BATCH = 30,  /* commands in one apply call */
	MS_APPLY_OFFSET = 16, /* commands start behind a dummy link header */
	MS_SCAN_BYTES = 1024, /* of a first payload that the kernel looks at */
	MS_FAILSAFE_PORTS = 16,
	MS_DRAIN_PACKETS = 256,
	MS_FRAGMENT_PIECES = 64,  /* later fragments of one datagram */
	MS_FRAGMENT_UNITS = 8192, /* 65,536 bytes */
	MS_MANAGED_NEAR = 4,	  /* managed interfaces that the settings themselves name */
	MS_HOPS = 8192,		  /* next hops, a power of two */
	MS_HOP_TICK = 6,	  /* a tick of the hop clock is 2^6 jiffies */
	MS_HITS_SLOTS = 8,	  /* revisions whose rules have counters, a power of two */
};

/* Slots of the prog array. */
enum ms_prog {
	MS_PROG_INGRESS = 0, /* again, with the headers pulled into the linear part */
	MS_PROG_EGRESS = 1,
	MS_PROG_JUDGE = 2,
	MS_PROG_IDENTIFY = 3,
	MS_PROG_RESET = 4,
	MS_PROG_DECIDE = 5,
	MS_PROG_TCP = 6,
	MS_PROG_ROUTE = 7,
	MS_PROG_ACCELERATE = 8,
	MS_PROG_POLICY = 9,
	MS_PROG_SETTLE = 10,
	MS_PROG_DECIDED = 11,
	MS_PROG_MAX = 16,
};

/* Both directions of a flow have one key: the lower (address, port) is `a`.
 * IPv4 addresses are mapped (::ffff:0:0/96).
 *
 * ICMP: the asking endpoint's port is the identifier of a query, 0 of another message; the other's is type << 8 | code
 * of what was asked, also where a reply is in hand. So a flow's messages are of one type and its reply, and a session
 * is judged by what opened it, whoever of the two sends the next one. */
struct ms_key {
	__u8 addr_a[16];
	__u8 addr_b[16];
	__u16 port_a; /* network order */
	__u16 port_b;
	__u8 l4; /* IP protocol number */
	__u8 zone;
	__u16 a_asks; /* ICMP: 1 if `a` does, as the two ports may be the same number */
};

/* With the kernel's 48 bytes in front and the key, four cache lines: of one packet's way all fields lie in
 * the first three. A field of a direction is written by the packets of that direction alone, but for `edge`. */
struct ms_session {
	__u64 verdict; /* enum ms_word */
	__u64 last_jiffies;
	__u64 packets[2]; /* enum ms_direction */
	__u8 tcp[2];	  /* enum ms_tcp */
	__u8 flags;	  /* enum ms_session_flag */
	__u8 timeout;	  /* enum ms_timeout */
	__u8 scale[2];	  /* shift of the windows that the direction's sender announces (RFC 7323 2.2) */
	__u8 provisional; /* 1 + direction identified and not acknowledged yet */
	__u8 told; /* bit 0: far side of a denied flow was reset; bit 1 + direction: held at egress; bit 3 + direction: drained */

	__u64 bytes[2]; /* IP bytes */
	__u32 end[2];	/* behind the last sequence number that the direction sent; host order, as all numbers of TCP */
	__u32 ack[2];	/* highest acknowledgment that the direction's sender sent: what it expects next */
	__u32 edge[2];	/* right edge of the window that the other side opened for the direction */
	__u16 window[2]; /* largest window that the direction's sender announced, before `scale` */
	__u32 hop[2];	 /* next hop of the direction (enum ms_hop_word), 0 = not looked up */
	__u32 isn[2];
	__u32 ident_end; /* sequence number behind the identified bytes */

	__u64 id;
	__u64 first_ns;	   /* CLOCK_MONOTONIC; as of the last tick where no record asks for it */
	__u32 held[2];	   /* frames that went to the inspector */
	__u32 released[2]; /* and came back, or were discarded by it */
	__u32 ifindex[2];  /* where frames of the direction are held */
	__u32 stamp;   /* when the hand-over began, low half; of an ending connection TSval of its last FIN, 0 = none */
	__u32 syn;     /* sequence number of a SYN in the midst of the connection (RFC 5961 4), 0 = none */
	__u16 cpu[2];  /* that held frames of the direction come back to */
	__u16 vlan[2]; /* outer, inner tag of the first packet, 0 = none */
	__u32 rule_hash; /* of the rule that judged */
	__u8 protocol;	 /* enum ms_protocol */
	__u8 first_protocol;
	__u8 zones[2]; /* enum ms_zone: where packets of the direction go */
};

/* A session's next hop: bits 0-15 number in `hops` (0 = none: the stack's way), 16-31 hop clock of the lookup. */
enum ms_hop_word {
	MS_HOP_NUMBER = 0xffff,
	MS_HOP_CLOCK = 16,
};

/* Where packets that came in at `from` go on. All but `turn` is written once. */
struct ms_hop {
	__u32 link[3]; /* destination and source address, as they stand in the frame */
	__u32 from;    /* ifindex */
	__u32 ifindex;
	__u32 mtu;
	__u32 turn; /* hop clock of the last packet that was left to the stack */
	__u32 pad;
};

/*
 * What a policy is compiled to lies in pages of 32-bit words. A location is page << 16 | word; 0 is none. At the
 * beginning stands struct ms_policy, behind it the rules, rule 0 being the default, then all else.
 *
 *   index      from a key to the value of the last entry whose key is not above it, the first being 0. Nodes of 16
 *              words, one cache line each: a leaf has eight entries, keys less one in words 0 to 7 (word 0 counts as
 *              below every key), values in words 8 to 15. An inner node has a reference to its first child in word 0,
 *              the others lie behind that one, and what each of them begins with, less one, in words 1 to 15. Unused
 *              keys are all ones. References are locations, of which the low bits, 0 else, say how many levels of
 *              nodes there are (MS_INDEX_DEPTH), and for values that the next word of the address is to be
 *              looked up there (MS_INDEX_ON)
 *   class      of an address, where the indices of the addresses lead: struct ms_class; then references of the
 *              indices by enum ms_policy_key, those by destination first, which lead to lists; then its sets, in
 *              buckets of four words
 *   list       blocks of candidates in the order of the rules; what is left of the last one are rules MS_NO_RULE
 *   where      struct ms_where, the conditions of rules on zones, courses and VLAN tags; behind it, where there is one
 *              on tags, a bit for each VLAN id, 0 being no tag
 *   defaults   a row for each zone that packets come from, and in it for each that they go to the number of the rule
 *              that decides where no other does
 */
struct ms_policy {
	__u32 ipv4; /* index of the address */
	__u32 ipv6; /* index of its first word */
	__u32 asks_for_zones;
	__u32 defaults; /* 0: rule 0 decides wherever no other does */
	__u32 zones;	/* in a row of it */
	__u32 unused[3];
	__u16 ethertypes[MS_POLICY_ETHERTYPES]; /* that pass, 0 = none */
};

struct ms_rule {
	__u32 apps; /* mask of 1 << ms_protocol, all ones = any */
	__u32 hash;
	__u8 action;
	__u8 flags;
	__u16 pad;
	__u32 where; /* 0: wherever the packet comes from and goes to */
	__u32 unused[4];
};

/* All of it must hold. */
struct ms_where {
	__u32 from_zones[8]; /* a bit for each */
	__u32 to_zones[8];
	__u32 courses; /* enum ms_course */
	__u32 vlans;   /* 0: any, else how many words behind the record's beginning a bit for each VLAN id is */
	__u32 unused[14];
};

/* Sets of addresses have numbers from 1 on. Those that hold the class's addresses stand in buckets: the number
 * n in that of number (__u32)(n * spread) >> shift. Where bit n % 64 of the signature is not set, n is in none. */
struct ms_class {
	__u64 signature;
	__u32 spread;
	__u32 shift;	      /* 32 for the only bucket */
	__u32 by_destination; /* indices of rules, for packets to the address */
	__u32 by_source;      /* for packets from it */
	__u32 unused[2];
};

/* Eight rules, one cache line; each holds if the other address, too, is in a set, 0 = whatever it is. The last rule's
 * highest bit says that another block follows. */
struct ms_block {
	__u32 sets[8];
	__u32 rules[8];
};

enum ms_index {
	MS_INDEX_DEPTH = 7,
	MS_INDEX_ON = 8,
	MS_INDEX_NODE = 16, /* words */
	MS_INDEX_LEVELS = 6,
};

/* Counters of a rule of one revision. A difference modulo 2^64 (bpf/lib/hits.h): with what the live sessions count it
 * is what the rule judged. */
struct ms_hits {
	__u64 sessions;
	__u64 packets;
	__u64 bytes;
	__u32 revision;
	__u32 pad;
};

/* Numbers of the counters of a revision. */
enum ms_hits_number {
	MS_HITS_HOST = 0,  /* the gateway's own traffic and its failsafe ports, where no rule decided */
	MS_HITS_LOST = 1,  /* sessions that ended under a revision whose counters were gone */
	MS_HITS_RULES = 2, /* + rule number of a word */
};

enum ms_policy_key {
	MS_KEY_TCP = 0, /* + port */
	MS_KEY_UDP = 65536,
	MS_KEY_ICMP = 131072, /* + type << 8 | code */
	MS_KEY_ICMPV6 = 196608,
	MS_KEY_OTHER = 262144, /* + IP protocol */
	MS_KEY_MAX = 262400,
};

struct ms_config {
	__u32 revision; /* its lowest bit selects the policy slot; 0 = none */
	__u32 tap_ifindex;
	__u32 mark_mask;
	__u32 mark_judged;
	__u32 managed[MS_MANAGED_NEAR]; /* ifindexes of the first interfaces, 0 = none */
	__u32 managed_far;		/* 1: there are more, in the map `managed` */
	__u32 route_mtu;		/* the smallest that a route names, 0 = none does */
	__u64 timeouts[MS_TIMEOUT_MAX]; /* jiffies */
	__u64 inspector_timeout;	/* jiffies without a heartbeat until it counts as gone */
	__u64 drain_timeout;
	__u64 capacity;			   /* of the session table */
	__u8 exceptions[16];		   /* enum ms_action by enum ms_exception */
	__u16 failsafe[MS_FAILSAFE_PORTS]; /* TCP, host order, 0 = none */
	__u8 monitor;			   /* 1: what no session vouches for passes too (monitor mode) */
	__u8 pressure;			   /* enum ms_pressure, measured by the daemon */
	__u8 strict_tcp;		   /* 1: segments that change nothing are dropped */
	__u8 hop_age;	 /* how long a looked-up next hop holds, in ticks of the hop clock; 0 = no acceleration */
	__u16 hop_clock; /* added to the hop clock: what turns it on makes every hop old */
	__u16 pad;
	__u64 fragment_timeout; /* jiffies from a first fragment to its last */
	__u32 zoned_since;	/* zones in sessions of earlier revisions mean nothing any more */
	__u32 unused;
};

/* Key and value of the fragments map: later fragments follow their first. */
struct ms_fragment_key {
	__u8 src[16];
	__u8 dst[16];
	__u32 id;
	__u32 l4;
};

/* What of the datagram is still missing are its holes (RFC 815), in units of eight bytes; one without an
 * end known ends at MS_FRAGMENT_UNITS. */
struct ms_fragment {
	__u64 jiffies;				       /* of the first fragment */
	__u64 id;				       /* of its session, 0 = allowed without one */
	struct ms_key key;			       /* of its session */
	__u16 hole[4] __attribute__((aligned(8)));     /* where it begins */
	__u16 hole_end[4] __attribute__((aligned(8))); /* behind it; the same: none */
	__u32 revision;
	__u16 first_end; /* of the first fragment */
	__u8 pieces;	 /* later fragments seen */
	__u8 refused;	 /* enum ms_reason: none of it goes on */
	__u8 allowed;	 /* the first went on */
	__u8 pad[3];
	__u32 seq; /* TCP: the sequence number of the datagram's first byte, if the header's bytes had one each */
};

/* One record of the `events` ring buffer. */
struct ms_event {
	__u64 ns; /* CLOCK_MONOTONIC */
	struct ms_key key;
	struct ms_session session;
	__u8 kind;
	__u8 end;
	__u8 reason;
	__u8 pad[5];
};

/* One command to the `apply` program; it answers in place. */
struct ms_command {
	__u32 op;
	__u32 status;
	struct ms_key key;
	__u64 id;	    /* session id the command is meant for */
	__u64 verdict;	    /* in: word to store; out: the session's word */
	__u64 last_jiffies; /* in: DELETE's expectation; out: now */
	__u64 ns;	    /* out: CLOCK_MONOTONIC */
	__u32 revision;	    /* in: revision judged under; out: current */
	__u32 possible;	    /* protocols it may still be, mask */
	__u8 protocol;	    /* VERDICT: protocol to store, 0 = keep */
	__u8 first_protocol;
	__u8 direction;
	__u8 end; /* DELETE: enum ms_end */
	__u32 count;
	__u32 rule_flags; /* out: flags of the rule that judged */
	__u16 vlan;	  /* WALK: the outer tag, 0 = none */
	__u8 zones[2];	  /* WALK: as in the session */
};

#define MS_ASSERT(name, test) _Static_assert(test, name)
MS_ASSERT("key is 40 bytes", sizeof(struct ms_key) == 40);
MS_ASSERT("an element is four cache lines", 48 + sizeof(struct ms_key) + sizeof(struct ms_session) == 256);
MS_ASSERT("what a hit needs lies in the first three", __builtin_offsetof(struct ms_session, id) == 104);
MS_ASSERT("a hop's constant part is three words", __builtin_offsetof(struct ms_hop, turn) == 24);
MS_ASSERT("reasons are masked", (MS_REASON_MAX & (MS_REASON_MAX + 1)) == 0);
MS_ASSERT("commands fit one page", MS_APPLY_OFFSET + MS_APPLY_BATCH * sizeof(struct ms_command) <= 3520);

#endif

"""Hostile input, an attack a file, each driven through the whole inspector from frames: what counts is the verdict,
and that no byte that decides it went on before it.

| attack | file |
|---|---|
| a request split at every byte | test_split.py |
| overlapping segments with different content | test_overlaps.py |
| out-of-order handshakes | test_handshakes.py |
| HPACK bombs, CONTINUATION floods, rapid reset, other floods of HTTP/2 | test_http2_floods.py |
| request smuggling | test_smuggling.py, test_smuggling_http2.py; against real servers test_smuggling_servers.py |
| slow headers, and all else that is slow | test_slow.py |
| DNS compression loops and counts that lie | test_dns.py |
| lying lengths in every binary protocol | test_lengths.py |
| protocol switches in mid-connection | test_switches.py |
| a second protocol behind a valid first request | test_second_protocol.py |
| commands that are done before it is known whose they are | test_shared_commands.py |
| bodies of 1 GB | test_large.py |

What parsers by themselves make of single malformed messages is in tests/unit/parsers, what they have in common (any
cut, any damage, any length without end) in tests/contract, and any bytes at all in tests/fuzz.
"""

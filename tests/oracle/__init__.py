"""What a policy means, told twice: `meaning` reads the document itself and uses nothing of the product; `documents`
makes policies and packets on which two readings would differ first.
"""

from tests.oracle.documents import draw_document, draw_packets
from tests.oracle.meaning import Answer, Packet, judge, matching

__all__ = ["Answer", "Packet", "draw_document", "draw_packets", "judge", "matching"]

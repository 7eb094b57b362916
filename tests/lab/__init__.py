"""The lab: a client, a gateway and a server namespace with real servers and real clients.

Shared by ``./run``, the tests on real interfaces and the bench. Needs root.
"""

from tests.lab.namespaces import Lab, LabError, Namespace

__all__ = ["Lab", "LabError", "Namespace"]

"""One load of the programs for all kernel tests; every test finds it as if just loaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf.harness import Flow, Kernel


@pytest.fixture(scope="session")
def loaded() -> Iterator[Kernel]:
    """Compiled, loaded and pinned under a pin root of its own."""
    kernel = Kernel()
    try:
        yield kernel
    finally:
        kernel.close()


@pytest.fixture
def kernel(loaded: Kernel) -> Kernel:
    """No session, default settings; some policy."""
    loaded.reset()
    return loaded


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    """IP version."""
    found: int = request.param
    return found


@pytest.fixture
def flow(version: int) -> Flow:
    """The client's connection to port 80 of the server."""
    return Flow(version)

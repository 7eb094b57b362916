"""With root everything runs and a skip is a failure; without root, tests marked `root` are
left out and listed, so that nobody takes a partial run for a whole one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.lab import Lab

PRIVILEGED = os.geteuid() == 0
LEFT_OUT = pytest.StashKey[list[str]]()
# A plain list: collection reports, which also skip, know no config.
SKIPPED: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = []
    SKIPPED.clear()
    # How long something takes on a busy machine is no property of the code.
    settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any-machine")
    # A shell's background job ignores it, and so would every process that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if PRIVILEGED:
        return
    left_out = [item for item in items if item.get_closest_marker("root")]
    config.stash[LEFT_OUT] = [item.nodeid for item in left_out]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("root")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        SKIPPED.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    # A module that skips itself has no tests that could.
    if report.skipped:
        SKIPPED.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if PRIVILEGED and SKIPPED and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash[LEFT_OUT]
    if left_out:
        terminalreporter.section(f"{len(left_out)} tests need root and did not run")
        for nodeid in left_out:
            terminalreporter.line(nodeid)
    if PRIVILEGED and SKIPPED:
        terminalreporter.section(f"{len(SKIPPED)} skipped as root, which is a failure", red=True)
        for nodeid in SKIPPED:
            terminalreporter.line(nodeid)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab of its own; for tests marked `root`."""
    with Lab() as one:
        yield one

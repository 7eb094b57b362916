"""Policy revisions in the kernel: two slots, the lowest bit of the revision selects one.

A packet reads the revision once and walks that slot, so it sees the old policy or the
new one and never a mixture: a revision is written to the slot that nobody reads, then
announced in one word.
"""

from __future__ import annotations

import sys

from fastpath import abi
from fastpath.config import Config
from fastpath.hits import Counters, Slots
from fastpath.libbpf import Map
from fastpath.loader.pins import HITS, Pins
from fastpath.policy.compiler.tables import Tables
from fastpath.word import REVISION_MAX

_ZERO = bytes(4)


class Revisions:
    """Writes settings and policy of one gateway."""

    def __init__(self, pins: Pins, hertz: int) -> None:
        self._config = pins.map("config")
        self._slots = pins.map("pol_page")
        self._hits = Slots(pins.map(HITS))
        self._hertz = hertz
        raw = self._config.lookup(_ZERO)
        assert raw is not None
        self.settings = abi.Config.from_buffer_copy(raw)
        self._begun = False

    @property
    def revision(self) -> int:
        """Current revision, 0 before the first."""
        return int(self.settings.revision)

    def configure(self, config: Config, tap_ifindex: int) -> None:
        """Settings other than the policy."""
        s = self.settings
        s.tap_ifindex = tap_ifindex
        s.mark_mask = config.mark.mask
        s.mark_judged = config.mark.value
        for timeout in abi.Timeout:
            if timeout is not abi.Timeout.MAX:
                s.timeouts[timeout] = self._jiffies(config.timeouts[timeout.name.lower()])
        s.fragment_timeout = self._jiffies(config.timeouts["fragment"])
        s.inspector_timeout = self._jiffies(config.inspection.timeout)
        s.drain_timeout = self._jiffies(config.inspection.drain)
        s.capacity = config.capacity
        s.strict_tcp = config.strict_tcp
        for exception in abi.Exception:
            name = exception.name.lower()
            if exception is not abi.Exception.MAX:
                s.exceptions[exception] = config.exception(name)
        s.failsafe[:] = [*config.failsafe, *([0] * (abi.Limit.FAILSAFE_PORTS - len(config.failsafe)))]
        self._write()

    def manage(self, indexes: list[int]) -> None:
        """The interfaces that are judged; the map `managed` holds all of them."""
        near = [*indexes, *([0] * abi.Limit.MANAGED_NEAR)][: abi.Limit.MANAGED_NEAR]
        far = len(indexes) > abi.Limit.MANAGED_NEAR
        if (list(self.settings.managed), bool(self.settings.managed_far)) != (near, far):
            self.settings.managed[:] = near
            self.settings.managed_far = far
            self._write()

    def press(self, pressure: abi.Pressure) -> None:
        """How full the session table is."""
        if self.settings.pressure != pressure:
            self.settings.pressure = pressure
            self._write()

    def accelerate(self, *, on: bool) -> None:
        """Whether allowed packets may go past the host's stack. A next hop holds for about a second."""
        age = max(2, self._hertz >> abi.Limit.HOP_TICK) if on else 0
        if self.settings.hop_age != age:
            self.settings.hop_age = age
            self.age_hops()

    def limit(self, mtu: int) -> None:
        """Longer packets are not accelerated; 0: what fits the link is."""
        if self.settings.route_mtu != mtu:
            self.settings.route_mtu = mtu
            self.age_hops()

    def age_hops(self) -> None:
        """Every next hop is looked up anew."""
        self.settings.hop_clock = (self.settings.hop_clock + self.settings.hop_age) & 0xFFFF
        self._write()

    def next(self, floor: int = 0) -> int:
        """The revision after the present one, above `floor`; its slot is the one that no packet reads."""
        revision = max(self.revision, floor) + 1
        if self.revision and (revision & 1) == (self.revision & 1):
            revision += 1
        return revision if revision <= REVISION_MAX else 2 - (self.revision & 1)

    def apply(self, tables: Tables, revision: int) -> Counters | None:
        """Make a policy current under a revision that `next` gave; the counters of an older one that its own take the
        place of. On any error the present one stays.
        """
        slot = (revision & 1).to_bytes(4, sys.byteorder)
        values = list(tables.page_values())
        pages = Map.array("pol_page", b"".join(values), len(values))
        self._slots.update(slot, pages.fd.to_bytes(4, sys.byteorder))
        replaced = self._hits.replace(revision, tables.policy.last)
        self.settings.revision = revision
        if not self._begun:
            # The zones of whoever was here before may have been others.
            self.settings.zoned_since, self._begun = revision, True
        self.settings.monitor = tables.policy.default.monitor
        self._write()
        return replaced

    def retire(self) -> None:
        """Free the slot of the revision before; a grace period after `apply`."""
        slot = (~self.revision & 1).to_bytes(4, sys.byteorder)
        self._slots.delete(slot)

    def _jiffies(self, seconds: float) -> int:
        return max(1, round(seconds * self._hertz))

    def _write(self) -> None:
        self._config.update(_ZERO, bytes(self.settings))

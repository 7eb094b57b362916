"""Network namespaces with two segments and a gateway between them.

    PREFIX-client  eth0 ── seg0  PREFIX-gw  seg1 ── eth0  PREFIX-server

`ip netns exec` remounts /sys and so hides bpffs. Here every namespace has one
process that holds a mount namespace of its own, in which /sys shows the
namespace's interfaces and /sys/fs/bpf is still the host's; `spawn` enters both
with one nsenter, which costs a few milliseconds.

A lab leaves a state file while it lives. One whose owner is gone (killed with
SIGKILL, say) is removed by the next lab; what runs in its namespaces is known
by the namespace, so nothing else can be hit.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

T = TypeVar("T")

STATE = Path("/run/microseg-lab")
NETNS = Path("/run/netns")
BPFFS = Path("/sys/fs/bpf")
ROOT = Path(__file__).resolve().parent.parent.parent
# What survives between runs: keys, an initialised database.
CACHE = ROOT / ".cache" / "lab"
# Compiled programs, for all gateways of the lab and all tests.
PROGRAMS = ROOT / ".cache" / "programs"

CLONE_NEWNET = 0x40000000
STOP_TIMEOUT = 3.0

# Runs once per namespace, in its own mount namespace, and then holds both open.
# $1 is an empty folder. Duplicate address detection would leave IPv6 unusable for a second.
HOLD = """
set -e
mount --bind /sys/fs/bpf "$1"
mount -t sysfs sysfs /sys
mount --bind "$1" /sys/fs/bpf
umount "$1"
for conf in all default; do
    echo 0 > /proc/sys/net/ipv6/conf/$conf/accept_dad
    echo "$2" > /proc/sys/net/ipv6/conf/$conf/forwarding
done
echo "$2" > /proc/sys/net/ipv4/ip_forward
ip link set lo up
echo ready
exec sleep infinity
"""


class LabError(Exception):
    """The lab could not be built, or something in it did not start."""


class Namespace(enum.StrEnum):
    """The three places of a lab."""

    CLIENT = "client"
    GATEWAY = "gw"
    SERVER = "server"


class Address(enum.StrEnum):
    """Who has which address."""

    CLIENT4 = "10.77.1.2"
    CLIENT6 = "fd77:1::2"
    GATEWAY_CLIENTS4 = "10.77.1.1"
    GATEWAY_CLIENTS6 = "fd77:1::1"
    GATEWAY_SERVERS4 = "10.77.2.1"
    GATEWAY_SERVERS6 = "fd77:2::1"
    SERVER4 = "10.77.2.2"
    SERVER6 = "fd77:2::2"


def started_at(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def ip(*commands: str, namespace: str | None = None) -> None:
    """Run `ip` commands, one a string, in one process."""
    argv = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(argv, input="\n".join(commands) + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"ip: {done.stderr.strip()}")


def processes_in(namespaces: set[int]) -> list[int]:
    """Processes whose network namespace is one of these inodes, ourselves excluded."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if (entry / "ns" / "net").stat().st_ino in namespaces:
                found.append(int(entry.name))
    return found


def pin_root(prefix: str) -> Path:
    """Where a lab's gateway pins its programs."""
    return BPFFS / f"microseg-{prefix}"


def remove(prefix: str, directory: Path) -> None:
    """Kill what runs in a lab's namespaces, delete them, its folder, its gateway's pins and its state file."""
    files = [NETNS / f"{prefix}-{namespace}" for namespace in Namespace]
    # A name whose namespace is not mounted (killed in between) is an empty file with an inode
    # of another file system, which says nothing.
    device = Path("/proc/self/ns/net").stat().st_dev
    inodes = {file.stat().st_ino for file in files if file.exists() and file.stat().st_dev == device}
    deadline = time.monotonic() + STOP_TIMEOUT
    # Again and again: a server may be starting a process while it is killed.
    while inodes and (pids := processes_in(inodes)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise LabError(f"lab {prefix}: processes {pids} do not die")
        time.sleep(0.005)
    for file in files:
        if file.exists():
            subprocess.run(["ip", "netns", "delete", file.name], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(pin_root(prefix), ignore_errors=True)
    (STATE / f"{prefix}.json").unlink(missing_ok=True)


@contextlib.contextmanager
def state_lock() -> Iterator[None]:
    """Only one lab at a time is created or swept."""
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep() -> list[str]:
    """Remove labs whose owner is gone; returns their prefixes. Call under `state_lock`."""
    removed = []
    for file in sorted(STATE.glob("*.json")):
        try:
            state = json.loads(file.read_text())
            owner, started, directory = int(state["pid"]), int(state["started"]), Path(state["directory"])
        except (ValueError, KeyError, TypeError):
            owner, started, directory = 0, 0, STATE / file.stem
        if owner and started_at(owner) == started:
            continue
        remove(file.stem, directory)
        removed.append(file.stem)
    return removed


def mount_bpffs() -> None:
    """Mount bpffs where everybody expects it, if it is not there."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    if not any(line.split()[1:3] == [str(BPFFS), "bpf"] for line in lines):
        done = subprocess.run(["mount", "-t", "bpf", "bpf", BPFFS], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"cannot mount bpffs: {done.stderr.strip()}")


class Lab:
    """A lab, from `with` to its end. `directory` is its own, and removed with it."""

    def __init__(self) -> None:
        self.prefix = ""
        self.directory = Path()
        self.swept: list[str] = []
        self._children: list[subprocess.Popen[Any]] = []
        self._holders: dict[Namespace, int] = {}

    def __enter__(self) -> Self:
        if os.geteuid():
            raise LabError("the lab needs root")
        mount_bpffs()
        with state_lock():
            self.swept = sweep()
            self._claim()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _claim(self) -> None:
        while True:
            self.prefix = f"ms{secrets.token_hex(2)}"
            file = STATE / f"{self.prefix}.json"
            if not file.exists() and not any(NETNS.glob(f"{self.prefix}-*")):
                break
        self.directory = Path(tempfile.gettempdir()) / f"microseg-lab-{self.prefix}"
        state = {"pid": os.getpid(), "started": started_at(os.getpid()), "directory": str(self.directory)}
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.rename(file)
        # Root's alone: it holds private keys.
        self.directory.mkdir(mode=0o700)

    def _build(self) -> None:
        ip(*(f"netns add {self.netns(namespace)}" for namespace in Namespace))
        holders = {namespace: self._hold(namespace) for namespace in Namespace}
        for namespace, holder in holders.items():
            assert holder.stdout is not None
            if holder.stdout.readline() != b"ready\n":
                raise LabError(f"namespace {namespace}: {(self.directory / f'hold-{namespace}.log').read_text()}")
            holder.stdout.close()
            self._holders[namespace] = holder.pid
        client, gateway, server = (self.netns(namespace) for namespace in Namespace)
        ip(
            f"link add seg0 netns {gateway} type veth peer name eth0 netns {client}",
            f"link add seg1 netns {gateway} type veth peer name eth0 netns {server}",
        )
        ip(
            f"address add {Address.GATEWAY_CLIENTS4}/24 dev seg0",
            f"address add {Address.GATEWAY_CLIENTS6}/64 dev seg0 nodad",
            f"address add {Address.GATEWAY_SERVERS4}/24 dev seg1",
            f"address add {Address.GATEWAY_SERVERS6}/64 dev seg1 nodad",
            "link set seg0 up",
            "link set seg1 up",
            namespace=gateway,
        )
        for place, own, via in (
            (client, (Address.CLIENT4, Address.CLIENT6), (Address.GATEWAY_CLIENTS4, Address.GATEWAY_CLIENTS6)),
            (server, (Address.SERVER4, Address.SERVER6), (Address.GATEWAY_SERVERS4, Address.GATEWAY_SERVERS6)),
        ):
            ip(
                f"address add {own[0]}/24 dev eth0",
                f"address add {own[1]}/64 dev eth0 nodad",
                "link set eth0 up",
                f"route add default via {via[0]}",
                f"route add ::/0 via {via[1]}",
                namespace=place,
            )

    def _hold(self, namespace: Namespace) -> subprocess.Popen[bytes]:
        scratch = self.directory / f"bpffs-{namespace}"
        scratch.mkdir()
        forwarding = "1" if namespace is Namespace.GATEWAY else "0"
        with (self.directory / f"hold-{namespace}.log").open("wb") as log:
            holder = subprocess.Popen(
                [
                    *(
                        "nsenter",
                        f"--net={NETNS / self.netns(namespace)}",
                        "unshare",
                        "--mount",
                        "--propagation",
                        "slave",
                    ),
                    *("sh", "-c", HOLD, "hold", str(scratch), forwarding),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(holder)
        return holder

    def netns(self, namespace: Namespace) -> str:
        """Name of the network namespace, as `ip netns` lists it."""
        return f"{self.prefix}-{namespace}"

    def enter(self, namespace: Namespace, argv: Sequence[str | Path], cwd: Path | None = None) -> list[str]:
        """Command line that runs `argv` inside; nsenter replaces itself, so its pid is the program's."""
        holder = self._holders[namespace]
        place = cwd or Path.cwd()
        # --root: entering a mount namespace leaves a chroot, should we be in one.
        command = ["nsenter", f"--target={holder}", "--net", "--mount", "--root", f"--wdns={place}", "--"]
        return command + [str(argument) for argument in argv]

    def spawn(
        self,
        namespace: Namespace,
        argv: Sequence[str | Path],
        *,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        text: bool = False,
    ) -> subprocess.Popen[Any]:
        """Start a process inside a namespace; it ends with the lab at the latest."""
        child = subprocess.Popen(
            self.enter(namespace, argv, cwd),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            text=text,
            start_new_session=True,
        )
        self._children = [child for child in self._children if child.poll() is None]
        self._children.append(child)
        return child

    def run(
        self,
        namespace: Namespace,
        argv: Sequence[str | Path],
        timeout: float = 10.0,
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside a namespace to its end; `subprocess.TimeoutExpired` kills it."""
        argv = self.enter(namespace, argv)
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(argv, **source, capture_output=True, text=True, timeout=timeout, env=env, check=False)

    def call(self, namespace: Namespace, function: Callable[[], T]) -> T:
        """Result of `function`, run by a thread that is inside the network namespace.

        Sockets it makes stay there. The mount namespace is ours: a thread can't change it alone.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                with (NETNS / self.netns(namespace)).open("rb") as file:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns {file.name}")
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                errors.append(error)

        thread = threading.Thread(target=inside, name=f"lab-{namespace}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def stop(self, child: subprocess.Popen[Any], timeout: float = STOP_TIMEOUT) -> int:
        """Ask a process to end with SIGTERM, then insist; returns its status."""
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
        status = child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()
        return status

    def close(self) -> None:
        """End everything that runs in the lab and remove it."""
        if not self.prefix:
            return
        with state_lock():
            remove(self.prefix, self.directory)
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream:
                    stream.close()
        self._children = []
        self._holders = {}
        self.prefix = ""

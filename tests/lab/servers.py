"""Real servers, as plain processes in the server namespace.

Nothing of the host's own configuration is read: every server gets a generated
one in a folder of the lab. What is slow to make and the same each time (keys, a
certificate, an initialised database) is kept in `CACHE`.
"""

from __future__ import annotations

import abc
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from tests.lab.namespaces import CACHE, ROOT, Address, Lab, LabError, Namespace, state_lock

READY_TIMEOUT = 40.0
POLL = 0.01

DATABASE_USER = "lab"
DATABASE_PASSWORD = "lab"
# Longer than any UDP answer dig accepts, so a TCP query has something to fetch.
DNS_BIG = "big.lab.test"
DNS_NAMES = {"web.lab.test": (str(Address.SERVER4), str(Address.SERVER6)), "db.lab.test": ("10.77.2.20", "fd77:2::20")}
FILE_SIZES = (0, 1024, 16 * 1024, 64 * 1024, 1024 * 1024)


def quietly(*argv: str | Path, stdin: str = "") -> None:
    """Run a tool that prepares something; its output is shown when it fails."""
    done = subprocess.run(
        [str(argument) for argument in argv], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LabError(f"{argv[0]} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def cached(name: str) -> Iterator[tuple[Path, bool]]:
    """A file or folder of the cache: yields where to make it, or where it is and False.

    It is made under another name and moved when complete.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / name
    if path.exists():
        yield path, False
        return
    with state_lock():
        fresh = CACHE / f"{name}.new"
        if fresh.is_dir():
            shutil.rmtree(fresh)
        fresh.unlink(missing_ok=True)
        yield fresh, True
        fresh.rename(path)


def ssh_key(name: str) -> Path:
    """A private key of the cache; the public one lies beside it in the folder."""
    with cached(f"ssh-{name}") as (folder, missing):
        if missing:
            folder.mkdir(mode=0o700)
            quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab-{name}", "-f", folder / "key")
    return CACHE / f"ssh-{name}" / "key"


def certificate() -> tuple[Path, Path]:
    """Self-signed certificate and key for web.lab.test and the server's addresses."""
    with cached("tls") as (folder, missing):
        if missing:
            folder.mkdir(mode=0o700)
            names = f"subjectAltName=DNS:web.lab.test,IP:{Address.SERVER4},IP:{Address.SERVER6}"
            quietly(
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-days", "3650", "-subj", "/CN=web.lab.test", "-addext", names),
                *("-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
            )
    return CACHE / "tls" / "cert.pem", CACHE / "tls" / "key.pem"


class Server(abc.ABC):
    """One server: `start` it, then `wait_ready`."""

    name: ClassVar[str]
    ports: ClassVar[tuple[int, ...]]

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / self.name
        self.process: subprocess.Popen[Any] | None = None

    @abc.abstractmethod
    def prepare(self) -> list[str | Path]:
        """Write the configuration; the command line to run."""

    def prepare_cache(self) -> None:  # noqa: B027 - most keep nothing
        """Make what is kept between runs."""

    def start(self) -> None:
        """Start the process."""
        self.prepare_cache()
        self.directory.mkdir(mode=0o755)
        argv = self.prepare()
        program = shutil.which(str(argv[0]), path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
        if program is None:
            raise LabError(f"{self.name}: {argv[0]} is not installed")
        with self.log.open("wb") as log:
            self.process = self.lab.spawn(
                Namespace.SERVER, [program, *argv[1:]], stdout=log, stderr=log, cwd=self.directory
            )

    @property
    def log(self) -> Path:
        """What the process wrote to its outputs."""
        return self.directory / "output.log"

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Return when every port accepts connections on both addresses."""
        deadline = time.monotonic() + timeout
        waiting = [(str(address), port) for address in (Address.SERVER4, Address.SERVER6) for port in self.ports]

        def poll() -> None:
            while waiting:
                if self.process is None or self.process.poll() is not None:
                    raise LabError(f"{self.name} ended:\n{self.log.read_text(errors='replace')[-4000:]}")
                if time.monotonic() > deadline:
                    raise LabError(
                        f"{self.name}: {waiting[0]} does not answer after {timeout:g} s:\n"
                        f"{self.log.read_text(errors='replace')[-4000:]}"
                    )
                try:
                    socket.create_connection(waiting[0], timeout=1).close()
                except OSError:
                    time.sleep(POLL)
                else:
                    waiting.pop(0)

        self.lab.call(Namespace.SERVER, poll)

    def stop(self) -> None:
        """End the process (the lab's end does the same)."""
        if self.process is not None:
            self.lab.stop(self.process)


class Nginx(Server):
    """HTTP/1 on 80, HTTPS (HTTP/1 and h2) on 443, HTTP/2 in clear with prior knowledge on 8080."""

    name = "nginx"
    ports = (80, 443, 8080)

    def prepare(self) -> list[str | Path]:
        root = self.directory / "root"
        root.mkdir()
        for size in FILE_SIZES:
            (root / f"{size}.bin").write_bytes((b"0123456789abcdef" * (size // 16 + 1))[:size])
        (root / "index.html").write_text("lab\n")
        cert, key = certificate()
        config = self.directory / "nginx.conf"
        config.write_text(f"""
daemon off;
user root;
worker_processes 1;
pid {self.directory}/pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    client_body_temp_path {self.directory}/body;
    proxy_temp_path {self.directory}/proxy;
    fastcgi_temp_path {self.directory}/fastcgi;
    uwsgi_temp_path {self.directory}/uwsgi;
    scgi_temp_path {self.directory}/scgi;
    default_type application/octet-stream;
    root {root};
    server {{
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        listen 8080 http2;
        listen [::]:8080 http2;
        listen 443 ssl http2;
        listen [::]:443 ssl http2;
        server_name web.lab.test;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        location / {{ index index.html; }}
        location = /echo {{ default_type text/plain; return 200 "$request_method $server_protocol $http_host\\n"; }}
        location /admin {{ default_type text/plain; return 200 "admin\\n"; }}
    }}
}}
""")
        return ["nginx", "-e", "stderr", "-p", self.directory, "-c", config]

    def prepare_cache(self) -> None:
        certificate()


class Nghttpx(Server):
    """In front of nginx on 8081: takes `Upgrade: h2c`, which nginx does not."""

    name = "nghttpx"
    ports = (8081,)

    def prepare(self) -> list[str | Path]:
        config = self.directory / "nghttpx.conf"
        config.write_text(
            "frontend=0.0.0.0,8081;no-tls\n"
            "frontend=::,8081;no-tls\n"
            "backend=127.0.0.1,8080;;proto=h2\n"
            "workers=1\n"
            "single-process=yes\n"
            f"pid-file={self.directory}/pid\n"
        )
        return ["nghttpx", f"--conf={config}", "--log-level=WARN"]


class Dnsmasq(Server):
    """DNS over UDP and TCP for lab.test."""

    name = "dnsmasq"
    ports = (53,)

    def prepare(self) -> list[str | Path]:
        config = self.directory / "dnsmasq.conf"
        config.write_text(
            "port=53\nno-resolv\nno-hosts\nlocal=/lab.test/\nuser=root\ngroup=root\npid-file=\nlog-facility=-\n"
            "edns-packet-max=1232\n"
            + "".join(f"host-record={name},{v4},{v6}\n" for name, (v4, v6) in DNS_NAMES.items())
            # A line of its configuration is short, so the long answer is made of several.
            + "".join(f"txt-record={DNS_BIG},{index:02d}{'x' * 200}\n" for index in range(16))
        )
        return ["dnsmasq", "--keep-in-foreground", f"--conf-file={config}"]


class MariaDB(Server):
    """MySQL's protocol on 3306; user and password `lab`, database `lab`."""

    name = "mariadb"
    ports = (3306,)
    OPTIONS = (
        "--user=root",
        "--innodb-log-file-size=4M",
        "--innodb-buffer-pool-size=8M",
        "--innodb-buffer-pool-dump-at-shutdown=OFF",
        "--innodb-buffer-pool-load-at-startup=OFF",
        "--innodb-flush-log-at-trx-commit=0",
        "--aria-log-file-size=8M",
        "--key-buffer-size=1M",
        "--performance-schema=OFF",
        "--skip-name-resolve",
        "--skip-log-bin",
        "--skip-slave-start",
    )
    ACCOUNT = (
        "CREATE DATABASE lab;\n"
        "FLUSH PRIVILEGES;\n"
        f"CREATE USER '{DATABASE_USER}'@'%' IDENTIFIED BY '{DATABASE_PASSWORD}';\n"
        f"GRANT ALL ON lab.* TO '{DATABASE_USER}'@'%';\n"
        "CREATE TABLE lab.numbers (n INT PRIMARY KEY, word VARCHAR(64));\n"
        "INSERT INTO lab.numbers VALUES (1,'one'),(2,'two'),(3,'three');\n"
    )

    def prepare_cache(self) -> None:
        with cached("mariadb") as (folder, missing):
            if not missing:
                return
            folder.mkdir(mode=0o700)
            quietly(
                *("mariadb-install-db", "--no-defaults", *self.OPTIONS, f"--datadir={folder}"),
                *("--auth-root-authentication-method=normal", "--skip-test-db"),
            )
            quietly(
                *("/usr/sbin/mariadbd", "--no-defaults", *self.OPTIONS, f"--datadir={folder}", "--bootstrap"),
                stdin=self.ACCOUNT,
            )

    def prepare(self) -> list[str | Path]:
        folder = self.directory / "db"
        quietly("cp", "-a", "--reflink=auto", "--sparse=always", CACHE / "mariadb", folder)
        return [
            *("mariadbd", "--no-defaults", *self.OPTIONS, f"--datadir={folder}", f"--socket={self.directory}/sock"),
            *(f"--pid-file={self.directory}/pid", "--bind-address=*", "--port=3306", "--max-connections=500"),
        ]


class Redis(Server):
    """Redis on 6379, nothing on disk."""

    name = "redis"
    ports = (6379,)

    def prepare(self) -> list[str | Path]:
        return [
            *("redis-server", "--port", "6379", "--bind", "0.0.0.0", "::", "--protected-mode", "no"),
            *("--save", "", "--appendonly", "no", "--dir", self.directory, "--daemonize", "no"),
        ]


class Sshd(Server):
    """OpenSSH on 22; root may log in with the lab's key."""

    name = "sshd"
    ports = (22,)

    def prepare_cache(self) -> None:
        ssh_key("host")
        ssh_key("client")

    def prepare(self) -> list[str | Path]:
        # Compiled into Debian's sshd; its service makes it, and ours may be the first sshd here.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        authorized = self.directory / "authorized_keys"
        authorized.write_bytes(ssh_key("client").with_suffix(".pub").read_bytes())
        authorized.chmod(0o600)
        config = self.directory / "sshd_config"
        config.write_text(
            "Port 22\nListenAddress 0.0.0.0\nListenAddress ::\n"
            f"HostKey {ssh_key('host')}\nAuthorizedKeysFile {authorized}\nPidFile none\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "StrictModes no\nUsePAM no\nUseDNS no\nPrintMotd no\nPrintLastLog no\nMaxStartups 200\n"
        )
        return ["/usr/sbin/sshd", "-D", "-e", "-f", config]


class Grpc(Server):
    """gRPC on 50051: `lab.Echo` and `lab.Admin`, see grpc_server.py."""

    name = "grpc"
    ports = (50051,)

    def prepare(self) -> list[str | Path]:
        return [sys.executable, "-s", ROOT / "tests" / "lab" / "grpc_server.py", str(self.ports[0])]


class Postgres(Server):
    """PostgreSQL on 5432, in clear and with TLS; user and password `lab`, database `lab`."""

    name = "postgres"
    ports = (5432,)
    # It refuses to be root, whose folders it is in.
    AS = (
        *("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"),
        *("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"),
    )
    ACCOUNT = (
        f"CREATE USER {DATABASE_USER} PASSWORD '{DATABASE_PASSWORD}';\nCREATE DATABASE lab OWNER {DATABASE_USER};\n"
    )
    TABLES = (
        "CREATE TABLE numbers (n INT PRIMARY KEY, word VARCHAR(64));\n"
        "INSERT INTO numbers VALUES (1,'one'),(2,'two'),(3,'three');\n"
        "CREATE TABLE secrets (n INT, word VARCHAR(64));\n"
        f"GRANT ALL ON numbers, secrets TO {DATABASE_USER};\n"
    )

    def prepare_cache(self) -> None:
        certificate()
        with cached("postgres") as (folder, missing):
            if not missing:
                return
            folder.mkdir(mode=0o700)
            shutil.chown(folder, "postgres", "postgres")
            quietly(
                *(*self.AS, postgres_program("initdb"), f"--pgdata={folder}", "--username=postgres", "--no-sync"),
                *("--auth=scram-sha-256", "--pwfile=/dev/stdin", "--locale=C", "--encoding=UTF8", "--wal-segsize=1"),
                stdin=f"{DATABASE_PASSWORD}\n",
            )
            for database, statements in (("postgres", self.ACCOUNT), ("lab", self.TABLES)):
                quietly(
                    *(*self.AS, postgres_program("postgres"), "--single", "-D", folder, "-F"),
                    *("-c", "exit_on_error=on", database),
                    stdin=statements,
                )
            with (folder / "pg_hba.conf").open("a") as access:
                access.write("host all all all scram-sha-256\n")

    def prepare(self) -> list[str | Path]:
        folder = self.directory / "db"
        quietly("cp", "-a", "--reflink=auto", "--sparse=always", CACHE / "postgres", folder)
        cert, key = certificate()
        settings = {
            "listen_addresses": "*",
            "port": "5432",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "1MB",
            "dynamic_shared_memory_type": "mmap",
            "max_connections": "50",
            "autovacuum": "off",
            "max_logical_replication_workers": "0",
            "ssl": "on",
            "ssl_cert_file": str(cert),
            "ssl_key_file": str(key),
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self.AS, postgres_program("postgres"), "-D", folder, *options]


def postgres_program(name: str) -> Path:
    """A program of the newest PostgreSQL: Debian keeps the server's out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    if not found:
        raise LabError(f"postgres: {name} is not installed")
    return found[-1]


class Memcached(Server):
    """Memcached on 11211, text and binary."""

    name = "memcached"
    ports = (11211,)

    def prepare(self) -> list[str | Path]:
        return ["memcached", "-u", "root", "-l", "0.0.0.0,::", "-p", "11211", "-U", "0", "-m", "8", "-t", "1"]


class Mosquitto(Server):
    """MQTT on 1883, for everybody."""

    name = "mosquitto"
    ports = (1883,)

    def prepare(self) -> list[str | Path]:
        config = self.directory / "mosquitto.conf"
        config.write_text("listener 1883\nallow_anonymous true\nuser root\npersistence false\nlog_dest stderr\n")
        return ["mosquitto", "-c", config]


class RabbitMQ(Server):
    """AMQP 0-9-1 on 5672; user and password `guest`."""

    name = "rabbitmq"
    ports = (5672,)

    def prepare(self) -> list[str | Path]:
        (self.directory / "enabled_plugins").write_text("[].\n")
        config = self.directory / "rabbitmq.conf"
        config.write_text("listeners.tcp.1 = :::5672\nloopback_users = none\nlog.console = true\n")
        # Its nodes find each other by a daemon that would outlive them: it is told to listen here only, and where.
        settings = {
            "HOME": self.directory,
            "RABBITMQ_MNESIA_BASE": self.directory / "mnesia",
            "RABBITMQ_LOG_BASE": self.directory / "log",
            "RABBITMQ_CONFIG_FILE": config,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.directory / "enabled_plugins",
            "RABBITMQ_NODENAME": "lab@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        (program,) = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")
        return ["env", *(f"{name}={value}" for name, value in settings.items()), program]


class Python(Server):
    """Servers that are Python packages, in one process: see python_servers.py. FTP on 21, SMTP on 25, WebSocket on
    8765, QUIC on UDP 4433, Kafka on 9092, MongoDB on 27017.
    """

    name = "python"
    ports = (21, 25, 8765, 9092, 27017)

    def prepare_cache(self) -> None:
        certificate()

    def prepare(self) -> list[str | Path]:
        files = self.directory / "files"
        files.mkdir()
        (files / "public.txt").write_text("public\n")
        (files / "secret.txt").write_text("secret\n")
        return [sys.executable, "-s", "-m", "tests.lab.python_servers", *certificate(), files, broker_file(self.lab)]


def broker_file(lab: Lab) -> Path:
    """Has the port of 127.0.0.1 to which Kafka's clients are sent."""
    return lab.directory / "broker"


ALL: tuple[type[Server], ...] = (MariaDB, Grpc, Nginx, Nghttpx, Dnsmasq, Redis, Sshd)


@contextlib.contextmanager
def running(lab: Lab, kinds: Iterable[type[Server]] = ALL) -> Iterator[dict[str, Server]]:
    """Start these servers all at once, and wait until all are ready; by name."""
    servers = {kind.name: kind(lab) for kind in kinds}
    try:
        for server in servers.values():
            server.start()
        for server in servers.values():
            server.wait_ready()
        yield servers
    finally:
        for server in servers.values():
            if server.process is not None and server.process.poll() is None:
                server.process.terminate()
        for server in servers.values():
            server.stop()

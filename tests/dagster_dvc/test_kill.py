"""Kill -9 of the step worker, of ``dvc`` and of the stage, at random moments: BRIDGE_KILLS sets how many."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from crash_project import (
    MARK,
    UNDER_SUPERVISOR,
    Crew,
    answer,
    ask,
    changed,
    command_of,
    expected,
    is_clean,
    make_project,
    wait_for,
    write_params,
)

from dagster_project.dagster_dvc.lock_file import read_lock

KILLS = int(os.environ.get("BRIDGE_KILLS", "3"))
#: Two seconds are asked for; a loaded machine may need more. The figures that are printed are the measured ones.
LOADED_LIMIT_S = 10.0
TARGETS = ("worker", "dvc", "stage", "lock")
#: How long such a process lives at least, seconds; the kill comes at a random moment of that.
SPAN_S = {"worker": 1.6, "dvc": 1.6, "stage": 0.8}


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    made = Crew(make_project(tmp_path / "project"))
    yield made
    made.close()


def find(crew: Crew, target: str, rng: random.Random) -> tuple[psutil.Process, int] | None:
    """A process of that kind that runs now, and the session of its supervisor."""
    found = []
    for process in crew.processes(UNDER_SUPERVISOR):
        try:
            command, session = " ".join(process.cmdline()), os.getsid(process.pid)
            kind = "worker" if "supervisor.py" in command else "dvc" if "-m dvc" in command else "stage"
            chosen = process.parent() if kind == "worker" else process
            ours = chosen is not None and chosen.environ().get(MARK) == crew.mark
        except (psutil.Error, ProcessLookupError):
            continue
        if kind == target and ours and chosen is not None:
            found.append((chosen, session))
    return rng.choice(found) if found else None


def find_writer(crew: Crew, rng: random.Random) -> tuple[psutil.Process, int] | None:
    """The ``dvc`` that is rewriting dvc.lock right now; waits for one until the run has ended."""
    path = crew.root / "dvc.lock"
    whole, known, refreshed_at = path.stat().st_size, [], 0.0
    wait_for(lambda: find(crew, "dvc", rng))
    while True:
        if time.monotonic() - refreshed_at > 0.2:
            known = [p for p in crew.processes(UNDER_SUPERVISOR) if "-m dvc" in command_of(p)]
            refreshed_at = time.monotonic()
            if not known:
                return None
        if path.stat().st_size < whole // 2:
            time.sleep(rng.uniform(0, 0.02))
            return next(((p, os.getsid(p.pid)) for p in known if has_open(p, path)), None)


def has_open(process: psutil.Process, path: Path) -> bool:
    try:
        return any(link.exists() and link.samefile(path) for link in Path(f"/proc/{process.pid}/fd").iterdir())
    except OSError:
        return False


def lives(crew: Crew, session: int) -> bool:
    """Tell whether a process of a supervisor's session still runs."""
    for process in crew.processes(UNDER_SUPERVISOR):
        try:
            if os.getsid(process.pid) == session:
                return True
        except ProcessLookupError:
            continue
    return False


def strike(crew: Crew, target: str, rng: random.Random) -> float | None:
    """Kill a process of a kind at a random moment of the run; return how long its group lived on, None for a miss."""
    if target == "lock":
        found = find_writer(crew, rng)
    else:
        wait_for(lambda: find(crew, "stage" if target == "stage" else "dvc", rng))
        time.sleep(rng.uniform(0, SPAN_S[target]))
        found = find(crew, target, rng)
    if found is None:
        return None
    process, session = found
    victims = [process]
    if target == "lock" and rng.random() < 0.5:
        # As when memory runs out: nobody is left who could mend dvc.lock at once.
        above = process.parents()[:2]
        victims = [*reversed([p for p in above if p.environ().get(MARK) == crew.mark]), process]
    try:
        for victim in victims:
            victim.kill()
    except psutil.NoSuchProcess:
        return None
    start = time.monotonic()
    wait_for(lambda: not lives(crew, session), seconds=LOADED_LIMIT_S)
    return time.monotonic() - start


@pytest.mark.slow
def test_after_kill_9_nothing_trains_on_and_the_next_materialization_completes(crew: Crew) -> None:
    rng = random.Random(int(os.environ.get("BRIDGE_KILLS_SEED", "3")))
    driver = crew.driver()
    ask(driver)
    assert answer(driver)["success"]
    done, tries, mended, failed, seconds = dict.fromkeys(TARGETS, 0), 0, 0, 0, []
    while (hits := sum(done.values())) < KILLS:
        tries += 1
        assert tries < 5 * KILLS + 10, f"too few kills hit: {done}"
        write_params(crew.root, tries)
        target = TARGETS[tries % len(TARGETS)]
        selection = None if tries % 6 == 5 else ["slow"]
        ask(driver, selection)
        lived_on = strike(crew, target, rng)
        first = answer(driver)
        ask(driver, selection)
        second = answer(driver)
        assert second["success"], (target, second["failures"], second["log"][-3000:])
        check_made(crew, tries, selection=selection)
        mended += any("left broken" in said["log"] for said in (first, second))
        if lived_on is not None:
            done[target] += 1
            seconds.append(lived_on)
            failed += not first["success"]
        print(f"{hits} {target} {lived_on} {first['success']} {mended}", flush=True)
    ask(driver)
    assert answer(driver)["success"]
    check_made(crew, tries, selection=None)
    print(f"kills {done}, runs failed {failed}, dvc.lock mended {mended}, group lived on {max(seconds):.2f} s at most")
    assert not any(crew.processes(UNDER_SUPERVISOR))


@pytest.mark.slow
def test_the_death_of_the_run_ends_its_stages(crew: Crew) -> None:
    """The step worker lives on, but nobody waits for it: as when the machine kills the run for its memory."""
    assert crew.dvc("repro", "first").wait(timeout=240) == 0
    write_params(crew.root, 1, chunks=600)
    driver = crew.driver()
    ask(driver, ["slow"])
    wait_for((crew.root / "out/slow/child.txt").exists)
    driver.kill()
    wait_for(lambda: not any(crew.processes(UNDER_SUPERVISOR)), seconds=LOADED_LIMIT_S)
    assert crew.dvc("status").wait(timeout=240) == 0


def check_made(crew: Crew, number: int, *, selection: list[str] | None) -> None:
    """After a materialization: outputs are right, no entry is lost, ``dvc status`` is clean."""
    assert set(read_lock(crew.root)) == {"first", "slow", "other", "last"}
    slow = "".join((crew.root / f"out/slow/{name}.txt").read_text() for name in ("child", "parent"))
    assert slow + "first\n" == expected(number)
    if selection is None:
        assert (crew.root / "out/last.txt").read_text() == expected(number)
        assert is_clean(crew.root)
    else:
        assert not set(selection) & set(changed(crew.root))

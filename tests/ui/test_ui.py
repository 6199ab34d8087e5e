"""The Dagster UI as a person uses it, in a browser: graph, materialize, progress, checks, stale badges, launchpad.

The tests build on each other, as a person's work does, and run in the order in which they stand.
"""

import re
from typing import Any

import pytest

pytestmark = pytest.mark.slow

LOCATION = "definitions.py"
GROUP = f"/locations/{LOCATION}/asset-groups/work/lineage"


def launch(page: Any, served: Any, config: str) -> None:
    """Put a config into the launchpad of the job `experiment`."""
    page.goto(f"{served.url}/locations/{LOCATION}/jobs/experiment/playground")
    page.locator(".CodeMirror").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(config)


def test_graph_shows_stages_and_what_they_read(page: Any, served: Any) -> None:
    page.goto(served.url + GROUP)
    for name in ("train", "page", "words.txt"):
        page.get_by_text(name, exact=True).first.wait_for()
    page.get_by_text(re.compile("Never materialized|No materializations|–")).first.wait_for()


def test_materialize_all_shows_progress_while_it_runs(page: Any, served: Any) -> None:
    page.goto(served.url + GROUP)
    page.get_by_role("button", name=re.compile("Materialize")).first.click()
    href = page.locator("a[href*='/runs/']").first.get_attribute("href")
    page.goto(served.url + href)
    page.get_by_text("training: step 2 of 10").first.wait_for()
    page.get_by_text("Started", exact=True).first.wait_for()
    assert page.get_by_text("training: step 10 of 10").count() == 0
    (served.root / "go_on").touch()
    page.get_by_text("training: step 10 of 10").first.wait_for()
    page.get_by_text("Success", exact=True).first.wait_for()
    assert "up to date" in served.run("dvc", "status")


def test_result_shows_curve_and_figures(page: Any, served: Any) -> None:
    page.goto(f"{served.url}/assets/train?view=events")
    page.get_by_text("executed", exact=True).first.wait_for()
    page.locator("img[src^='data:image/svg+xml']").first.wait_for()
    page.get_by_text("4 → 0.4, lowest 0.4 at step 10 of 10").first.wait_for()


def test_failed_check_shows_what_failed(page: Any, served: Any) -> None:
    page.goto(f"{served.url}/assets/train?view=checks&checkDetail=good_enough")
    page.get_by_text("gates.good").first.wait_for()
    page.get_by_text("Failed", exact=True).first.wait_for()
    page.get_by_text("failing", exact=True).first.wait_for()


def test_an_edit_outside_shows_a_stale_badge_until_dvc_repro(page: Any, served: Any) -> None:
    params = served.root / "params.yaml"
    params.write_text(params.read_text().replace("0.2", "0.05"))
    page.goto(served.url + GROUP)
    badge = page.get_by_text(re.compile("Unsynced"))
    badge.first.wait_for()
    badge.first.hover()
    page.get_by_text(re.compile("train_params|params")).first.wait_for()
    served.run("dvc", "repro")
    badge.first.wait_for(state="detached")


def test_launchpad_refuses_what_is_no_value(page: Any, served: Any) -> None:
    launch(page, served, "params:\n  train:\n    steps: many\n")
    page.get_by_text('Value "many"').first.wait_for()
    assert page.get_by_role("button", name="Launch Run").is_disabled()


def test_launchpad_override_runs_beside_the_workspace(page: Any, served: Any) -> None:
    before = (served.root / "params.yaml").read_bytes(), (served.root / "model.txt").read_bytes()
    launch(page, served, "params:\n  train:\n    steps: 12\nname: twelve\n")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    page.get_by_text("train.steps: 10 -> 12").first.wait_for()
    page.get_by_text("Success", exact=True).first.wait_for()
    assert ((served.root / "params.yaml").read_bytes(), (served.root / "model.txt").read_bytes()) == before
    assert "twelve" in served.run("dvc", "exp", "list")

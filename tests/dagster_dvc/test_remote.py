"""Push and pull: jobs, the sensor, S3 against a real server on loopback, and what `dvc gc` may take."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_project.dagster_dvc.errors import StageFailed
from dagster_project.dagster_dvc.pipeline import read_pipeline
from dagster_project.dagster_dvc.remote import explain, promoted_version, remote_definitions
from dagster_project.dagster_dvc.resources import DvcProject
from dagster_project.dagster_dvc.sync import report


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "nobody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "nobody@localhost")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def run_job(root: Path, instance: dg.DagsterInstance, name: str, **config: object) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions.merge(
        remote_definitions(read_pipeline(root)), dg.Definitions(resources={"dvc": DvcProject(root=str(root))})
    )
    return definitions.resolve_job_def(name).execute_in_process(
        instance=instance, raise_on_error=False, run_config={"ops": {f"dvc_{name}": {"config": config}}}
    )


def failure(result: dg.ExecuteInProcessResult, name: str) -> str:
    assert not result.success
    data = result.failure_data_for_node(f"dvc_{name}")
    assert data is not None and data.user_failure_data is not None
    return str(data.user_failure_data.description)


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


def commit_all(root: Path, message: str) -> None:
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", message)


@pytest.fixture
def team(reproduced: Path) -> Path:
    """A Git repository in which the pipeline ran."""
    (reproduced / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (reproduced / ".dvc/.gitignore").write_text("/tmp\n/cache\n/config.local\n/remote\n")
    (reproduced / ".gitignore").write_text("/out\n/metrics\n")
    git(reproduced, "init", "--quiet")
    commit_all(reproduced, "Train")
    return reproduced


def without_data(root: Path) -> Path:
    for folder in (".dvc/cache", "out", "metrics"):
        shutil.rmtree(root / folder)
    return root


def test_push_and_pull_through_a_folder(team: Path, instance: dg.DagsterInstance, dvc: Callable[..., str]) -> None:
    dvc(team, "remote", "add", "--default", "local", ".dvc/remote")
    assert "['remote \"local\"']\n    url = remote" in (team / ".dvc/config").read_text()
    result = run_job(team, instance, "push")
    assert result.success
    assert list((team / ".dvc/remote/files").rglob("*")) and list((team / ".dvc/remote/runs").rglob("*"))
    said = [event.message for event in instance.all_logs(result.run_id)]
    assert any("files pushed" in text for text in said)
    expected = (team / "out/all.txt").read_bytes()
    without_data(team)
    assert run_job(team, instance, "pull", jobs=2, remote="local").success
    assert (team / "out/all.txt").read_bytes() == expected
    assert "up to date" in dvc(team, "repro")


def test_a_remote_that_is_missing_or_cannot_be_reached_is_explained(
    team: Path, instance: dg.DagsterInstance, dvc: Callable[..., str]
) -> None:
    message = failure(run_job(team, instance, "push"), "push")
    assert "no remote specified" in message and "remedy: name a remote: `dvc remote add --default" in message
    message = failure(run_job(team, instance, "pull", remote="nowhere"), "pull")
    assert "remote 'nowhere' doesn't exist" in message and "remedy: `dvc remote list` shows the names" in message
    dvc(team, "remote", "add", "--default", "local", ".dvc/remote")
    (team / ".dvc/remote").mkdir()
    message = failure(run_job(without_data(team), instance, "pull"), "pull")
    assert "Checkout failed" in message and "remedy: somebody has to `dvc push`" in message


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("URL 's3://b' is supported but requires these missing dependencies: ['s3fs']", "dvc-s3"),
        ("Unable to locate credentials", "AWS_PROFILE"),
        ("The specified bucket does not exist: NoSuchBucket", "create the bucket"),
        ("unable to remove 'out' without a confirmation. Use `-f` to force.", "`dvc commit` keeps them"),
        ("something else", "as it was"),
    ],
)
def test_causes_have_remedies(words: str, remedy: str) -> None:
    assert remedy in explain(StageFailed(words, remedy="as it was", exit_code=1)).remedy


def promoting(root: Path) -> Path:
    """Mark a stage that has a check as one to push after."""
    definition = yaml.safe_load((root / "dvc.yaml").read_text())
    definition["stages"]["count"]["meta"]["push"] = True
    (root / "dvc.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    return root


def test_a_promotion_is_pushed_once_and_only_if_its_checks_passed(
    reproduced: Path, instance: dg.DagsterInstance, dvc: Callable[..., str]
) -> None:
    assert not remote_definitions(read_pipeline(reproduced)).sensors
    definitions = remote_definitions(read_pipeline(promoting(reproduced)))
    (sensor,) = definitions.sensors or ()
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED

    def tick() -> dg.SensorResult:
        with dg.build_sensor_context(instance=instance) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    assert "was never materialized" in str(tick().skip_reason)
    project = DvcProject(root=str(reproduced))
    report(instance, project)  # one line: the check "even" fails
    assert "check even did not pass" in str(tick().skip_reason)
    (reproduced / "data/raw/two.txt").write_text("another line\n")
    dvc(reproduced, "repro")
    report(instance, project)
    (request,) = tick().run_requests or ()
    stage = read_pipeline(reproduced).stage("count")
    version, _ = promoted_version(instance, stage)
    assert request.run_key == f"push-count-{version}" and version
    assert [again.run_key for again in tick().run_requests or ()] == [request.run_key]


@pytest.fixture
def s3() -> Iterator[str]:
    """Address of a server that speaks S3's protocol on loopback."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.slow
def test_s3_brings_the_results_to_a_colleague(
    team: Path,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    dvc: Callable[..., str],
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "for-the-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = boto3.client("s3", endpoint_url=s3)
    bucket.create_bucket(Bucket="models")
    dvc(team, "remote", "add", "--default", "store", "s3://models/project")
    dvc(team, "remote", "modify", "store", "endpointurl", s3)
    commit_all(team, "Name the remote")
    assert run_job(team, instance, "push").success
    assert bucket.list_objects_v2(Bucket="models")["KeyCount"] >= 6
    git(tmp_path, "clone", "--quiet", str(team), "colleague")
    colleague = tmp_path / "colleague"
    assert run_job(colleague, instance, "pull").success
    assert (colleague / "out/all.txt").read_bytes() == (team / "out/all.txt").read_bytes()
    said = dvc(colleague, "repro")
    assert "up to date" in said and "Running stage" not in said
    report(instance, DvcProject(root=str(colleague)))
    assert set(statuses(colleague, instance).values()) == {"FRESH"}
    # A server that does not answer.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dvc(colleague, "remote", "modify", "store", "endpointurl", f"http://127.0.0.1:{free.getsockname()[1]}")
    message = failure(run_job(without_data(colleague), instance, "pull"), "pull")
    assert "remedy: start or reach the remote's server" in message, message


def statuses(root: Path, instance: dg.DagsterInstance) -> dict[str, str]:
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    from dagster_project.dagster_dvc.assemble import build_definitions

    graph = build_definitions(root).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {key.to_user_string(): resolver.get_status(key).value for key in graph.executable_asset_keys}


@pytest.mark.slow
def test_gc_takes_nothing_that_dvc_lock_names_and_a_remote_brings_old_versions_back(
    team: Path, dvc: Callable[..., str]
) -> None:
    dvc(team, "remote", "add", "--default", "local", ".dvc/remote")
    commit_all(team, "Name the remote")
    dvc(team, "push")
    old = (team / "out/count.txt").read_bytes()
    (team / "data/raw/two.txt").write_text("one\ntwo\n")
    dvc(team, "repro")
    commit_all(team, "Train again")
    dvc(team, "push")
    new = (team / "out/count.txt").read_bytes()
    assert new != old

    dvc(team, "gc", "--workspace", "--force")
    shutil.rmtree(team / "out")
    dvc(team, "checkout")
    assert (team / "out/count.txt").read_bytes() == new
    assert "up to date" in dvc(team, "repro")

    # The cache has lost the old version; the remote has it.
    git(team, "checkout", "--quiet", "HEAD~1")
    with pytest.raises(AssertionError, match="missing-files"):
        dvc(team, "checkout")
    dvc(team, "pull")
    assert (team / "out/count.txt").read_bytes() == old
    git(team, "checkout", "--quiet", "-")

    # With --cloud and every commit named, the remote keeps both; with --workspace alone it loses the old one.
    dvc(team, "gc", "--all-commits", "--cloud", "--force")
    git(team, "checkout", "--quiet", "HEAD~1")
    dvc(team, "pull")
    git(team, "checkout", "--quiet", "-")
    dvc(team, "checkout")
    dvc(team, "gc", "--workspace", "--cloud", "--force")
    git(team, "checkout", "--quiet", "HEAD~1")
    with pytest.raises(AssertionError, match="Missing cache files"):
        dvc(team, "pull")

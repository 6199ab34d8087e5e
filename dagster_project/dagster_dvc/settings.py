"""Section ``automation`` of ``params.yaml``: what starts runs by itself, and who is told of their end.

The section may be absent: then nothing runs by itself. Each part has one switch, ``enabled``, which is the state that
a schedule or sensor starts with; the toggle in Dagster's UI overrides it. No stage depends on the section, so that a
switch makes nothing stale.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from .errors import SettingsError
from .pipeline import Pipeline, overlaps

SECTION = "automation"
_FILE = "params.yaml"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _cron(value: str) -> str:
    try:
        dg.ScheduleDefinition(name="check", job_name="check", cron_schedule=value)
    except dg.DagsterInvalidDefinitionError:
        raise ValueError("allowed is a cron expression of five fields, such as `0 3 * * 0` (Sundays at 3:00)") from None
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (OSError, ValueError, KeyError):  # a folder of the database, a path, a name that it lacks
        raise ValueError("allowed is a name of the IANA database, such as `Europe/Berlin` or `UTC`") from None
    return value


def _inside(value: str) -> str:
    path = Path(value)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("allowed is a path inside the project, relative to its root")
    return path.as_posix()


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        # The value is not repeated: it may be the secret itself.
        raise ValueError("allowed is the name of an environment variable, not its content")
    return value


Inside = Annotated[str, AfterValidator(_inside)]
Variable = Annotated[str, AfterValidator(_variable)]
Interval = Annotated[int, Field(ge=5, le=86400, description="seconds between two looks, 5 to 86400")]
Enabled = Annotated[bool, Field(description="whether it is on until somebody toggles it in the UI")]
ForcedStage = Annotated[
    str | None,
    Field(description="stage to run even if DVC finds nothing changed, because DVC cannot see what it reads"),
]
Outcome = Literal["success", "failure", "canceled"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    enabled: Enabled = False


class Schedule(_Part):
    """Runs the pipeline at fixed times."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(description="when, as five cron fields")
    timezone: Annotated[str, AfterValidator(_time_zone)] = Field(
        default="UTC", description="IANA time zone of `cron`; summer time is followed"
    )
    stage: ForcedStage = None


class NewFiles(_Part):
    """Runs the pipeline when a folder that stages read holds something that they have not run on."""

    folder: Inside = Field(description="folder that a stage depends on, relative to the project")
    interval_s: Interval = 30


class NewRows(_Part):
    """Runs the pipeline when a database table has grown."""

    url: str | None = Field(default=None, description="SQLAlchemy URL without a password; a SQLite path is relative")
    url_from: Variable | None = Field(default=None, description="environment variable that holds the SQLAlchemy URL")
    table: str = Field(min_length=1, description="table, or schema.table")
    column: str = Field(min_length=1, description="column that only grows: a serial number or the time of insertion")
    min_rows: int = Field(default=1, ge=1, description="new rows from which a run is worth it")
    stage: str = Field(description="stage that reads the table; it is forced, because DVC cannot see a table")
    interval_s: Interval = 60

    @model_validator(mode="after")
    def _one_url(self) -> NewRows:
        if (self.url is None) == (self.url_from is None):
            raise ValueError("give either `url` or `url_from`")
        if self.url is not None:
            try:
                secret = make_url(self.url).password
            except ArgumentError:
                raise ValueError("`url` is no SQLAlchemy URL, such as `sqlite:///data/reviews.sqlite`") from None
            if secret is not None:
                raise ValueError(
                    "`url` holds a password: put it into an environment variable and name that in `url_from`"
                )
        return self


class Drift(_Part):
    """Runs the pipeline when a metrics file says that the data have drifted."""

    file: Inside = Field(description="JSON file of metrics, relative to the project")
    key: str = Field(min_length=1, description="dotted key of the value in the file")
    value: bool | int | float | str = Field(default=True, alias="is", description="value that means drift")
    stage: ForcedStage = None
    interval_s: Interval = 60


class Notify(_Part):
    """Tells a log file and a webhook how runs ended."""

    log: Inside | None = Field(default=None, description="file that gets one JSON line a run, relative to the project")
    webhook_from: Variable | None = Field(
        default=None, description="environment variable that holds the URL to which the same JSON is sent by POST"
    )
    link_from: Variable | None = Field(
        default=None, description="environment variable that holds the address of the Dagster UI, for links to runs"
    )
    events: list[Outcome] = Field(
        default=["failure", "canceled", "success"], min_length=1, description="ends of runs that are told"
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Notify:
        if self.log is None and self.webhook_from is None:
            raise ValueError("give `log`, `webhook_from` or both")
        return self


class Automation(BaseModel):
    """All parts; one that is absent does not exist in the UI either."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schedule: Schedule | None = Field(default=None, description="retraining at fixed times")
    new_files: NewFiles | None = Field(default=None, description="retraining on new files")
    new_rows: NewRows | None = Field(default=None, description="retraining on new rows of a database")
    drift: Drift | None = Field(default=None, description="retraining on drift")
    notify: Notify | None = Field(default=None, description="messages about runs that ended")


def read_settings(pipeline: Pipeline) -> Automation:
    """Read and check the section.

    Raises:
        SettingsError: a key is unknown or a value not allowed, or it names a stage or folder that ``dvc.yaml`` lacks.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import LocalFileSystem
    from dvc.utils.serialize import load_path

    path = pipeline.root / _FILE
    try:
        content = load_path(str(path), LocalFileSystem()) if path.exists() else {}
    except (DvcException, OSError) as error:
        raise SettingsError(f"{path} cannot be read: {' '.join(str(error).split())}", remedy="mend it") from error
    section = content.get(SECTION) if isinstance(content, dict) else None
    try:
        settings = Automation.model_validate({} if section is None else section)
    except ValidationError as error:
        problems = [_describe(item) for item in error.errors(include_url=False)]
        raise _wrong(path, problems) from None
    problems = _unknown_names(settings, pipeline)
    if problems:
        raise _wrong(path, problems)
    return settings


def _wrong(path: Path, problems: Sequence[str]) -> SettingsError:
    listed = problems[0] if len(problems) == 1 else "\n  " + "\n  ".join(problems)
    return SettingsError(f"{path}: {listed}", remedy=f"correct it in {path.name} and reload the code location")


def _describe(item: Any) -> str:
    """One error of pydantic as ``key is value: what is allowed``."""
    # The name of a union's member follows the key and stands in no file.
    location = [str(part) for part in item["loc"] if str(part) not in {"bool", "int", "float", "str"}]
    key, message = ".".join([SECTION, *location]), item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"`{key}` is missing"
    if item["type"] == "extra_forbidden":
        return f"`{key}` is not a known key"
    if isinstance(item["input"], dict) or key.endswith("_from"):
        return f"`{key}`: {message[0].lower()}{message[1:]}"
    return f"`{key}` is {item['input']!r}: {message[0].lower()}{message[1:]}"


def _unknown_names(settings: Automation, pipeline: Pipeline) -> list[str]:
    problems = []
    stages = [stage.name for stage in pipeline.stages]
    for part in ("schedule", "new_rows", "drift"):
        name = getattr(getattr(settings, part), "stage", None)
        if name is not None and name not in stages:
            problems.append(f"`{SECTION}.{part}.stage` is {name!r}: allowed are {', '.join(stages)}")
    if settings.new_files is not None and not readers(pipeline, settings.new_files.folder):
        given = sorted({path for name in stages for path in pipeline.given(name)})
        problems.append(
            f"`{SECTION}.new_files.folder` is {settings.new_files.folder!r}: no stage depends on it; "
            f"inputs that no stage makes are {', '.join(given) or 'none'}"
        )
    return problems


def readers(pipeline: Pipeline, folder: str) -> dict[str, tuple[str, ...]]:
    """Stages that read something in ``folder``, each with those of its given paths that lie in it or hold it."""
    found = {}
    for stage in pipeline.stages:
        paths = tuple(path for path in pipeline.given(stage.name) if overlaps(path, folder))
        if paths:
            found[stage.name] = paths
    return found

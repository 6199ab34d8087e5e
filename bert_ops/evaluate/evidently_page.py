"""The HTML report of a task, made with Evidently: self-contained, and the same bytes for the same results.

Evidently puts random identifiers into its pages; they are replaced by numbers in order of appearance. Its default
tests are not used: they pass whatever lies within 20% of a reference. Each test here has a threshold of its own.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from itertools import count
from typing import TYPE_CHECKING, Any

from bert_ops.evaluate.overfitting import History
from bert_ops.evaluate.params import EvaluateParams
from bert_ops.evaluate.wording import METRIC_NAMES

if TYPE_CHECKING:
    import pandas as pd

#: Longest text shown of an example, in characters, and how many mistakes are shown.
EXCERPT_CHARACTERS = 200
MISTAKES = 20

#: Columns beside those of the probabilities, which bear the names of the labels.
_ACTUAL, _PREDICTED = "actual label", "predicted label"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DASHBOARD = re.compile(r"metric_[0-9a-f]{32}")


def render(
    results: dict[str, Any],
    *,
    predictions: pd.DataFrame,
    texts: dict[str, str],
    history: History,
    params: EvaluateParams,
) -> tuple[str, list[dict[str, Any]]]:
    """Render the report.

    Args:
        results: what :func:`bert_ops.evaluate.scoring.assemble` gives, with its ``verdict``.
        predictions: example_id, label, predicted, score_LABEL… of the test split.
        texts: text by example_id.
        history: the training curve.
        params: thresholds, rows drawn.

    Returns:
        The page, and its tests as ``{name, status, description}``.
    """
    os.environ["DO_NOT_TRACK"] = "1"  # Evidently reads it while it is imported
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from sklearn.exceptions import UndefinedMetricWarning

    drawn = _sample(predictions, rows=params.report_examples, seed=params.seed)
    frames = {
        "results": pd.DataFrame({"json": [json.dumps(results, ensure_ascii=False)]}),
        "history": _history_frame(history),
        "mistakes": worst_mistakes(predictions, texts=texts),
    }
    labels = results["labels"]
    report = Report(_sections(results, params=params, drawn=len(drawn)), include_tests=False)
    with warnings.catch_warnings():
        # A class that is never predicted has no precision: scikit-learn warns, and the page shows it.
        warnings.filterwarnings("ignore", category=UndefinedMetricWarning)
        snapshot = report.run(
            _dataset(drawn, labels if results["calibration"] is not None else None),
            None,
            additional_data={
                name: Dataset.from_pandas(frame, data_definition=DataDefinition()) for name, frame in frames.items()
            },
        )
    tests = [
        {"name": test.name, "status": test.status.value, "description": test.description}
        for test in snapshot.tests_results
    ]
    return deterministic(snapshot.get_html_str(as_iframe=False)), tests


def _sections(results: dict[str, Any], *, params: EvaluateParams, drawn: int) -> list[Any]:
    from evidently.presets import ClassificationPreset
    from evidently.tests import gt, lte

    from bert_ops.evaluate.evidently_sections import SectionMetric

    metric = METRIC_NAMES[results["metric"]]
    against = [
        SectionMetric(
            section="against",
            subject=name,
            title=f"{metric[0].upper()}{metric[1:]} minus that of {name}, lower end of the 95% interval",
            tests=[gt(0.0, is_critical=name == "majority")],
        )
        for name in results["baselines"]
    ]
    sections = [
        SectionMetric(section="verdict", title="Verdict"),
        SectionMetric(section="scores", title=f"{metric[0].upper()}{metric[1:]}"),
        *against,
        SectionMetric(section="curves", title="Validation loss at the end"),
        SectionMetric(
            section="overfitting", title="Overfitting of the weights kept (0 no, 1 warning, 2 yes)", tests=[lte(1.0)]
        ),
        SectionMetric(section="leakage", title="Test texts that stand in another split", tests=[lte(0.0)]),
        SectionMetric(section="mistakes", title="Mistakes shown"),
    ]
    if results["calibration"] is None:
        return sections
    calibration = SectionMetric(
        section="calibration",
        title="Calibration error (ECE)",
        tests=[lte(params.max_calibration_error, is_critical=False)],
    )
    return [
        *sections[:-2],
        calibration,
        *sections[-2:],
        SectionMetric(section="preset", title="Rows drawn below", subject=str(drawn)),
        # its own include_tests=False raises AttributeError in 0.7.23; the report's is enough to keep default tests out
        ClassificationPreset(),
    ]


def worst_mistakes(predictions: pd.DataFrame, *, texts: dict[str, str]) -> pd.DataFrame:
    """Choose the answers that are farthest off, of equal ones those that the model was surest of.

    Returns:
        Columns text (an excerpt), label, predicted and, where the kind of task has one, confidence.
    """
    import pandas as pd

    wrong = predictions[predictions["mistake"] > 0]
    wrong = wrong.sort_values(["mistake", "confidence", "example_id"], ascending=[False, False, True]).head(MISTAKES)
    shown = pd.DataFrame(
        {
            "text": [excerpt(texts[example]) for example in wrong["example_id"]],
            "label": [excerpt(text) for text in wrong["label"]],
            "predicted": [excerpt(text) for text in wrong["predicted"]],
        }
    )
    if predictions["confidence"].notna().all():
        shown["confidence"] = [f"{value:.1%}" for value in wrong["confidence"]]
    return shown


def excerpt(text: str) -> str:
    """Shorten a text to what a report may show."""
    return text if len(text) <= EXCERPT_CHARACTERS else text[: EXCERPT_CHARACTERS - 1] + "…"


def deterministic(html: str) -> str:
    """Replace Evidently's random identifiers by numbers in order of appearance, and make the data safe to embed.

    Only the data block, which stands in the head, is touched: the library in the body holds identifiers of its own.
    Texts of users stand in the data as JSON; a `</script>` in one of them would end the block, so `</` is escaped.
    """
    head, mark, body = html.partition("</head>")
    assert mark, "Evidently's page has no head"
    numbers: dict[str, str] = {}
    counter = count()

    def numbered(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], f"00000000-0000-4000-8000-{next(counter):012x}")

    start, end = head.index("<script>") + len("<script>"), head.rindex("</script>")
    data = _UUID.sub(numbered, head[start:end]).replace("</", "<\\/")
    head = head[:start] + data + head[end:]
    return _DASHBOARD.sub("report", head) + mark + _DASHBOARD.sub("report", body)


def _sample(predictions: pd.DataFrame, *, rows: int, seed: int) -> pd.DataFrame:
    if len(predictions) <= rows:
        return predictions
    from bert_ops.seeding import derive

    chosen = predictions.sample(n=rows, random_state=derive(seed, "evaluate", "report") % 2**32)
    return chosen.sort_values("example_id", ignore_index=True)


def _history_frame(history: History) -> pd.DataFrame:
    import pandas as pd

    columns = {"step": history.step, "train_loss": history.train_loss, "validation_loss": history.validation_loss}
    if history.validation_accuracy is not None:
        columns["validation_accuracy"] = history.validation_accuracy
    return pd.DataFrame(columns)


def _dataset(predictions: pd.DataFrame, labels: list[str] | None) -> Any:
    """Give Evidently the answers of a classifier, or of another kind of task their texts."""
    from evidently import DataDefinition, Dataset

    if labels is None:
        table = predictions[["label", "predicted"]].rename(columns={"label": _ACTUAL, "predicted": _PREDICTED})
        return Dataset.from_pandas(table, data_definition=DataDefinition())
    return Dataset.from_pandas(_answers(predictions, labels), data_definition=_definition(labels))


def _answers(predictions: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Name the columns as Evidently wants them: actual, predicted, and a column of probabilities a label."""
    import pandas as pd

    scores = predictions[[f"score_{label}" for label in labels]].to_numpy(dtype=float)
    scores /= scores.sum(axis=1, keepdims=True)  # float32 sums to one within 1e-7, of which scikit-learn complains
    answers = pd.DataFrame({_ACTUAL: predictions["label"], _PREDICTED: predictions["predicted"]})
    return answers.assign(**dict(zip(labels, scores.T, strict=True)))


def _definition(labels: list[str]) -> Any:
    """Declare the task to Evidently. Two classes need ``pos_label``: as multiclass they raise KeyError in 0.7.23.

    The last label in sorted order is the positive one ("negative" < "positive", "0" < "1").
    """
    from evidently import BinaryClassification, DataDefinition, MulticlassClassification

    if len(labels) == 2:
        label = max(labels)
        task: Any = BinaryClassification(
            target=_ACTUAL, prediction_labels=_PREDICTED, prediction_probas=label, pos_label=label
        )
    else:
        task = MulticlassClassification(target=_ACTUAL, prediction_labels=_PREDICTED, prediction_probas=labels)
    return DataDefinition(classification=[task], categorical_columns=[_ACTUAL, _PREDICTED], numerical_columns=labels)

"""Runs the steps of a job: those of a run in which nothing changed in one process, all others in a process each.

A process for a step costs more than a second; a stage that DVC finds unchanged has nothing in it to isolate. So the
executor asks DVC first, and takes the short way if all selected stages are as ``dvc.lock`` has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.executor.multiprocess import MultiprocessExecutor

from .assets import FORCE_TAG
from .errors import BridgeError
from .pipeline import Pipeline
from .resources import DvcProject
from .translator import op_name

_MAX_CONCURRENT_STEPS = 4


class PipelineExecutor(dg.Executor):
    """Chooses between one process and many when a run starts.

    Args:
        pipeline: whose stages the steps run.
        preload: modules that a step worker finds loaded: a forked one costs about 1.2 s then, a spawned one 2.7 s.
    """

    def __init__(self, pipeline: Pipeline, preload: Sequence[str]) -> None:
        self._root = pipeline.root
        self._stages = {op_name(stage): stage.name for stage in pipeline.stages}
        dependencies = StepDependencyConfig.default()
        self._many = MultiprocessExecutor(
            RetryMode.ENABLED,
            max_concurrent=_MAX_CONCURRENT_STEPS,
            start_method="forkserver",
            explicit_forkserver_preload=list(preload) or None,
            step_dependency_config=dependencies,
        )
        self._one = InProcessExecutor(RetryMode.ENABLED, step_dependency_config=dependencies)

    @property
    def retries(self) -> RetryMode:
        """Retry policies of assets are followed."""
        return self._many.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """A step starts when all steps that it needs have ended."""
        return self._many.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Run the steps; see :class:`dagster.Executor`."""
        ops = {step.node_handle.name for step in execution_plan.get_all_steps_in_topo_order()}
        stages = [self._stages[name] for name in ops if name in self._stages]
        forced = _is_forced(plan_context.dagster_run.tags, plan_context.run_config)
        short = len(stages) == len(ops) and not forced and self._all_unchanged(stages)
        yield from (self._one if short else self._many).execute(plan_context, execution_plan)

    def _all_unchanged(self, names: list[str]) -> bool:
        try:
            found = DvcProject(root=str(self._root)).snapshot().stages
            return not any(found[name].why for name in names)
        except BridgeError:
            return False  # the step will say what is wrong


def pipeline_executor(pipeline: Pipeline, preload: Sequence[str]) -> dg.ExecutorDefinition:
    """Define the executor for Dagster."""

    @dg.executor(name="dvc", requirements=dg.multiple_process_executor_requirements())
    def dvc_executor(_context: dg.InitExecutorContext) -> dg.Executor:
        return PipelineExecutor(pipeline, preload)

    return dvc_executor


def _is_forced(tags: Mapping[str, str], run_config: Mapping[str, Any]) -> bool:
    configured = (op.get("config") or {} for op in (run_config.get("ops") or {}).values())
    return FORCE_TAG in tags or any(config.get("force") for config in configured)

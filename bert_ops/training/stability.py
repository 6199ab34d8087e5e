"""Guard against losses that are no number and losses that jump: leave a step out, go back, or stop with a diagnosis.

A step is judged after its backward pass and before its update. What may have happened, and what is done:

* *One bad batch, or a rounding accident.* The step is left out; the weights never see it.
* *The updates before broke the weights.* Skipping does not help, because skipped steps leave the weights as they are:
  after ``max_skips_in_a_row`` the caller restores a checkpoint that is known to be good (:attr:`StabilityGuard.
  good_step`) and goes on with later data at a lower rate (as Chowdhery et al. 2022, arXiv:2204.02311, section 5.1,
  who restarted about 100 steps before a spike and skipped the batches that were seen during it).
* *The data changed*: a harder source begins. Then good weights have the higher loss as well: spikes that go on from
  the very first step after a rollback make the new level the normal one. So do spikes that are no rarity among the
  recent losses: a kind of text that is hard must not be left out for ever. Neither holds for a loss far above that of
  the untrained weights, which no text explains.
* *Something is wrong that no rollback mends.* After ``max_rollbacks`` the run stops and says what was seen.

The guard is a function of what it is given: its state is JSON, exact, and part of a checkpoint.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from bert_ops.training.params import StabilityParams

Verdict = Literal["ok", "skip", "rollback", "stop"]

#: Losses that a mean needs, as a share of the window, and at least so many: the deviation of a few is often far off.
_LEAST_SHARE, _LEAST = 0.2, 20

#: Share of the recent losses from which on spikes are no rarity but a part of the data.
_COMMON_SHARE = 0.05

#: Smallest standard deviation, as a share of the mean loss: on a curve without noise any wiggle would be a spike.
_LEAST_DEVIATION = 0.01

#: Overflows in a row that a loss scaler may take to find its scale: it halves from 2**16, and may start higher.
_MOST_OVERFLOWS = 30

#: Loss above which no text is an explanation, as a multiple of the largest of the first losses of the run.
_WORST_TEXT = 1.5

#: Skipped steps that a diagnosis remembers.
_REMEMBERED = 20


class StabilityGuard:
    """Judges steps by their loss and gradient norm.

    Args:
        params: bounds; see :class:`~bert_ops.training.params.StabilityParams`.

    Attributes:
        skipped: steps that were left out so far, all told.
        rollbacks: how often the weights were taken from an earlier checkpoint.
        good_step: newest step whose weights are known to be good, because the step after it had a loss as expected.
            A rollback restores a checkpoint of this step or an earlier one; the newest may hold the broken weights.

    """

    def __init__(self, params: StabilityParams) -> None:
        self.params = params
        self.skipped = 0
        self.rollbacks = 0
        self.good_step = 0
        #: Recent finite losses and whether each was accepted, oldest first.
        self._recent: deque[tuple[float, bool]] = deque(maxlen=params.window)
        self._skips_in_a_row = 0
        self._overflows_in_a_row = 0
        self._step = 0
        #: Largest of the first accepted losses of the run, and how many of them there were.
        self._start, self._start_count = 0.0, 0
        #: True from a rollback to the first step that is accepted: the weights are those of the checkpoint.
        self._weights_restored = False
        self._remembered: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)

    @property
    def rate_scale(self) -> float:
        """What the learning rate is multiplied by, after the rollbacks so far."""
        return float(self.params.rate_factor**self.rollbacks)

    def judge(self, *, loss: float, norm: float, step: int | None = None, may_overflow: bool = False) -> Verdict:
        """Judge a step before its update.

        Args:
            loss: mean loss of the step, over all processes.
            norm: norm of its gradient, before clipping and after unscaling.
            step: number of the step, from 1; None counts on from the last one.
            may_overflow: a loss scaler is at work (float16), whose way to find its scale is to overflow now and then.

        Returns:
            "ok": update; "skip": leave the step out; "rollback": restore a checkpoint (:attr:`good_step`), then call
            :meth:`rolled_back`; "stop": give up, with :meth:`diagnosis`.

        """
        self._step = self._step + 1 if step is None else step
        reason = self._reason(loss, norm)
        if reason is None:
            return self._accept(loss)
        if may_overflow and math.isfinite(loss) and not math.isfinite(norm):
            self._overflows_in_a_row += 1
            if self._overflows_in_a_row <= _MOST_OVERFLOWS:
                self.skipped += 1
                return "skip"
        return self._refuse(loss, norm, reason)

    def rolled_back(self, checkpoint_state: Mapping[str, Any] | None = None) -> None:
        """Note that the weights of an earlier checkpoint are in place.

        Checkpoints between it and now hold weights that led here: the caller removes them.

        Args:
            checkpoint_state: the guard's state in that checkpoint. The losses of its time are what its weights are
                judged by; without it they are judged anew, and only NaN and infinity are refused at first.

        """
        self.rollbacks += 1
        self._skips_in_a_row = 0
        self._overflows_in_a_row = 0
        self._weights_restored = True
        self._recent.clear()
        if checkpoint_state is not None:
            self._recent.extend((loss, accepted) for loss, accepted in checkpoint_state["recent"])
            self.good_step = min(self.good_step, int(checkpoint_state["step"]))

    def diagnosis(self) -> str:
        """Say what happened, at which steps and with which values; :meth:`remedy` says what to try."""
        tried = f"; {self.rollbacks} rollbacks did not mend it" if self.rollbacks else ""
        lines = [f"training is not stable: {self.skipped} steps were left out{tried}; the last of them:"]
        lines += [
            f"  step {seen['step']}: loss {seen['loss']}, gradient norm {seen['norm']}: {seen['reason']}"
            for seen in list(self._remembered)[-5:]
        ]
        return "\n".join(lines)

    def last_reason(self) -> str | None:
        """Why the last step that was left out was, or None if there was none."""
        return str(self._remembered[-1]["reason"]) if self._remembered else None

    def remedy(self) -> str:
        """What to try, most likely cure first."""
        kinds = {seen["kind"] for seen in self._remembered}
        advice = ["lower optimizer.learning_rate or lengthen schedule.warmup_steps", "set clipping.norm to 1.0 or less"]
        if "number" in kinds:
            advice.append("set precision to float32 to see whether rounding is the cause")
        if "spike" in kinds:
            advice.append("look at the text of these steps")
            advice.append("raise stability.spike_deviations if these losses are in order")
        return "; ".join(advice)

    def state(self) -> dict[str, Any]:
        """State as JSON; :meth:`restore` of it goes on bit for bit."""
        return {
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "good_step": self.good_step,
            "recent": [[loss, accepted] for loss, accepted in self._recent],
            "skips_in_a_row": self._skips_in_a_row,
            "overflows_in_a_row": self._overflows_in_a_row,
            "step": self._step,
            "start": [self._start, self._start_count],
            "weights_restored": self._weights_restored,
            "remembered": [dict(seen) for seen in self._remembered],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self.skipped, self.rollbacks, self.good_step = state["skipped"], state["rollbacks"], state["good_step"]
        self._recent = deque(((loss, accepted) for loss, accepted in state["recent"]), maxlen=self.params.window)
        self._skips_in_a_row, self._overflows_in_a_row = state["skips_in_a_row"], state["overflows_in_a_row"]
        self._step, self._weights_restored = state["step"], state["weights_restored"]
        self._start, self._start_count = state["start"]
        self._remembered = deque((dict(seen) for seen in state["remembered"]), maxlen=_REMEMBERED)

    def _reason(self, loss: float, norm: float) -> str | None:
        """Why a step is refused, or None."""
        if not math.isfinite(loss):
            return "the loss is not a finite number"
        if not math.isfinite(norm):
            return "the gradient is not finite"
        bound = self.spike_bound()
        if bound is not None and loss > bound:
            return f"the loss is above {bound:.4g}, {self.params.spike_deviations:g} deviations over the recent mean"
        return None

    def spike_bound(self) -> float | None:
        """Loss above which a step is a spike; None while there are too few losses, or if spikes are not looked for."""
        accepted = [loss for loss, was_accepted in self._recent if was_accepted]
        enough = min(max(_LEAST, int(_LEAST_SHARE * self.params.window)), self.params.window // 2)
        if self.params.spike_deviations == 0 or len(accepted) < enough:
            return None
        # fsum rounds once, whatever the order: the same window gives the same bits.
        mean = math.fsum(accepted) / len(accepted)
        variance = math.fsum((loss - mean) ** 2 for loss in accepted) / len(accepted)
        deviation = max(math.sqrt(variance), _LEAST_DEVIATION * abs(mean))
        return mean + self.params.spike_deviations * deviation

    def _accept(self, loss: float) -> Verdict:
        self._recent.append((loss, True))
        if self._start_count < _LEAST:
            self._start, self._start_count = max(self._start, loss), self._start_count + 1
        self._skips_in_a_row = 0
        self._overflows_in_a_row = 0
        self._weights_restored = False
        self.good_step = self._step - 1
        return "ok"

    def _refuse(self, loss: float, norm: float, reason: str) -> Verdict:
        is_spike = math.isfinite(loss) and math.isfinite(norm)
        if is_spike and self._is_normal_now(loss):
            # What was refused lately is data like any other: the bound is taken over all of it from now on.
            self._recent = deque(((value, True) for value, _ in self._recent), maxlen=self.params.window)
            return self._accept(loss)
        if is_spike:
            self._recent.append((loss, False))
        self.skipped += 1
        self._skips_in_a_row += 1
        kind = "spike" if is_spike else "number"
        # As text: a checkpoint is strict JSON, which has no NaN.
        seen = {"step": self._step, "loss": f"{loss:.4g}", "norm": f"{norm:.4g}", "reason": reason, "kind": kind}
        self._remembered.append(seen)
        if self._skips_in_a_row < self.params.max_skips_in_a_row:
            return "skip"
        return "rollback" if self.rollbacks < self.params.max_rollbacks else "stop"

    def _is_normal_now(self, loss: float) -> bool:
        """Tell whether a spike is what the data looks like: the third case above."""
        if loss > _WORST_TEXT * self._start:
            return False
        most = self.params.max_skips_in_a_row
        if self._weights_restored and self._skips_in_a_row + 1 >= most:
            return True
        # Those of the run of skips that is going on are for a rollback to judge.
        earlier = sum(not was_accepted for _, was_accepted in self._recent) - self._skips_in_a_row
        return earlier > max(most, _COMMON_SHARE * self.params.window)

"""The map of training: hooks, optimizers, schedules, and their registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frcnn.config import Registry

if TYPE_CHECKING:
    from frcnn.engine.trainer import Trainer
    from frcnn.engine.validation import Evaluation


class Hook:
    """Something that happens at named moments of training. Every moment is given the trainer.

    The moments of one step are before_step, after_backward (gradients are there, weights still old) and after_step (weights
    are new, `trainer.iteration` has counted the step). Then comes between_steps. What belongs to every step (a sum, an average)
    is done in after_step, and what happens at an interval in between_steps: an error there loses no step. The checkpoint that is
    then saved holds the hooks' states from before that moment, and a resumed run begins by repeating it.

    Attributes:
        order: hooks run in the order of this number and, where it is the same, of the config. Checkpoints (100) come after
            everything whose state they hold and before what may take long or fail without harm, such as pictures (110).
    """

    order: int = 50

    def before_train(self, trainer: Trainer) -> None:
        """Once, before the first step; after a checkpoint has been restored."""

    def before_step(self, trainer: Trainer) -> None:
        """Before the forward pass; `trainer.batch` is the batch."""

    def after_backward(self, trainer: Trainer) -> None:
        """After the gradients are complete, unscaled and clipped, before the optimizer uses them."""

    def after_step(self, trainer: Trainer) -> None:
        """After the optimizer's step."""

    def between_steps(self, trainer: Trainer) -> None:
        """After every hook's after_step: the place for evaluating, saving and writing, where `trainer.is_due` says so."""

    def after_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """After the test sets have been evaluated, on every process; metrics are the same on all."""

    def after_train(self, trainer: Trainer) -> None:
        """Once, after the last step or a stop that was asked for."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """When training ends by an exception, before it goes on to the caller."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep for an exact resume: tensors and plain Python."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


class Optimizer:
    """(model) | a torch optimizer over the model's trainable parameters.

    Attributes:
        reference_batch_size: the global batch size that the learning rate was chosen for; None does not scale it.
    """

    reference_batch_size: int | None


class Schedule:
    """() | a pure function of progress: the factor on every learning rate at an iteration."""

    def __call__(self, iteration: int, total: int, epoch_length: float) -> float:
        """The factor at one iteration.

        Args:
            iteration: steps done so far.
            total: steps of the whole training.
            epoch_length: iterations an epoch.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__()")

    def check(self, total: int, epoch_length: float) -> None:
        """Called once before training: refuses what makes no sense for this length and warns of what has no effect.

        Args:
            total: steps of the whole training.
            epoch_length: iterations an epoch.

        Raises:
            UserError: the schedule contradicts itself.
        """


HOOKS = Registry(Hook)
OPTIMIZERS = Registry(Optimizer, wiring=("model",))
SCHEDULES = Registry(Schedule)

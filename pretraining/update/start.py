"""What a run does that goes on from last month's model, or that next month's is to go on from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pretraining.update.average import open_average, read_share
from pretraining.update.trunk import KeepTrunk, check_schedule, check_trunk
from shared.tokenizer import tokenizer_hash
from shared.training.processes import engine_name


@dataclass
class AverageArguments:
    keep_trunk: ClassVar[bool] = False  # of a script without that flag
    average_with: str | None = field(
        default=None, metadata={"help": "An older model and its share; OLD:0.3 makes the weights .7 new and .3 old."}
    )

    def __post_init__(self) -> None:
        if self.average_with is not None:
            read_share(self.average_with)
        super().__post_init__()  # type: ignore[misc]  # of the other arguments of the script


@dataclass
class UpdateArguments(AverageArguments):
    keep_trunk: bool = field(  # type: ignore[misc]
        default=False,
        metadata={
            "help": "Keep the model of the last step before warmup_stable_decay lowers the learning rate, in "
            "output_dir/trunk: an update goes on from it by --model_name_or_path OLD/trunk."
        },
    )


class Update:
    """What the flags ask for. Raises InputError, before work starts, for a trunk or older model that cannot serve."""

    def __init__(self, model_args: Any, data_args: AverageArguments, training_args: Any) -> None:
        check_schedule(data_args.keep_trunk, training_args)
        check_trunk(model_args.model_name_or_path)
        self.keeps_trunk = data_args.keep_trunk
        self.average = open_average(data_args.average_with, engine_name(training_args))
        # For the comparison with the run that is in the folder.
        self.identity = {"averaged_with": self.average.hashes} if self.average else {}

    def callbacks(self, model: Any, tokenizer: Any) -> list[Any]:
        """For the Trainer of this model. Raises InputError unless it can be averaged with the older one."""
        if self.average:
            self.average.check(model)
        return [KeepTrunk(tokenizer_hash(tokenizer))] if self.keeps_trunk else []

    def finish(self, trainer: Any, say: Callable[[str], None]) -> None:
        """Average the trained weights, when that was asked for; checkpoints hold those before it."""
        if self.average:
            model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
            say(self.average.apply(model, trainer.processing_class.get_vocab()))

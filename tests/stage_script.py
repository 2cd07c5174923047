"""A small stage for tests: drops documents with an odd number, knows damaged ones, can be slow, die or write more."""

import os
import sys
import time
from dataclasses import dataclass, field

import pyarrow as pa

from data_prep.engine.run import run_stage
from data_prep.engine.stage import Outcome, StageArguments, document_phase, settings_of
from shared.command_line import run_script
from shared.rows import find_sources, read_rows

LENGTHS = pa.schema({"id": pa.string(), "length": pa.int64()})


@dataclass
class EvenArguments:
    keep_odd: bool = field(default=False)
    delay: float = field(default=0.0)
    die: bool = field(default=False)


@dataclass(frozen=True)
class Even:
    keep_odd: bool
    delay: float
    die: bool

    def __call__(self, source, position):
        for here, share, row, problem in read_rows(source, position):
            time.sleep(self.delay)
            if self.die:
                os.kill(os.getpid(), 9)
            if problem:
                yield Outcome(here, share, row, problem, bad=True)
                continue
            odd = int(row["text"].split()[-1]) % 2 and not self.keep_odd
            extra = {"lengths": [{"id": row["id"], "length": len(row["text"])}]}
            yield Outcome(here, share, row, "odd" if odd else "", detail=row["text"][:9], extra=extra)


def main(stage_args, args):
    sources = find_sources(stage_args.input)
    settings = settings_of(stage_args, args)
    del settings["delay"], settings["die"]
    phase = document_phase(stage_args, sources, Even(args.keep_odd, args.delay, args.die), {"lengths": LENGTHS})
    return run_stage("even", stage_args, settings, sources, [phase])


if __name__ == "__main__":
    sys.modules["tests.stage_script"] = sys.modules["__main__"]
    run_script(main, StageArguments, EvenArguments)

"""The errors that scripts show as one line."""


class InputError(Exception):
    """A flag, recipe or file is wrong. The message names it and says what to do; scripts exit with 2."""


class RunError(Exception):
    """A run cannot go on. The message says what happened, what is safe and what to do; scripts exit with 1."""


class BadRecordsError(Exception):
    """More of the input is damaged than `--max_bad_records` allows; scripts exit with 3."""


def one_line(error: BaseException, most: int | None = 400) -> str:
    """What an error of a library says, in one line of at most `most` characters."""
    return " ".join(str(error).split())[:most]

"""The errors that scripts show as one line."""


class InputError(Exception):
    """A flag, recipe or file is wrong. The message names it and says what to do; scripts exit with 2."""


class RunError(Exception):
    """A run cannot go on. The message says what happened, what is safe and what to do; scripts exit with 1."""


class BadRecordsError(Exception):
    """More of the input is damaged than `--max_bad_records` allows; scripts exit with 3."""


def one_line(error: BaseException, most: int | None = 400) -> str:
    """What an error of a library says, in one line of at most `most` characters."""
    text = " ".join(str(error).split())
    if text.startswith("Repo id must "):  # the Hub's library about the name of a folder that is not there
        return "no such folder, and no id of the Hub (name or organization/name)"
    if text.startswith("We couldn't connect to "):
        return "no such folder here, and the Hub cannot be reached to look for one of this name"
    return text[:most]

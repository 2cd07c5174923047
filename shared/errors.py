"""The one exception for wrong input."""


class InputError(Exception):
    """A flag, recipe or file is wrong. The message names it and says what to do; scripts exit with 2."""

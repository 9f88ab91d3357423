"""The error of input that cannot be used."""


class InputError(ValueError):
    """Data or settings break a rule; the message says which, and how to mend it.

    Commands show it as one sentence, while any other ValueError is a bug and keeps its traceback.
    """


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that the data or the settings name is not there; the message says which."""


class WriteError(OSError):
    """A file cannot be written, as on a full disk; the message names it and says how to go on."""

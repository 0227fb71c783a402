"""The errors that mmrec_tf raises on purpose.

    MmrecError            anything below; a command prints it in one line and exits with 1
    +-- ConfigError       a setting or an argument that cannot be used (exit status 2)
    +-- DatasetError      a dataset directory, or a source table, that is missing or damaged
    +-- MediaError        one picture, sound or text that cannot be decoded
    +-- RunError          a run directory that is missing or does not fit
    +-- TuningError       a search without a completed trial
    +-- ExportError       an export that failed its own checks
    +-- ServingError      a server that is missing, or that refused a request

Every message says what was wanted, what came, and what to do.
"""


class MmrecError(Exception):
    """The parent of all errors raised on purpose."""


class ConfigError(MmrecError):
    """A setting or an argument that cannot be used."""


class DatasetError(MmrecError):
    """A dataset directory, or a source table, that is missing or damaged."""


class MediaError(MmrecError):
    """One picture, sound or text that cannot be decoded.

    Attributes:
      decoder: what tried to, such as "opencv 4.11.0, pillow 12.3.0"; "" where nothing had to.
    """

    def __init__(self, message: str, *, decoder: str = ""):
        super().__init__(message)
        self.decoder = decoder


class RunError(MmrecError):
    """A run directory that is missing or does not fit."""


class TuningError(MmrecError):
    """A search without a completed trial."""


class ExportError(MmrecError):
    """An export that failed its own checks."""


class ServingError(MmrecError):
    """A server that is missing, or that refused a request."""

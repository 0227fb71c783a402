"""What a gateway answers to whoever asks for what it cannot do."""

from mmrec_tf.errors import MmrecError


class Refusal(MmrecError):
    """A request that is refused: an HTTP status, a code, a message, and the field at fault.

    Attributes:
      status: 4xx, or 503 for what may work later.
      code: for programs, such as "invalid".
      field: of the request; "" where none is at fault.
      retry_seconds: when to ask again; None where that would change nothing.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str = "",
        retry_seconds: float | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.retry_seconds = retry_seconds


def invalid(field: str, message: str) -> Refusal:
    """A 400 that names the field."""
    return Refusal(400, "invalid", f"{field}: {message}", field=field)


def busy(message: str, *, retry_seconds: float = 1.0) -> Refusal:
    """A 503 that says when to come again."""
    return Refusal(503, "unavailable", message, retry_seconds=retry_seconds)

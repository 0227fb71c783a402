"""What a gRPC status means to the caller, and what to do about it."""

from collections.abc import Sequence

from grpc import StatusCode


def too_large(details: str) -> bool:
    """Whether a message exceeded a gRPC limit, on either side."""
    return "larger than max" in details


def lacks_signature(code: StatusCode, details: str) -> bool:
    """Whether the model has no such signature."""
    return code is StatusCode.FAILED_PRECONDITION and details.startswith("Serving signature")


def lacks_version(code: StatusCode, details: str) -> bool:
    """Whether the server lacks that version of the model, or the whole model."""
    return code is StatusCode.NOT_FOUND


def explain(
    code: StatusCode,
    details: str,
    *,
    address: str,
    asked: str,
    attempts: int,
    timeout_seconds: float,
    instead: Sequence[str],
) -> str:
    """One line for the caller.

    Args:
      code: how the call ended.
      details: its text.
      address: the server's.
      asked: `model` or `model/signature`.
      attempts: how many attempts were made.
      timeout_seconds: that one call may take.
      instead: the signatures or versions that exist, when the one asked for does not.
    """
    model = asked.split("/")[0]
    if too_large(details):
        return (
            f"{asked} at {address}: {details}. Send smaller batches, or allow more with "
            "max_message_bytes."
        )
    if code is StatusCode.UNAVAILABLE:
        return (
            f"no answer from {address} after {attempts} attempts ({details}). Check the address "
            "and whether the server wants TLS (--tls-ca), or start one with "
            '"python -m serving.local_server EXPORT".'
        )
    if code is StatusCode.DEADLINE_EXCEEDED:
        return (
            f"{asked} at {address} took longer than {timeout_seconds:g} seconds. Allow more with "
            "timeout_seconds (--timeout-seconds), or send smaller batches."
        )
    if lacks_version(code, details) and instead:
        return (
            f"{address} does not serve this version of {model}: {details}. Ask for one that it "
            f"serves ({', '.join(instead)}), or for none, which is the newest."
        )
    if lacks_version(code, details):
        return (
            f"{address} does not serve {model}: {details}. Put its export into the served "
            "directory, or ask for another model."
        )
    if code is StatusCode.INVALID_ARGUMENT and details.startswith("Unrecognized servable version"):
        return (
            f"{address} has no such label of {model}: {details}. Set it in version_labels of the "
            "server's models.config, or ask by version."
        )
    if lacks_signature(code, details):
        return (
            f"{asked}: {details} Ask for one that the model has: "
            f"{', '.join(instead) or 'see its metadata'}."
        )
    if code is StatusCode.UNIMPLEMENTED:
        return (
            f"{address} does not answer this call ({details}). Is it the gRPC port of a "
            "TensorFlow Serving?"
        )
    if code is StatusCode.RESOURCE_EXHAUSTED:
        return (
            f"{address} is too busy for {asked} after {attempts} attempts ({details}). Send fewer "
            "requests at once, or give the server more --grpc_max_threads."
        )
    return f"{address} refused {asked} ({code.name}): {details}"

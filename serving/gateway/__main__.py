"""The command `python -m serving.gateway`."""

import importlib
import sys

from mmrec_tf.errors import run_command

# What else than serving may be asked, and where it is.
COMMANDS = {
    "estimate": "serving.gateway.estimates.command",
    "export": "serving.gateway.night.command",
}


def main(arguments: list[str] | None = None) -> int:
    """Parses and runs; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    name = given[0] if given and given[0] in COMMANDS else ""
    module = importlib.import_module(COMMANDS.get(name, "serving.gateway.serve"))
    options = module.parser().parse_args(given[bool(name) :])
    return run_command(lambda: module.run(options), name="serving.gateway")


if __name__ == "__main__":
    sys.exit(main())

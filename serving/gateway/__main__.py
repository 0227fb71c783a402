"""The command `python -m serving.gateway`."""

import importlib
import sys

from mmrec_tf.errors import run_command

# What else than serving may be asked: its module, what parses its options, and what runs it.
COMMANDS = {
    "estimate": ("serving.gateway.estimates.command", "parser", "run"),
    "export": ("serving.gateway.night.command", "parser", "run"),
    "drain": ("serving.gateway.night.drain", "parser", "run"),
    "gate": ("serving.gateway.night.gate", "parser", "run"),
    "night": ("serving.gateway.night.nightly", "night_parser", "run_night"),
    "decide": ("serving.gateway.night.nightly", "decide_parser", "run_decide"),
}
_SERVE = ("serving.gateway.serve", "parser", "run")


def main(arguments: list[str] | None = None) -> int:
    """Parses and runs; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    name = given[0] if given and given[0] in COMMANDS else ""
    path, parser, run = COMMANDS.get(name, _SERVE)
    module = importlib.import_module(path)
    options = getattr(module, parser)().parse_args(given[bool(name) :])
    return run_command(lambda: getattr(module, run)(options), name="serving.gateway")


if __name__ == "__main__":
    sys.exit(main())

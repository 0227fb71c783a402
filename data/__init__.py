"""Programs that make dataset directories; `python -m data.prepare` is the command."""

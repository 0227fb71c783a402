"""The programs that make dataset directories; the command is `python -m data.prepare`."""

"""The HTTP interface of the local server."""

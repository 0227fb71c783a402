"""One module a source of data, each with the options of its command."""

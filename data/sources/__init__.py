"""One module or package for each source of data, with the options of its command."""

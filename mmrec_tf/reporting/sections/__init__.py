"""The parts of a report, a file each: material in, HTML out."""

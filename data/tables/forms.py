"""Which form a file holds a table in, by its name and by what it begins with."""

import pathlib
from dataclasses import replace

from data.tables.delimited import Csv
from data.tables.json_lines import JsonLines
from data.tables.opening import open_bytes
from data.tables.parquet import Parquet
from data.tables.rows import Form
from mmrec_tf.errors import DatasetError

READ = "CSV, TSV or JSON lines (also .gz), or Parquet"
# What other files begin with, and what to do with them.
_OTHERS = {
    b"PK\x03\x04": "a zip archive or a sheet of Excel; unpack it, or save it as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "a sheet of Excel; save it as CSV in UTF-8",
    b"PAR1": "Parquet; end its name with .parquet",
    b"\x1f\x8b": "gzip; end its name with .gz",
    b"BZh": "bzip2; unpack it, or pack it with gzip",
    b"\xfd7zXZ": "xz; unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "zstd; unpack it, or pack it with gzip",
    b"7z\xbc\xaf": "7z; unpack it, or pack it with gzip",
    b"ARROW1": "Feather; save it as Parquet",
    b"SQLite format": "a database; export its tables as CSV",
}


def form_of(path: pathlib.Path, text: Csv | None = None) -> Form:
    """How a file is read, by the ending of its name.

    Args:
      path: the file.
      text: how CSV and TSV are read, where that was said.

    Raises:
      DatasetError: for a file that is no table of these.
    """
    text = text or Csv(None)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    if suffixes[-1:] not in ([".parquet"], [".pq"]) and path.is_file():
        with open_bytes(path) as file:
            start = file.read(16)
        for sign, got in _OTHERS.items():
            if start.startswith(sign):
                raise DatasetError(f"{path}: wanted {READ}; got {got}.")
        if suffixes[-1:] in ([".xlsx"], [".xls"], [".ods"]):
            raise DatasetError(
                f"{path}: wanted {READ}; got the ending {suffixes[-1]}. Save the sheet as CSV."
            )
    match suffixes[-1:]:
        case [".parquet" | ".pq"]:
            return Parquet()
        case [".jsonl" | ".json"]:
            return JsonLines()
        case [".tsv"]:
            return replace(text, delimiter=text.delimiter or "\t")
    return text

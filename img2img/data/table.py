"""Tables beside images: CSV files with a head, a line an image."""

import csv
from pathlib import Path


def lines(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a table by the names of its columns in lower case, cells without the spaces around them.

    Args:
        path: a CSV file in UTF-8, with or without a byte order mark; empty lines are left out.
        columns: names that must stand in its first line, ``file`` among them; none of their cells may be empty, and
            files are relative to the table's folder.

    Raises:
        ValueError: no such table, or a row that is none.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable CSV file ({error}); save it as UTF-8 text") from error
    if not rows or not set(columns) <= rows[0][1].keys():
        raise ValueError(f"{path}: needs the columns {' and '.join(columns)}, and a line an image")
    found = []
    for number, row in rows:
        cells = {key: value.strip() for key, value in row.items() if key is not None}
        if empty := [name for name in columns if not cells[name]]:
            raise ValueError(f"{path}: line {number} has no {empty[0]}")
        found.append(cells)
    if missing := [row["file"] for row in found if not (path.parent / row["file"]).is_file()]:
        raise ValueError(f"{path}: {missing[0]!r} is no file; {len(missing)} of {len(found)} are missing")
    return found

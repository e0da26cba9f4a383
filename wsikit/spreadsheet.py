"""Tables that people write: CSV as spreadsheets save it, its cells by the names of their columns."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from wsikit.errors import LabelsError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}  # where the comma is the decimal mark, Excel separates by semicolons
_QUOTED = re.compile('"[^"]*"')


class Row(dict[str, str]):
    """A row's cells by column, without blanks around them, and the ``line`` of the file that it ends in."""

    def __init__(self, cells: dict[str, str], line: int) -> None:
        super().__init__(cells)
        self.line = line


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of a CSV, separated by commas, semicolons or tabs, whichever its header has most of.

    Rows without any value are left out, and so are columns without a name. What would be taken for another value than was meant is refused.

    Raises
    ------
    LabelsError
        It cannot be read, two columns have one name, or a row has more values than there are columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            head = _QUOTED.sub("", f.readline())
            f.seek(0)
            separator = max(SEPARATORS, key=head.count)
            reader = csv.reader(f, delimiter=separator)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except UnicodeDecodeError as e:
        raise LabelsError(f"{path}: cannot be read as CSV (it is not UTF-8); save it again, in Excel as 'CSV UTF-8'") from e
    except (OSError, csv.Error) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise LabelsError(f"{path}: cannot be read as CSV ({why}); check the path, and save it as CSV in UTF-8") from e
    header = lines[0][1] if lines else []
    while header and not header[-1]:
        header.pop()
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise LabelsError(f"{path}: there are several columns '{twice[0]}'; keep one")
    rows = [_row(path, line, header, cells, separator) for line, cells in lines[1:] if any(cells)]
    return [name for name in header if name], rows


def _row(path: Path, line: int, header: list[str], cells: list[str], separator: str) -> Row:
    if any(cells[len(header) :]):  # 0,25 without quotes would be read as 0
        what = SEPARATORS[separator]
        raise LabelsError(f"{path}: line {line} has more values than the header has columns; put a value with a {what} in quotes")
    return Row({name: cell for name, cell in zip(header, [*cells, *[""] * len(header)], strict=False) if name}, line)

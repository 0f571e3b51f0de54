"""Lines of CSV. What makes a cell safe to open in a spreadsheet is callwarden.kernel.printable; which columns there are
is in account_csv and in the records.
"""

import csv
import io
from collections.abc import Iterable, Sequence


def lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows as lines of CSV (RFC 4180)."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()

"""The record of a verdict in a user's own process, where `reports` may be a folder of the user's: loaded by its path."""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports import records
else:
    _path = Path(__file__).resolve().parents[1] / "reports" / "records.py"
    _spec = importlib.util.spec_from_file_location("veriformer._records", _path)
    records = sys.modules["veriformer._records"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(records)

VerdictRecord = records.VerdictRecord
verdict_record = records.verdict_record
Follows = records.Follows
follows = records.follows

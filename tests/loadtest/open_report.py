"""Open the report of a real load test in a browser: python -m tests.loadtest.open_report FOLDER."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.support.browser import dom_of

dom = dom_of(Path(sys.argv[1]) / "report.html")
drawn = re.search(r'data-charts="(\d+)"', dom)
if drawn is None or int(drawn[1]) != dom.count('class="marks"'):
    sys.exit("the report has charts that the browser did not draw")
print(f"the browser drew {drawn[1]} charts")

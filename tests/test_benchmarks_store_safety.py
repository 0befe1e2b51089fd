"""The embedding job, killed and run again, and two of them at once, leave the store that an undisturbed one leaves.

The short form of the benchmark: real processes of the real job on a sample catalogue.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "store_safety.py"

WRONG = (
    "of them twice",
    "of them other than undisturbed",
    "items lost",
    "items twice",
    "items too many",
    "rows that differ",
    "failures that differ",
    "interactions lost or too many",
    "stores that differ at the end",
)


@pytest.mark.slow  # a catalogue, a training and a dozen jobs; kills of a single writer are in test_store_safety.py
def test_three_kills_and_two_jobs_at_once_leave_the_same_store(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--kills", "3", "--pairs", "1", "--items", "60", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BENCHMARK.parent.parent)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d\d rows and [1-9] failures, 12 commits", done.stdout), done.stdout
    assert "two undisturbed runs differ in 0 places" in done.stdout
    cells = re.findall(r"^\| (.*?) \| (\d+) \|$", done.stdout, flags=re.MULTILINE)
    counts = {name: sum(int(count) for other, count in cells if other == name) for name, _ in cells}
    assert (counts["kills"], counts["pairs"]) == (3, 1)
    assert counts["jobs that did not finish"] == 0
    assert {name: counts[name] for name in WRONG} == dict.fromkeys(WRONG, 0)

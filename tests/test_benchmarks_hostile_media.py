"""Every kind of hostile file is listed, and no good one is lost: the benchmark in its short form."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "hostile_media.py"


def test_bad_ones_are_listed_and_good_ones_stored() -> None:
    command = [sys.executable, str(BENCHMARK), "--good", "60", "--bad", "56"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BENCHMARK.parent.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EMBEDDED" not in done.stdout
    row = [cell.strip() for cell in done.stdout.strip().splitlines()[-1].split("|")]
    assert row[1:5] == ["60", "60", "56", "56"]
    assert int(row[7].replace(",", "")) < 300

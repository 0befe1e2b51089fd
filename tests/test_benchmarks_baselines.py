"""The path of `benchmarks/baselines.py` on a real catalogue: does it run, resume, and print its table?"""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

HOUSE = Path(__file__).parent.parent
SOURCE = HOUSE.parent / "shared" / "data"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not SOURCE.is_dir(), reason=f"no real data at {SOURCE}"),
]


@pytest.fixture
def baselines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HOUSE / "benchmarks"))
    return importlib.import_module("baselines")


def test_runs_are_kept_and_shown_beside_those_from_elsewhere(
    baselines: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--source", str(SOURCE), "--out", str(tmp_path), "--tasks", "lastfm-2k"]
    arguments += ["--methods", "popularity", "EASE", "SASRec"]
    baselines.main(arguments)
    # SASRec needs an order, which these listeners lack.
    assert {file.name for file in tmp_path.glob("*.json")} == {"lastfm-2k_popularity.json", "lastfm-2k_EASE.json"}
    kept = json.loads((tmp_path / "lastfm-2k_EASE.json").read_text(encoding="utf-8"))
    assert kept["setting"] == "λ 100"
    reached = [kept["test"][name] for name in baselines.MEASURES.values()]
    assert reached == pytest.approx(baselines.ELSEWHERE["lastfm-2k", "EASE"], rel=0.002)
    first = capsys.readouterr().out
    assert "lastfm-2k, EASE: λ 100" in first

    monkeypatch.setattr(baselines, "run", None)
    baselines.main(arguments)
    again = capsys.readouterr().out
    assert "0.3955" in again
    assert first.endswith(again)

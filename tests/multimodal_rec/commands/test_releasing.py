"""The verbs on releases, as people and machines call them."""

import json
from pathlib import Path

from typer.testing import CliRunner

from multimodal_rec.cli import app


def call(*arguments: object):
    """The result of one command: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_store_is_published_listed_switched_rolled_back_and_tidied(saved: Path, tmp_path: Path) -> None:
    at = ("--store", tmp_path / "store")
    missing = call("versions", *at)
    assert (missing.exit_code, missing.stderr.startswith("error: no store at")) == (1, True)
    # The first verb with the model brings its rows along.
    first = call("publish", saved, "monday", *at, "--alias", "live")
    assert first.stdout.strip() == "release 'monday' published; 'live' stands for it", first.output
    assert call("delete", "i3", "nobody", *at).stdout.strip() == "1 of 2 items removed"
    assert json.loads(call("publish", saved, "tuesday", *at, "--json").stdout) == {"release": "tuesday", "alias": None}

    asked = ("--user", "u0", "--item", "i3")
    assert call("score", saved, *at, *asked, "--release", "live").exit_code == 0
    assert "item 'i3' is not embedded" in call("score", saved, *at, *asked).stderr
    assert call("switch", "tuesday", *at).stdout.strip() == "'live' stands for 'tuesday'"
    assert "item 'i3' is not embedded" in call("score", saved, *at, *asked, "--release", "live").stderr
    assert call("recommend", saved, *at, "--user", "u0", "--k", 2, "--release", "monday").exit_code == 0
    assert call("rollback", *at).stdout.strip() == "'live' stands for 'monday' again"

    listed = json.loads(call("versions", *at, "--json").stdout)
    assert list(listed["models"].values()) == [13]
    releases = {row["name"]: (row["release"], row["before"], row["items"]) for row in listed["releases"]}
    assert releases == {
        "monday": ("monday", None, 14),
        "tuesday": ("tuesday", None, 13),
        "live": ("monday", "tuesday", 14),
    }
    assert "tuesday" in call("versions", *at).stdout

    assert "'live' stands for release 'monday'" in call("withdraw", "monday", *at).stderr
    assert call("withdraw", "tuesday", *at, "--retire").stdout.strip() == "'tuesday' withdrawn"
    assert call("compact", *at).exit_code == 0
    assert call("withdraw", "live", *at).exit_code == 0
    gone = json.loads(call("withdraw", "monday", *at, "--retire", "--json").stdout)
    assert gone == {"release": "monday", "retired": list(listed["models"])}
    assert json.loads(call("versions", *at, "--json").stdout) == {
        "store": str(tmp_path / "store"),
        "models": {},
        "releases": [],
    }

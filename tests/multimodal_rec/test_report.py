import re
import shutil
import subprocess
import wave
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multimodal_rec.errors import ConfigError
from multimodal_rec.report import Card, CatalogueSection, RecommendationRow, write_report

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Every element with its attributes and the text in it; complains where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs}, [])
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, text in self._open:
            text.append(data)

    def find(self, tag: str, **attributes: str) -> list[tuple[dict[str, str], str]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [(a, "".join(text)) for name, a, text in self.elements if name == tag and wanted.items() <= a.items()]


def write_picture(path: Path, colour: str = "teal") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


def write_sound(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(np.zeros(800, dtype=np.int16).tobytes())
    return path


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "NDCG@10": [0.1, 0.25, 0.9],
            "Recall@10": [0.4, 0.2, np.nan],
            "chosen": ["", "λ 100", "none"],
            "MRR": [0.5, 0.5, 0.9],
            "people": [5, 6, 9],
        },
        index=pd.Index(["popularity", "this model", "oracle"], name="method"),
    )


def section(*cards: Card, reason: str = "its sound") -> CatalogueSection:
    row = RecommendationRow("u7", {"hour": 22, "device": "tv"}, liked=cards[:1], items=cards, reason=reason)
    return CatalogueSection("music", {"items": "400"}, table(), ["A note."], [row], references=["oracle"])


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    path = write_report(tmp_path / "runs" / "report.html", [section(Card("i1", "One")), section(Card("i2", "Two"))])
    assert path == tmp_path / "runs" / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.find("html")[0][0]["lang"] == "en"
    assert page.find("meta", charset="utf-8")
    assert page.find("meta", name="viewport")
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text
    assert not page.find("script")
    assert not page.find("link")
    assert [words for _, words in page.find("h1")] == ["Recommendations"]
    assert [words for _, words in page.find("h2")] == ["music", "music"]
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes, _ in page.find("a"):
        assert attributes["href"].removeprefix("#") in ids
    assert [words for _, words in page.find("dd")] == ["400", "400"]
    assert page.find("span", class_="chip")[0][1] == "hour 22"
    assert page.find("p", class_="reason")[0][1] == "Why the first: its sound"
    assert page.find("p", class_="note")[0][1] == "A note."


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(\"1\")</script> & 'x' {}"
    picture = write_picture(tmp_path / "media" / 'a "b" & #1?.png')
    card = Card(evil, evil, evil, image=picture, audio=tmp_path / f"absent {evil[:8]}.wav")
    frame = pd.DataFrame({evil: [evil, "b"]}, index=[evil, "other"])
    row = RecommendationRow(evil, {evil: evil}, [card], [card], evil)
    path = write_report(
        tmp_path / "report.html",
        [CatalogueSection(evil, {evil: evil}, frame, [evil], [row])],
        title=evil,
        introduction=evil,
    )
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.find("script")
    for tag in ("title", "h1", "h2", "dt", "dd", "td"):
        assert page.find(tag)[0][1] == evil
    assert page.find("p", class_="lead")[0][1] == evil
    image = page.find("img")[0][0]
    assert image["alt"] == evil
    assert set(image) == {"loading", "src", "alt"}
    assert (tmp_path / unquote(image["src"])).is_file()
    assert page.find("b", title=evil)


def test_media_under_the_page_are_linked_and_others_copied(tmp_path: Path) -> None:
    inside = write_picture(tmp_path / "demo" / "music" / "media" / "cover 1.png")
    outside = [write_picture(tmp_path / name / "cover.png", colour) for name, colour in (("a", "red"), ("b", "blue"))]
    again = write_picture(tmp_path / "c" / "cover.png", "red")
    sound, video = write_sound(tmp_path / "a" / "clip.wav"), tmp_path / "a" / "film.mp4"
    video.write_bytes(b"not really a film")
    cards = [
        Card("i0", "Inside", image=inside),
        *(Card(f"i{n}", "Outside", image=image) for n, image in enumerate([*outside, again])),
        Card("i9", "Moving", audio=sound, video=video, score=0.5),
    ]
    path = write_report(tmp_path / "demo" / "report.html", [section(*cards)])
    page = Page(path.read_text(encoding="utf-8"))
    sources = [a["src"] for tag in ("img", "audio", "video") for a, _ in page.find(tag)]
    for source in sources:
        assert not source.startswith(("/", "."))
        assert (path.parent / unquote(source)).is_file()
    assert page.find("img")[0][0]["src"] == "music/media/cover%201.png"
    copies = sorted((path.parent / "media").iterdir())
    assert len(copies) == 4  # red, blue, the sound, the film: the second red has the same bytes
    assert {copy.read_bytes() for copy in copies} == {f.read_bytes() for f in (*outside, sound, video)}
    for tag in ("audio", "video"):
        assert "controls" in page.find(tag)[0][0]
        assert "Moving" in page.find(tag)[0][0]["aria-label"]
    assert page.find("span", class_="score")[0][1] == "0.50"
    # A second report over the first changes nothing.
    before = path.read_bytes()
    write_report(path, [section(*cards)])
    assert path.read_bytes() == before
    assert sorted((path.parent / "media").iterdir()) == copies


def test_a_missing_medium_is_named_where_it_would_stand(tmp_path: Path) -> None:
    seen = write_picture(tmp_path / "seen.png")
    cards = [Card("i1", "Gone", image=tmp_path / "gone.png"), Card("i2", "Seen", image=seen)]
    page = Page(write_report(tmp_path / "report.html", [section(*cards)]).read_text(encoding="utf-8"))
    assert page.find("span", class_="missing")[0][1] == "image missing: gone.png"
    assert [a["src"] for a, _ in page.find("img")] == ["seen.png"]


def test_an_item_with_nothing_to_see_shows_its_initial(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path / "report.html", [section(Card("i1", "ballad"))]).read_text(encoding="utf-8"))
    assert page.find("span", class_="initial")[0][1] == "B"


def test_the_best_of_each_column_is_marked_but_no_reference(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path / "report.html", [section()]).read_text(encoding="utf-8"))
    # NDCG: this model; recall: popularity; MRR: a tie of all; people are whole numbers, and chosen is text.
    assert [words for _, words in page.find("td", class_="best")] == ["0.400", "0.250"]
    assert page.find("tr", class_="reference")[0][1].startswith("oracle0.900–")  # noqa: RUF001
    assert [words for _, words in page.find("th", scope="row")] == ["popularity", "this model", "oracle"]


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected at least one CatalogueSection"):
        write_report(tmp_path / "report.html", [])
    with pytest.raises(
        ConfigError, match="references name 'bound'; the table has 'popularity', 'this model', 'oracle'"
    ):
        write_report(tmp_path / "report.html", [section()._replace(references=["bound"])])


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_phone_does_not_scroll_sideways(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "cover.png")
    cards = [Card(f"i{n}", f"A rather long title number {n}", "genre", image=picture) for n in range(10)]
    wide = pd.concat([table().add_suffix(f" {n}") for n in range(5)], axis=1)
    path = write_report(tmp_path / "report.html", [section(*cards)._replace(table=wide)])
    probe = tmp_path / "probe.html"
    measure = "document.title = document.getElementById('f').contentDocument.documentElement.scrollWidth"
    probe.write_text(
        f'<iframe id="f" width="360" height="700" frameborder="0" src="{path.name}" onload="{measure}"></iframe>'
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
    ]
    result = subprocess.run([*command, "--dump-dom", probe.as_uri()], capture_output=True, text=True, check=True)
    width = re.search(r"<title>(\d+)</title>", result.stdout)
    assert width is not None
    assert 300 < int(width[1]) <= 360

"""Broken, mislabelled and hostile media among good ones: what is embedded, what is listed, and what memory it takes.

    python benchmarks/hostile_media.py --good 5000 --bad 1000

Writes a catalogue of small good pictures (a tenth of the items with a sound, one in fifty with a film) and files made
to harm: bombs that unpack to gigabytes, headers that promise billions of samples, half files, files of another kind
than their column says, playlists and scripts that name other files, links and paths out of `media/`, pipes and
devices. A small recommender trained on a few good items embeds the folder. Every good item must be stored, every bad
one listed with a reason, and nothing else; the script fails otherwise. Prints the first reason of every kind, the
seconds, and the peak of resident memory above what the process took before.
"""

from __future__ import annotations

import argparse
import os
import resource
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pandas as pd
from PIL import Image

from multimodal_rec import Catalogue, Recommender, RecommenderConfig, Schema, TowerConfig, TrainingConfig
from multimodal_rec.embedding import EmbedReport

SCHEMA = Schema("hostile", kind="video", text=("title",), image=("cover",), audio=("clip",), video=("film",))
NUM_SEEN = 24


class Kind(NamedTuple):
    """A way to be bad."""

    column: str
    suffix: str
    write: Callable[[Path], object]


def picture(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((40, 40), Image.Resampling.NEAREST)


def write_wav(path: Path, num_samples: int, *, rate: int = 16_000, promised: int | None = None) -> None:
    data = (np.random.default_rng(num_samples).integers(-9000, 9000, num_samples)).astype("<i2").tobytes()
    size = len(data) if promised is None else promised
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, 0, 2, 16)
    path.write_bytes(head + b"data" + struct.pack("<I", size) + data)


def write_film(path: Path) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        for shade in range(0, 240, 20):
            frame = av.VideoFrame.from_image(Image.new("RGB", (48, 48), (shade, 90, 240 - shade)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def png(width: int, height: int, *extra: tuple[bytes, bytes], rows: bool = True) -> bytes:
    """A PNG of one bit a pixel; without `rows` its header alone promises them."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    data = (b"".join(packer.compress(row) for _ in range(height)) if rows else b"") + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", data), (b"IEND", b"")]
    pieces = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def half(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        write(path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return written


def text(words: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(words)


def noise(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)).save(path)


def huge_jpeg(path: Path) -> None:
    Image.new("RGB", (64, 64)).save(path, "JPEG")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    path.write_bytes(bytes(data))


def hollow_film(path: Path) -> None:
    write_film(path)
    whole = path.read_bytes()
    start = whole.index(b"mdat") + 4
    path.write_bytes(whole[:start] + bytes(len(whole) - start))


LAUGHS = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
SVG = LAUGHS + ']><svg xmlns="http://www.w3.org/2000/svg"><text>&i;</text></svg>'
BOMB = zlib.compress(bytes(200_000_000), 9)

KINDS = {
    "bomb of 900 megapixels": Kind("cover", "png", lambda path: path.write_bytes(png(30_000, 30_000))),
    "header of 4 gigapixels": Kind("cover", "png", lambda path: path.write_bytes(png(65_000, 65_000, rows=False))),
    "JPEG header of 4 gigapixels": Kind("cover", "jpg", huge_jpeg),
    "bomb in a PNG's text": Kind("cover", "png", lambda path: path.write_bytes(png(8, 8, (b"zTXt", b"k\0\0" + BOMB)))),
    "half a JPEG": Kind("cover", "jpg", half(noise)),
    "half a PNG": Kind("cover", "png", half(noise)),
    "text as JPEG": Kind("cover", "jpg", text("no picture at all\n" * 50)),
    "SVG with entities as PNG": Kind("cover", "png", text(SVG)),
    "PostScript as PNG": Kind(
        "cover", "png", text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc) deletefile")
    ),
    "sound as picture": Kind("cover", "png", lambda path: write_wav(path, 800)),
    "nothing in it": Kind("cover", "png", lambda path: path.touch()),
    "link to a system file": Kind("cover", "png", lambda path: path.symlink_to("/etc/passwd")),
    "link to a device": Kind("cover", "png", lambda path: path.symlink_to("/dev/zero")),
    "a pipe": Kind("cover", "png", os.mkfifo),
    "a folder": Kind("cover", "png", lambda path: path.mkdir()),
    "not there": Kind("cover", "png", lambda _: None),
    "half a WAV": Kind("clip", "wav", half(lambda path: write_wav(path, 16_000))),
    "WAV of 4 GB in 1 KB": Kind("clip", "wav", lambda path: write_wav(path, 500, promised=2_000_000_000)),
    "WAV of 4 GHz": Kind("clip", "wav", lambda path: write_wav(path, 500, rate=4_000_000_000)),
    "WAV without samples": Kind("clip", "wav", lambda path: write_wav(path, 0)),
    "picture as sound": Kind("clip", "wav", lambda path: picture(1).save(path, "PNG")),
    "text as sound": Kind("clip", "ogg", text("no sound at all\n" * 50)),
    "playlist as sound": Kind("clip", "mp3", text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")),
    "half a film": Kind("film", "mp4", half(write_film)),
    "film without frames": Kind("film", "mp4", hollow_film),
    "picture as film": Kind("film", "mp4", lambda path: picture(2).save(path, "JPEG")),
    "text as film": Kind("film", "mp4", text("no film at all\n" * 50)),
    "script that names files": Kind("film", "mp4", text("ffconcat version 1.0\nfile '/etc/passwd'\n")),
}


EMPTY = ("nothing in it", "WAV without samples")
"""Kinds that would hold something with another byte in them."""


def write_catalogue(folder: Path, *, num_good: int, num_bad: int) -> Path:
    """Good items g0 ..., bad ones b0 ... among them, each with one bad file and a good title."""
    media = folder / "media"
    media.mkdir(parents=True)
    write_wav(media / "good.wav", 8000)
    write_film(media / "good.mp4")
    rows: list[dict[str, str]] = []
    for item in range(num_good):
        # Every second one under the other's name: what is in a file counts, not what it is called.
        picture(item).save(media / f"g{item}.png", "JPEG" if item % 2 else "PNG")
        row = {"item_id": f"g{item}", "title": "slow piano", "cover": f"g{item}.png", "clip": "", "film": ""}
        row |= {"clip": "good.wav"} if item % 10 == 0 else {}
        rows.append(row | ({"film": "good.mp4"} if item % 50 == 0 else {}))
    names = list(KINDS)
    first: dict[str, bytes] = {}
    for item in range(num_bad):
        name = names[item % len(names)]
        kind = KINDS[name]
        path = media / f"b{item}.{kind.suffix}"
        if name in first:
            path.write_bytes(first[name])
        else:
            kind.write(path)
            if path.is_file() and not path.is_symlink():
                first[name] = path.read_bytes()
        if path.is_file() and not path.is_symlink() and name not in EMPTY:
            # What is alike is read once: no two are.
            with path.open("ab") as file:
                file.write(struct.pack("<I", item))
        rows.append({"item_id": f"b{item}", "title": "a loud drum", "cover": "", "clip": "", "film": ""})
        rows[-1][kind.column] = path.name
    order = np.random.default_rng(0).permutation(len(rows))
    pd.DataFrame([rows[row] for row in order]).to_csv(folder / "items.csv", index=False)
    (folder / "catalogue.toml").write_text(SCHEMA.to_toml())
    return folder


def fitted(folder: Path, store: Path | None) -> Recommender:
    """A recommender of small towers, trained on a few good items."""
    net = {"pretrained": False, "image_size_px": 32}
    config = RecommenderConfig(
        {
            "image": TowerConfig("timm:test_efficientnet_gn", **net),
            "audio": TowerConfig("spectrogram:test_efficientnet_gn", pretrained=False, clip_seconds=0.3),
            "video": TowerConfig("frames:image", max_windows=2),
        },
        embedding_dim=8,
    )
    table = pd.read_csv(folder / "items.csv", dtype=str)
    good = [row for row, item_id in enumerate(table["item_id"]) if item_id.startswith("g")]
    seen = table.iloc[good[:NUM_SEEN]].reset_index(drop=True)
    ids = seen["item_id"].tolist()
    log = pd.DataFrame(
        [(f"u{user}", item) for user in range(6) for item in ids[user::3]], columns=["user_id", "item_id"]
    )
    catalogue = Catalogue.from_frames(seen, log, schema=SCHEMA, media=folder / "media")
    training = TrainingConfig(device="cpu", epochs=1, progress=False)
    return Recommender(config, store=store).fit(catalogue, training=training)


def reasons(report: EmbedReport, folder: Path) -> dict[str, str]:
    """Item id → why it is not stored."""
    ids = pd.read_csv(folder / "items.csv", dtype=str)["item_id"].tolist()
    aside = {ids[problem.row]: problem.message for problem in report.set_aside if problem.row is not None}
    return {**aside, **report.failed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=5000)
    parser.add_argument("--bad", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=0, help="processes that decode; their memory is not counted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = write_catalogue(Path(place) / "catalogue", num_good=arguments.good, num_bad=arguments.bad)
        recommender = fitted(folder, Path(place) / "store")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, processor = time.perf_counter(), time.process_time()
        report = recommender.embed(folder, on_error="quarantine", num_workers=arguments.workers)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
        found = reasons(report, folder)
        stored = set(recommender.store.read_items(model=None).ids)
        recommender.close()
    good = {f"g{item}" for item in range(arguments.good)}
    bad = {f"b{item}" for item in range(arguments.bad)}
    for number, name in enumerate(list(KINDS)[: arguments.bad]):
        said = found.get(f"b{number}", "EMBEDDED").replace(str(place), "")
        print(f"- {name}: {said[:150]}")
    print("\n| good | stored | bad | listed | seconds | processor seconds | peak above, MB |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {len(good):,} | {len(stored & good):,} | {len(bad):,} | {len(bad & set(found)):,} | {wall:.0f} | "
        f"{processor:.0f} | {above:,.0f} |"
    )
    if stored != good or set(found) != bad:
        raise SystemExit(f"wrong: {sorted(stored ^ good)[:5]} stored, {sorted(set(found) ^ bad)[:5]} listed")


if __name__ == "__main__":
    main()

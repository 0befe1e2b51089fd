"""The music sample catalogue, made anew: `python datasets/music/prepare.py --out samples/music`."""

from __future__ import annotations

import argparse
from pathlib import Path

from multimodal_rec.samples import write_sample

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("samples/music"), help="folder to write the catalogue to")
    for name in ("num-items", "num-users", "seed"):
        parser.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, help="the sample's own if left out")
    options = vars(parser.parse_args())
    print(write_sample("music", options.pop("out"), **options))

"""Whether a store is whole after its embedding job was killed, and after two jobs wrote to it at once.

    python benchmarks/store_safety.py
    python benchmarks/store_safety.py --kills 10 --pairs 2 --items 240

A sample catalogue of products is embedded by a model trained on it for an epoch (a small frozen image net, attributes,
behaviour), in chunks that are committed one by one; some of its pictures cannot be read. The job runs in a process of
its own and is sent SIGKILL. Half of the moments are spread evenly over the whole job, by its own processor time, from
opening the store to the end, one drawn within each stretch; the other half are drawn from the 30 ms after a file of a
commit appeared on disk, the commit drawn too. Then the job is run again to its end. The store is compared with that of
a run that nobody disturbed: after the kill every row there must be the same, bit for bit, and none twice; after the
second run all rows, all failures and all interactions must be. A job that was done before its signal came is no kill,
and another moment is drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

COMMIT_MS = 30
CHUNKS = 12
UNREADABLE = 6
# What a job imports, loaded once in the process that all jobs are forked from. LanceDB is among it, and is not used
# before the fork: there is nothing of it yet that a fork could break.
PRELOADED = ["multimodal_rec.recommender", "multimodal_rec.catalogue", "torchvision", "transformers", "timm"]


class Setting(NamedTuple):
    """What every job of one run embeds, and with what."""

    model: str
    fingerprint: str
    catalogue: str
    chunk_items: int


class State(NamedTuple):
    """What a store holds, without the moments of writing."""

    items: dict[str, str]
    """Item id → its row, as text."""
    repeated: int
    """Rows whose id another row has."""
    failures: dict[str, str]
    interactions: int


def job(setting: Setting, store: str, pipe: Connection) -> None:
    """Open the store and embed the catalogue, once told to."""
    import torch  # noqa: PLC0415

    from multimodal_rec import Catalogue, Recommender  # noqa: PLC0415

    torch.set_num_threads(1)
    items = Catalogue.read(setting.catalogue, on_error="quarantine").items
    # What loading imports would be most of a job this short, and nothing is written meanwhile.
    Recommender.load(setting.model, device="cpu").close()
    pipe.send("ready")
    pipe.recv()
    start = time.process_time()
    recommender = Recommender.load(setting.model, store=store, device="cpu")
    trained = recommender._fitted()
    replace(trained.job, chunk_items=setting.chunk_items).run(items, trained.store)
    pipe.send(time.process_time() - start)


def state(setting: Setting, store: Path) -> State:
    """What is in the store now."""
    from multimodal_rec.rows import Layout  # noqa: PLC0415
    from multimodal_rec.store import ItemStore  # noqa: PLC0415
    from multimodal_rec.tables import Tables  # noqa: PLC0415

    found = Tables.connect(store).find(f"items-{setting.fingerprint}")
    rows = [] if found is None else found.to_arrow().drop_columns(["updated_at"]).to_pylist()
    items = {row["item_id"]: repr(row) for row in rows}
    with ItemStore.open(store, Layout((), 0)) as opened:
        told = opened.failures()
        failures = dict(zip(told["item_id"], told["reason"], strict=True))
        return State(items, len(rows) - len(items), failures, opened.num_interactions)


class Jobs:
    """Processes that embed, forked from one that has imported the heavy packages."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        # LanceDB warns of any fork, whether it was used before or not.
        os.environ["PYTHONWARNINGS"] = "ignore:lancedb fork support:RuntimeWarning"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def start(self, store: Path) -> tuple[BaseProcess, Connection]:
        """A job that waits to be told to begin."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=job, args=(self._setting, str(store), theirs))
        process.start()
        theirs.close()
        return process, ours

    def run(self, store: Path) -> float:
        """Processor seconds of a job that nobody disturbs."""
        process, pipe = self.start(store)
        pipe.recv()
        pipe.send("go")
        seconds = pipe.recv()
        process.join()
        return seconds


def num_files(store: Path) -> int:
    """Files of data, transactions and manifests of the items' tables."""
    return sum(1 for folder in store.glob("items-*.lance") for path in folder.rglob("*") if path.suffix != "")


def processor_seconds(process: BaseProcess) -> float:
    """What a process has used of the processor until now."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def evenly(place: float, seconds: float) -> Callable[[Path, BaseProcess], None]:
    """Waits until the job has done `place`, in 0 to 1, of its work.

    By its own time on the processor: on the wall, others at work on the machine would move the moment.
    """

    def wait(_: Path, process: BaseProcess) -> None:
        begin = processor_seconds(process)
        while process.is_alive() and processor_seconds(process) - begin < place * seconds:
            time.sleep(0.001)

    return wait


def in_a_commit(number: int, delay: float) -> Callable[[Path, BaseProcess], None]:
    """Waits until files appeared `number` times, and `delay` seconds more."""

    def wait(store: Path, process: BaseProcess) -> None:
        seen, times = 0, 0
        while times < number and process.is_alive():
            count = num_files(store)
            if count > seen:
                seen, times = count, times + 1
            time.sleep(0.0005)
        time.sleep(delay)

    return wait


def trial(
    jobs: Jobs, setting: Setting, folder: Path, whole: State, wait: Callable[[Path, BaseProcess], None]
) -> dict[str, int] | None:
    """What was wrong after one kill and a second run, counted; None where the job was done before it was killed."""
    shutil.rmtree(folder, ignore_errors=True)
    process, pipe = jobs.start(folder)
    pipe.recv()
    pipe.send("go")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while it was looked at
        wait(folder, process)
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode != -signal.SIGKILL:
        return None
    between = state(setting, folder)
    jobs.run(folder)
    after = state(setting, folder)
    return {
        "rows there after the kill": len(between.items),
        "of them twice": between.repeated,
        "of them other than undisturbed": differing(between.items, whole.items),
        **compared(after, whole),
    }


def compared(found: State, whole: State) -> dict[str, int]:
    """How a store differs from the undisturbed one, counted."""
    return {
        "items lost": len(whole.items.keys() - found.items.keys()),
        "items twice": found.repeated,
        "items too many": len(found.items.keys() - whole.items.keys()),
        "rows that differ": differing(found.items, whole.items),
        "failures that differ": len(found.failures.items() ^ whole.failures.items()),
        "interactions lost or too many": abs(found.interactions - whole.interactions),
    }


def differing(found: dict[str, str], whole: dict[str, str]) -> int:
    """How many rows are not those of the same id."""
    return sum(whole.get(item_id) != row for item_id, row in found.items())


def prepare(folder: Path, num_items: int) -> Setting:
    """A catalogue and a model that was trained on it; afterwards some of its pictures are broken."""
    from multimodal_rec import (  # noqa: PLC0415
        Recommender,
        RecommenderConfig,
        TowerConfig,
        TrainingConfig,
        write_sample,
    )

    catalogue = write_sample("product", folder / "catalogue", num_items=num_items, num_users=num_items // 4)
    # Frozen, so that the job also keeps what the net gives, beside the store.
    image = TowerConfig("timm:test_byobnet", tuning="frozen", pretrained=False, image_size_px=64, max_windows=1)
    config = RecommenderConfig({"image": image}, embedding_dim=32)
    training = TrainingConfig(device="cpu", epochs=1, progress=False)
    recommender = Recommender(config).fit(catalogue, training=training)
    recommender.save(folder / "model")
    fingerprint = recommender._fitted().job.fingerprint
    # The job shall embed all of it, and not find the rows that came with the model.
    shutil.rmtree(folder / "model" / "store")
    for path in random.Random(0).sample(sorted((folder / "catalogue" / "media").rglob("*.*")), UNREADABLE):
        path.write_bytes(b"no picture")
    return Setting(str(folder / "model"), fingerprint, str(folder / "catalogue"), max(1, num_items // CHUNKS))


def main() -> None:
    """Kill, run again, compare; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=5, help="times that two jobs run on one store at once")
    parser.add_argument("--items", type=int, default=480)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for catalogue, model and stores; default: a temporary one")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) if arguments.out is None else arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    setting = prepare(folder, arguments.items)
    jobs = Jobs(setting)
    seconds = statistics.median([jobs.run(folder / f"whole{number}") for number in range(3)])
    whole, again = (state(setting, folder / f"whole{number}") for number in range(2))
    print(
        f"{len(whole.items)} rows and {len(whole.failures)} failures, {CHUNKS} commits, "
        f"{seconds:.1f} processor seconds undisturbed; "
        f"two undisturbed runs differ in {sum(compared(again, whole).values())} places",
        flush=True,
    )
    draw = random.Random(arguments.seed)
    kinds: dict[str, Counter[str]] = {"anywhere": Counter(), "in a commit": Counter()}
    for number in range(arguments.kills):
        kind = ("anywhere", "in a commit")[number % 2]
        found = None
        while found is None:
            stretch = 2 / max(2, arguments.kills)
            place = stretch * (number // 2 + draw.random())
            moment = evenly(place, seconds)
            if kind == "in a commit":
                # A commit shows up as data, a transaction and a manifest.
                moment = in_a_commit(draw.randint(1, 3 * CHUNKS - 2), draw.random() * COMMIT_MS / 1000)
            found = trial(jobs, setting, folder / "killed", whole, moment)
            kinds[kind]["done before the kill"] += found is None
        kinds[kind].update({"kills": 1, **found})
        kinds[kind]["stores that differ at the end"] += any(found[name] for name in compared(whole, whole))
        print(f"kill {number + 1}, {kind}: {found}", flush=True)
    both: Counter[str] = Counter()
    for _ in range(arguments.pairs):
        shutil.rmtree(folder / "both", ignore_errors=True)
        started = [jobs.start(folder / "both") for _ in range(2)]
        for _, pipe in started:
            pipe.recv()
        for _, pipe in started:
            pipe.send("go")
        for process, _ in started:
            process.join()
        found = compared(state(setting, folder / "both"), whole)
        both.update({"pairs": 1, "jobs that did not finish": sum(p.exitcode != 0 for p, _ in started), **found})
        both["stores that differ at the end"] += any(found.values())
    for title, counts in (*kinds.items(), ("two jobs at once", both)):
        print(f"\n| {title} | |\n|---|---|")
        for name, count in counts.items():
            print(f"| {name} | {count} |")


if __name__ == "__main__":
    main()

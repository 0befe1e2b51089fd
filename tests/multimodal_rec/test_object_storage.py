"""A store and its index on an S3-compatible server, which the tests start on this machine."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec import object_storage
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import StoreError
from multimodal_rec.index import ItemIndex
from multimodal_rec.index_folder import IndexFolder, index_path
from multimodal_rec.index_table import IndexTable, index_at
from multimodal_rec.object_storage import cache_folder, check_endpoint, reason_of
from multimodal_rec.ray_engine import RayEngine
from multimodal_rec.recommender import Recommender
from multimodal_rec.retrieval import Query
from multimodal_rec.rows import Layout
from multimodal_rec.store import ItemStore
from tests.multimodal_rec.tiny import NUM_ITEMS

pytest.importorskip("moto", exc_type=ImportError)

LAYOUT = Layout(("text",), 12)


@pytest.fixture(scope="module")
def server_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def server(server_log: Path) -> Iterator[str]:
    """The address of a server with one empty bucket, 'bucket'; it refuses what is there already, as S3 does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with server_log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        _create_bucket(f"http://127.0.0.1:{port}/bucket", process, server_log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _create_bucket(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    asked = urllib.request.Request(url, method="PUT")
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(asked, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of its own for each test, and what the client needs to know in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"s3://bucket/{tmp_path.name}"


def test_every_verb_gives_what_it_gives_over_a_folder(
    saved: Path, catalogue: Catalogue, bucket: str, tmp_path: Path
) -> None:
    uri = f"{bucket}/store"
    recommender = Recommender.load(saved, store=uri, device="cpu")
    folder = Recommender.load(saved, store=tmp_path / "store", device="cpu")
    recommender.store.delete_items(["i3", "i4"])
    report = recommender.embed(catalogue.items)
    assert (report.embedded, report.unchanged) == (2, NUM_ITEMS - 2)
    late = pd.DataFrame({"user_id": ["u0"], "item_id": ["i2"], "timestamp": [1_800_000_000], "event": ["like"]})
    assert recommender.store.append_interactions(late) == folder.store.append_interactions(late) == 1

    other = Recommender.load(saved, store=uri, device="cpu")
    here, there = folder.store.read_items(model=None), other.store.read_items(model=None)
    assert there.ids == here.ids
    for name in ("tokens", "present", "embeddings", "content", "vectors"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    pd.testing.assert_frame_equal(other.store.embedded(), folder.store.embedded())
    pd.testing.assert_frame_equal(other.store.read_interactions(), folder.store.read_interactions())
    assert other.recommend(["u0", "u1"], k=5).ids == folder.recommend(["u0", "u1"], k=5).ids
    # Features are kept on this machine, the rest is on the server.
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["store"]
    for each in (recommender, folder, other):
        each.close()


@pytest.mark.slow
def test_workers_of_ray_fill_a_store_on_the_server(
    saved: Path, catalogue: Catalogue, bucket: str, tmp_path: Path
) -> None:
    """Two processes commit their chunks to one store at a URI: the rows that one process writes to a folder."""
    pytest.importorskip("ray", exc_type=ImportError)
    uri = f"{bucket}/store"
    here = Recommender.load(saved, store=tmp_path / "store", device="cpu")
    there = Recommender.load(saved, store=uri, device="cpu")
    for each in (here, there):
        each.delete(each.store.read_items(model=None).ids)
    for start in range(0, NUM_ITEMS, 4):
        here.embed(catalogue.items.iloc[start : start + 4])
    report = there.embed(catalogue.items, engine=RayEngine(num_workers=2, chunk_size=4))
    assert (report.embedded, report.unchanged, report.failed) == (NUM_ITEMS, 0, {})
    reader = Recommender.load(saved, store=uri, device="cpu")
    one, other = here.store.read_items(model=None), reader.store.read_items(model=None)
    assert other.ids == one.ids
    for name in ("tokens", "present", "embeddings", "content", "vectors"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
    assert reader.recommend(["u0", "u1"], k=5).ids == here.recommend(["u0", "u1"], k=5).ids
    changed = catalogue.items.assign(title=["another one", *catalogue.items["title"].iloc[1:]])
    again = there.embed(changed, engine=RayEngine(num_workers=2, chunk_size=4))
    assert (again.embedded, again.unchanged) == (1, NUM_ITEMS - 1)
    for each in (here, there, reader):
        each.close()


def test_the_index_is_beside_the_store_for_others_to_read(saved: Path, bucket: str) -> None:
    builder = Recommender.load(saved, store=f"{bucket}/store", device="cpu")
    built = builder.build_index(exact_up_to=5)
    reader = Recommender.load(saved, store=f"{bucket}/store", device="cpu")
    found = reader._searched().index
    assert found.cells is not None
    assert found.report == built
    assert reader.recommend(["u0"], k=3, query=Query(shortlist=NUM_ITEMS)).ids == reader.recommend(["u0"], k=3).ids
    builder.store.delete_items(["i3"])
    stale = Recommender.load(saved, store=f"{bucket}/store", device="cpu")
    model = stale._fitted().job.fingerprint
    with pytest.raises(StoreError, match=rf"the index in 's3://bucket/.*/index/{model}' is stale"):
        IndexTable(f"{bucket}/store/index/{model}").read(stale._ready().search_embeddings, "another")
    for each in (builder, reader, stale):
        each.close()


def test_an_index_of_many_parts_is_put_together_and_replaced(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodal_rec.index_table._PART_BYTES", 1000)
    items = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    index, place = ItemIndex.build(items, exact_up_to=0), IndexTable(f"{bucket}/index")
    assert not place.exists
    with pytest.raises(StoreError, match=r"there is no index in 's3://bucket/.*/index' for 500 items"):
        place.read(items, "a")
    place.write(ItemIndex.exact(items[:3]), "b")
    place.write(index, "a")
    assert place.exists
    again = place.read(items, "a")
    np.testing.assert_array_equal(again.search(items[:5], 20).rows, index.search(items[:5], 20).rows)


def test_where_things_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert index_path(None, "m") is None
    assert index_at(None) is None
    assert index_path("s3://b/store/", "m") == "s3://b/store/index/m"
    assert isinstance(index_at(index_path("s3://b/store", "m")), IndexTable)
    assert isinstance(index_at(index_path("stores/music", "m")), IndexFolder)
    assert cache_folder(None) is None
    assert cache_folder("stores/music") == Path("stores/music/cache")
    one, other = cache_folder("s3://b/store"), cache_folder("s3://b/other")
    assert one is not None
    assert one.parent == tmp_path / "multimodal-rec"
    assert one != other


_WRITER = """
import sys
import numpy as np
from multimodal_rec.rows import ItemRows, Layout, ModalityRows
from multimodal_rec.store import ItemStore
store = ItemStore.open(sys.argv[1], Layout(("text",), 12))
for number in range(8):
    print(number, flush=True)
    sys.stdin.readline()
    ids = [f"i{number * 3 + n:02d}" for n in range(6)]
    numbers, here = np.random.default_rng(number).normal(size=(6, 12)), np.ones(6, dtype=bool)
    store.write_items(ItemRows(
        ids=ids, modalities={"text": ModalityRows(numbers, here, ids, "tower")},
        attribute_tokens=numbers, attributes_present=here, behaviour_tokens=numbers, behaviour_present=here,
        embeddings=np.hstack([numbers] * 3), model="m1", attributes=[{}] * 6,
    ))
"""


def test_two_writers_at_once_leave_one_row_an_id(bucket: str, server_log: Path) -> None:
    """Both begin each round together, so that both insert the same new ids; the server lets one commit go first."""
    command = [sys.executable, "-c", _WRITER, f"{bucket}/store"]
    writers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(2)
    ]
    for number in range(8):
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == f"{number}\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    with ItemStore.open(f"{bucket}/store", LAYOUT, create=False) as store:
        expected = [f"i{n:02d}" for n in range(27)]
        assert store.read_items(model="m1").ids == expected
        assert store.embedded()["item_id"].tolist() == expected
        assert store.num_items == 27
    # 412: somebody else had put that version there. Without conditional puts the later one would overwrite it.
    assert re.search(r"PUT /bucket/.*\.manifest.* 412 ", server_log.read_text())


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(
        StoreError, match=r"no store can be opened at 's3://nothing/x': there is no such bucket. Create"
    ):
        ItemStore.open("s3://nothing/x", LAYOUT)


def test_an_empty_prefix_is_no_store_for_readers(bucket: str) -> None:
    with pytest.raises(StoreError, match=r"no store at 's3://bucket/.*embed first"):
        ItemStore.open(f"{bucket}/empty", LAYOUT, create=False)


def test_a_server_without_encryption_has_to_be_meant(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StoreError, match=r"Set AWS_ALLOW_HTTP=true if that is meant"):
        ItemStore.open(f"{bucket}/store", LAYOUT)


def test_nobody_at_the_endpoint_is_found_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"nobody answers at .*Connection refused.*Correct AWS_ENDPOINT_URL"):
            ItemStore.open("s3://bucket/store", LAYOUT)
        assert time.monotonic() - began < 5


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "_ANSWERS_WITHIN_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreError, match=r"nobody answers at .*timed out"):
            check_endpoint("s3://bucket/store")
        # What is nowhere near S3 is not looked at.
        check_endpoint("stores/music")
        check_endpoint(None)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "storage:9000")
        with pytest.raises(StoreError, match=r"AWS_ENDPOINT_URL is 'storage:9000'. Expected a URL"):
            check_endpoint("s3://bucket/store")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("<Error><Code>InvalidAccessKeyId</Code>", "Correct AWS_ACCESS_KEY_ID"),
        ("<Error><Code>SignatureDoesNotMatch</Code>", "Correct AWS_SECRET_ACCESS_KEY"),
        ("<Error><Code>AccessDenied</Code>", "Ask for access"),
        ("Failed to get AWS credentials: ProviderError", "there are no credentials. Set AWS_ACCESS_KEY_ID"),
        ("a disk is full", "a disk is full"),
    ],
)
def test_what_servers_answer_is_said_in_few_words(answer: str, said: str) -> None:
    assert said in reason_of(ValueError(answer))
    assert len(reason_of(ValueError("x" * 5000))) < 600


def test_without_credentials_the_variables_are_named(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    # Machines of that provider ask this address for a role's credentials; nobody must answer here.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", server)
    with pytest.raises(StoreError, match=r"there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        ItemStore.open("s3://bucket/store", LAYOUT)

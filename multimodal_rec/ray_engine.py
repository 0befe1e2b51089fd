"""The offline job on many processes or machines: a model in each of Ray's workers, one store for all."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import pandas as pd

from multimodal_rec.embedding import EmbedReport
from multimodal_rec.errors import ConfigError, EngineError, ItemError, MediaError, MultimodalRecError, StoreError
from multimodal_rec.item_stream import Items, item_stream
from multimodal_rec.object_storage import is_remote
from multimodal_rec.trained import Trained

if TYPE_CHECKING:
    from ray.data import Dataset

# Beside the model itself, what Ray's shared memory holds on this machine; chunks beyond it go to disk.
_OBJECT_STORE_BYTES = 256 * 2**20
# A worker that a cluster cannot place would be waited for without end.
_PLACED_WITHIN_SECONDS = 600
# An item that kills every worker which decodes it must not be tried for ever.
_REPLACED = 3


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Ray Data's workers, each with a model of its own, embedding chunks of items side by side.

    Uses the Ray cluster that this process is connected to, or the one that RAY_ADDRESS names, or else starts Ray on
    this machine and stops it afterwards. On a cluster every machine needs this library, the items' media, the folders
    that the towers were named by, and the store at the same path or URI.
    """

    num_workers: int | None = None
    """None: one for each GPU of the cluster where they use GPUs, else one for each `cpus_a_worker` CPUs."""
    cpus_a_worker: int = 1
    """CPUs that each worker computes on."""
    gpus_a_worker: float | None = None
    """GPUs that each worker holds; a fraction shares one. None: 1 where the model is on a GPU here, else 0."""
    chunk_size: int = 2048
    """Items that a worker takes, embeds and commits at once."""

    def __post_init__(self) -> None:
        for name in ("num_workers", "cpus_a_worker", "chunk_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"RayEngine.{name} is {value}. Expected at least 1.")
        if self.gpus_a_worker is not None and self.gpus_a_worker < 0:
            raise ConfigError(f"RayEngine.gpus_a_worker is {self.gpus_a_worker}. Expected 0 or more.")

    def embed(
        self, items: Items, trained: Trained, *, store: str | Path | None, retry_failed: bool = False
    ) -> EmbedReport:
        """Bring the store at the URI `store` up to date with the items; what `EmbeddingJob.run` does, on workers.

        A worker that dies is replaced and its chunk embedded again; the chunks that were committed stay. Raises
        `StoreError` for a store in memory, which no other process sees, `ConfigError` where Ray is not installed, and
        `EngineError` where Ray cannot run the workers; an error of this library in a worker is raised as it is.
        """
        uri = _shared(store)
        ray = _import_ray()
        saved = _saved(trained)
        gpus = self.gpus_a_worker
        if gpus is None:
            gpus = 1.0 if trained.model.log_temperature.device.type == "cuda" else 0.0
        totals = {"embedded": 0, "unchanged": 0}
        failed: dict[str, str] = {}
        num_bytes = sum(map(len, saved.values()))
        try:
            with self._connected(ray, _OBJECT_STORE_BYTES + 2 * num_bytes):
                model = ray.put(saved)
                stream = item_stream(items, trained.schema, chunk_items=self.chunk_size)
                chunks = [ray.put(chunk) for chunk in stream]
                workers = min(self._workers(ray.cluster_resources(), gpus), len(chunks))
                if not chunks:
                    return EmbedReport(0, 0)
                data: Dataset = ray.data.from_pandas_refs(chunks).map_batches(
                    _Worker,
                    # In a list: Ray would put the model itself into each message that starts a worker.
                    fn_constructor_args=([model], uri, trained.job.fingerprint, "cuda" if gpus else "cpu"),
                    fn_kwargs={"retry_failed": retry_failed},
                    batch_size=None,
                    batch_format="pandas",
                    compute=ray.data.ActorPoolStrategy(size=workers),
                    num_cpus=self.cpus_a_worker,
                    num_gpus=gpus,
                    max_restarts=_REPLACED,
                    max_task_retries=_REPLACED,
                )
                for row in data.iter_rows():
                    if row["error"]:
                        raise _as_raised(*json.loads(row["error"]))
                    for name in totals:
                        totals[name] += int(row[name])
                    failed.update(json.loads(row["failed"]))
        except ray.exceptions.RayError as error:
            raise _ended(error) from error
        return EmbedReport(totals["embedded"], totals["unchanged"], failed, tuple(stream.problems))

    def _workers(self, resources: Mapping[str, float], gpus: float) -> int:
        if self.num_workers is not None:
            return self.num_workers
        fitting = int(resources.get("CPU", 1) // self.cpus_a_worker)
        return max(1, min(fitting, int(resources.get("GPU", 0) / gpus)) if gpus else fitting)

    @contextmanager
    def _connected(self, ray: Any, object_store_bytes: int) -> Iterator[None]:
        """Ray, quiet; what was running before keeps running and keeps its settings."""
        with warnings.catch_warnings():
            # Ray and its Data library warn of their own settings, which nobody here has chosen.
            warnings.simplefilter("ignore")
            own = not ray.is_initialized()
            if own:
                self._start(ray, object_store_bytes)
            try:
                context = ray.data.DataContext.get_current().copy()
                context.enable_progress_bars = False
                context.print_on_execution_start = False
                context.wait_for_min_actors_s = _PLACED_WITHIN_SECONDS
                with ray.data.DataContext.current(context):
                    yield
            finally:
                if own:
                    ray.shutdown()

    def _start(self, ray: Any, object_store_bytes: int) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        here = {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, (self.num_workers or 1) * self.cpus_a_worker),
            "include_dashboard": False,
            "object_store_memory": object_store_bytes,
        }
        try:
            ray.init(**quiet, **({} if "RAY_ADDRESS" in os.environ else here))
        except Exception as error:  # it raises what it happens to meet, plain exceptions among them
            raise EngineError(
                f"Ray cannot be started or reached: {error}. Expected the cluster that RAY_ADDRESS names, or memory "
                "and processors for one on this machine. Look at Ray's logs, or leave the engine out."
            ) from error


Engine = Literal["local", "ray"] | RayEngine
"""Where items are embedded: in this process, or on Ray with as many workers as it has CPUs or GPUs, or as told."""


def ray_engine(engine: Engine) -> RayEngine | None:
    """The workers that a caller asked for; None for this process. Raises `ConfigError` for any other name."""
    if isinstance(engine, RayEngine):
        return engine
    if engine not in ("local", "ray"):
        raise ConfigError(f"there is no engine '{engine}'. Expected 'local', 'ray' or a RayEngine.")
    return RayEngine() if engine == "ray" else None


@final
class _Worker:
    """One process of the pool: the trained model, and the store opened where it is."""

    def __init__(self, model: list[Any], store: str, fingerprint: str, device: str) -> None:
        # Nothing is opened here: what goes wrong while an actor starts, Ray tries again without end.
        self._model = model
        self._store = store
        self._fingerprint = fingerprint
        self._device = device

    def __call__(self, items: pd.DataFrame, *, retry_failed: bool) -> dict[str, np.ndarray]:
        report, error = EmbedReport(0, 0), ""
        try:
            report = self._trained.job.run(items, self._trained.store, retry_failed=retry_failed)
        except Exception as raised:
            # Ray would bring it as text, inside several others of its own.
            error = json.dumps([type(raised).__name__, str(raised)])
        return {
            "embedded": np.array([report.embedded]),
            "unchanged": np.array([report.unchanged]),
            "failed": np.array([json.dumps(report.failed)]),
            "error": np.array([error]),
        }

    @cached_property
    def _trained(self) -> Trained:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in _import_ray().get(self._model[0]).items():
                (Path(folder) / name).write_bytes(content)
            trained = Trained.read(Path(folder), store=self._store, device=self._device)
        if trained.job.fingerprint != self._fingerprint:
            raise EngineError(
                f"a worker made the model of fingerprint {trained.job.fingerprint} out of the one of "
                f"{self._fingerprint}. Expected the same: install one version of this library on every machine, and "
                "one edition of the folders that towers were named by."
            )
        return trained


def _import_ray() -> Any:
    # Before Ray is read, which looks at them once: it reports to nobody, and says nothing of what it does inside.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray  # noqa: PLC0415 - an extra
            import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"engine='ray' needs Ray Data, which cannot be imported ({error}). Install it with "
            "`pip install multimodal-rec[ray]`, or leave the engine out."
        ) from error
    return ray


def _shared(store: str | Path | None) -> str:
    """The URI as any process can open it."""
    if store is None or str(store).startswith("memory:"):
        raise StoreError(
            "engine='ray' needs a store that its workers can open; this one is in this process's memory. Give "
            "Recommender(config, store=...) or Recommender.load(path, store=...) a folder or URI, or leave the engine "
            "out."
        )
    return str(store) if is_remote(store) else str(Path(store).resolve())


def _saved(trained: Trained) -> dict[str, bytes]:
    """File name → content of the folder that a saved model is."""
    with tempfile.TemporaryDirectory() as folder:
        trained.write(Path(folder), with_store=False)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _as_raised(name: str, message: str) -> MultimodalRecError:
    """The error that a worker met; one that is not this library's own as `EngineError`."""
    kinds = {kind.__name__: kind for kind in (ConfigError, EngineError, ItemError, MediaError, StoreError)}
    if name in kinds:
        return kinds[name](message)
    return EngineError(
        f"a worker met {name}: {message}. What was committed stays written, and the next run goes on from there. "
        "Expected a chunk of items that the model can embed where the worker is."
    )


def _ended(error: Exception) -> EngineError:
    lines = str(error).strip().splitlines()
    return EngineError(
        f"Ray could not embed the items: {lines[-1] if lines else type(error).__name__}. What was committed stays "
        "written, and the next run goes on from there. Expected workers that can be placed and stay alive: look at "
        "Ray's logs, or give RayEngine fewer workers, CPUs or GPUs."
    )

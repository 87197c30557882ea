"""Where cells run: processes of this machine, or a dask or ray cluster, through joblib."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from operator import index as as_integer
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import joblib

__all__ = ["BACKENDS", "Connection", "Workers", "WorkersLike", "connected", "workers_of"]

BACKENDS = ("loky", "dask", "ray")
CONNECT_SECONDS = 20


@dataclass(frozen=True)
class Workers:
    """How many processes at work, of which backend of joblib.

    Parameters
    ----------
    count : int or None
        Processes of this machine; None takes all cores. A cluster has its own workers: None.
    backend : {"loky", "dask", "ray"}
        ``loky`` starts processes here; the others use a cluster that runs already.
    address : str, optional
        Of the cluster: dask's scheduler (``tcp://host:8786``) or ray's head (``host:6379``, or
        ``auto`` for the one that runs on this machine).

    Raises
    ------
    ValueError
        `count` below 1, an unknown backend, a cluster without address or with a count, or an
        address without cluster.
    TypeError
        `count` is not an integer.
    ImportError
        The backend's extra is not installed.
    """

    count: int | None = 1
    backend: str = "loky"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend={self.backend!r}: expected one of {', '.join(BACKENDS)}")
        if self.backend == "loky":
            if self.address is not None:
                raise ValueError(
                    f"address={self.address!r}: of which cluster? add backend='dask' or 'ray'"
                )
            _check_count(self.count)
            return
        if self.address is None:
            raise ValueError(f"backend={self.backend!r}: needs address=, that of a running cluster")
        if self.count is not None:
            raise ValueError(
                f"workers={self.count!r}: a {self.backend} cluster has its own; leave workers out"
            )
        _library(self.backend)

    @property
    def is_here(self) -> bool:
        """Whether the cells run on this machine, with no cluster."""
        return self.backend == "loky"


WorkersLike: TypeAlias = int | Workers | None


class Connection(NamedTuple):
    """What joblib needs to reach its workers."""

    processes: int
    threads: int
    """Of each process."""
    config: dict[str, Any]
    """Arguments of `joblib.parallel_config`."""
    streams: bool
    """Whether results arrive one by one."""


def workers_of(workers: WorkersLike) -> Workers:
    """Workers as they were given, or as a number of processes of this machine."""
    return workers if isinstance(workers, Workers) else Workers(workers)


@contextmanager
def connected(workers: Workers, most: int) -> Iterator[Connection]:
    """Connect to the workers for a block of code; at most so many of them are of use.

    Raises
    ------
    RuntimeError
        If no cluster answers at the address, or it has no workers.
    """
    if workers.is_here:
        processes = min(workers.count or joblib.cpu_count(), most)
        threads = max(1, joblib.cpu_count() // max(1, processes))
        config = {"backend": "loky", "inner_max_num_threads": threads}
        yield Connection(processes, threads, config, streams=True)
        return
    reach = _dask if workers.backend == "dask" else _ray
    with reach(str(workers.address)) as found:
        yield found


@contextmanager
def _dask(address: str) -> Iterator[Connection]:
    client_of = _library("dask").Client
    try:
        client = client_of(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise _unreachable("dask", address, error) from error
    with client:
        cores = sum(client.ncores().values())
        if not cores:
            raise RuntimeError(f"address={address!r}: the dask scheduler there has no workers")
        # Cells that wait in a long queue are not shared out again: a few at a time.
        yield Connection(cores, 1, {"backend": "dask", "client": client}, streams=True)


@contextmanager
def _ray(address: str) -> Iterator[Connection]:
    ray = _library("ray")
    joined = not ray.is_initialized()
    if joined:
        try:
            _knock(address)  # ray itself would go on trying for minutes
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreachable("ray", address, error) from error
    try:
        import_module("ray.util.joblib").register_ray()
        cores = int(ray.cluster_resources().get("CPU", 0))
        if not cores:
            raise RuntimeError(f"address={address!r}: the ray cluster there has no CPUs")
        yield Connection(cores, 1, {"backend": "ray"}, streams=False)
    finally:
        if joined:
            ray.shutdown()


def _knock(address: str) -> None:
    """OSError where nobody listens; ``auto`` is for ray to find."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS):
            pass


def _library(backend: str) -> ModuleType:
    try:
        return import_module("distributed" if backend == "dask" else "ray")
    except ImportError as error:
        raise ImportError(
            f"backend={backend!r}: not installed; pip install 'spinscape[{backend}]'"
        ) from error


def _unreachable(backend: str, address: str, error: Exception) -> RuntimeError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RuntimeError(f"address={address!r}: no {backend} cluster answers there ({reason})")


def _check_count(count: int | None) -> None:
    if count is None:
        return
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"workers must be an integer or None, got {count!r}")
    if as_integer(count) < 1:
        raise ValueError(f"workers must be at least 1, got {count}; None takes all cores")

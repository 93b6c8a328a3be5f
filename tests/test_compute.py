"""Threads are limited while celldit computes, in every library, and only then."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np  # noqa: F401  (its BLAS must be loaded to be limited)
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from celldit.compute import check_device, threads
from celldit.errors import InputError


def settings() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_every_library_is_limited_and_gets_its_setting_back() -> None:
    with threadpool_limits(2):
        before, of_torch = settings(), torch.get_num_threads()
        assert set(before) == {2}
        with threads() as n:
            assert n == torch.get_num_threads() == 1
            assert set(settings()) == {1}
            with threads():
                pass
            assert set(settings()) == {1}
        assert settings() == before
        assert torch.get_num_threads() == of_torch


def test_a_failure_gives_the_settings_back() -> None:
    with threadpool_limits(2):
        with pytest.raises(ZeroDivisionError), threads():
            raise ZeroDivisionError
        assert set(settings()) == {2}


def test_callers_that_overlap_leave_no_limit_behind() -> None:
    """The one that enters first leaves first."""
    first, second, third = Barrier(2), Barrier(2), Barrier(2)

    def early() -> None:
        with threads():
            first.wait()
            second.wait()
        third.wait()

    def late() -> None:
        first.wait()
        with threads():
            second.wait()
            third.wait()

    with threadpool_limits(2), ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(early), pool.submit(late)]:
            done.result()
        assert set(settings()) == {2}


def test_the_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLDIT_THREADS", "2")
    with threads() as n:
        assert n == 2
        assert set(settings()) == {2}


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("gpu0", "device='gpu0' is none that torch knows; use 'cpu' or 'cuda'."),
        (None, "device=None is none that torch knows"),
        ("meta", "device='meta': celldit finds no such device here; use 'cpu'."),
        ("cpu:3", "device='cpu:3': this machine has 1, counted from 0; use 'cpu:0' or less."),
    ],
)
def test_a_device_that_is_not_there_is_refused(device: Any, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        check_device(device)


def test_a_device_without_double_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match="device='mps': celldit finds no such device here"):
        check_device("mps")


def test_the_cpu_is_always_there() -> None:
    assert check_device("cpu") == check_device(torch.device("cpu"))

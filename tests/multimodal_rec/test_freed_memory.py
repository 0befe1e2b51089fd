"""What was freed goes back to the system when it is asked for."""

from __future__ import annotations

import platform

import psutil
import pytest

from multimodal_rec.freed_memory import give_back

BLOCK = 64 << 10  # Below what glibc takes of the system block by block, and gives back at once.


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_behind_something_in_use_goes_back() -> None:
    process = psutil.Process()
    blocks = [bytearray(BLOCK) for _ in range(2000)]
    # At the end of the heap, so that nothing of what lies before it goes back by itself.
    in_use = bytearray(BLOCK)
    blocks.clear()
    held = process.memory_info().rss
    give_back()
    assert held - process.memory_info().rss > 1500 * BLOCK
    assert len(in_use) == BLOCK

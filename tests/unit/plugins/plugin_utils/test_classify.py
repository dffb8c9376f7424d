# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which line of a log counts, whatever else is in it. Real logs are in tests/classify."""

from __future__ import annotations

import gzip
import io
import pathlib
import time
import typing as t
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils import _classify
from ansible_collections.portbuild.cluster.plugins.plugin_utils._classify import blocks, Classification, classify

HEADER = "main.c:1:10: fatal error: nowhere.h: No such file or directory"
SYNTAX = "main.c:4:1: error: expected ';' before '}' token"
LINK = "main.c:(.text+0xa): undefined reference to `nowhere'"
MAKE = "make: *** [Makefile:2: all] Error 1"
BANNER = "====================<phase 3: build (step build, user builder, network no)>===================="
ENDED = "=== ended: failed after 3.1 s ==="


class Judge:
    """Writes a log and classifies it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __call__(self, *lines: str | bytes, **more: t.Any) -> Classification:
        content = b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines)
        self.path.write_bytes(gzip.compress(content) if more.pop("compressed", False) else content)
        return classify(str(self.path), **{"system": "debian", "reason": "failed", "phase": "build", **more})


@pytest.fixture(name="judge")
def fixture_judge(tmp_path: pathlib.Path) -> Judge:
    return Judge(tmp_path / "log")


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_class_line_and_context(judge: Judge, compressed: bool) -> None:
    found = judge(BANNER, "a", "b", "c", "d", HEADER, "e", MAKE, ENDED, compressed=compressed)
    assert (found.failure_class, found.line_number, found.line) == ("missing_header", 6, HEADER)
    assert found.context == ("b", "c", "d", HEADER, "e", MAKE, ENDED)


def test_the_first_of_several_errors_counts(judge: Judge) -> None:
    found = judge(SYNTAX, SYNTAX.replace("4", "9"), MAKE)
    assert (found.failure_class, found.line_number, found.further) == ("compiler_error", 1, ())


def test_the_more_telling_of_errors_close_by_counts(judge: Judge) -> None:
    found = judge(LINK, *["[ 50%] Building"] * 20, HEADER, MAKE)
    assert (found.failure_class, found.line_number, found.further) == ("missing_header", 22, ("linker",))


def test_what_was_followed_by_much_else_does_not_count(judge: Judge) -> None:
    found = judge(HEADER, *["cc -c x.c"] * 1000, SYNTAX, MAKE)
    assert (found.failure_class, found.further) == ("compiler_error", ("missing_header",))
    assert judge(HEADER, *["cc -c x.c"] * 1000, MAKE).failure_class == "missing_header"


@pytest.mark.parametrize(
    ("between", "system"),
    [
        (BANNER, "debian"),
        ("   dh_auto_build", "debian"),
        ("   debian/rules override_dh_auto_build", "debian"),
        ("===>  Building for hello-1.0", "ports"),
        ("make[1]: [Makefile:3: x.o] Error 1 (ignored)", "debian"),
    ],
)
def test_what_the_failed_stage_did_not_say_does_not_count(judge: Judge, between: str, system: str) -> None:
    assert judge(HEADER, between, MAKE, system=system) == Classification("other", (), 3, MAKE, (HEADER, between, MAKE))
    assert judge(HEADER, between, SYNTAX, MAKE, system=system).further == ()


@pytest.mark.parametrize("phase", ["depends", "build"])
def test_nothing_is_guessed(judge: Judge, phase: str) -> None:
    found = judge("an unknown message", phase=phase)
    assert found == Classification("depends" if phase == "depends" else "other")


@pytest.mark.parametrize("reason", ["timeout", "silence", "out_of_memory", "disk_full", "log_size"])
def test_the_supervisor_is_believed_and_not_the_log(judge: Judge, reason: str) -> None:
    found = judge(HEADER, "working...\r50%\r60%", "", "=== said of it ===", ENDED, reason=reason)
    assert (found.failure_class, found.line_number, found.line) == (reason, 2, "60%")


@pytest.mark.parametrize(
    "reason", ["lost", "killed", "chroot", "machine_disk_full", "unreachable", "fetch_infrastructure"]
)
def test_the_infrastructure(judge: Judge, reason: str) -> None:
    assert judge(HEADER, reason=reason).failure_class == "infrastructure"


def test_a_build_cannot_claim_to_have_timed_out(judge: Judge) -> None:
    assert judge("=== ended: timeout after 3 s ===", "=== The build took longer than 3 s. ===").failure_class == "other"


def test_leftovers_of_any_package_count(judge: Judge) -> None:
    lines = ["extra\t/etc/x", BANNER.replace("3: build", "5: check"), "fine"]
    assert judge(*lines, phase="check").failure_class == "other"
    found = judge(*lines, phase="check", detail="The packing list is wrong: 1 differences.")
    assert (found.failure_class, found.line_number) == ("packing_list", 1)


def test_colours_and_progress(judge: Judge) -> None:
    coloured = "\x1b[01m\x1b[Kmain.c:1:10:\x1b[m\x1b[K \x1b[01;31m\x1b[Kfatal error: \x1b[m\x1b[Knowhere.h: No such file or directory"
    for line in (
        coloured,
        HEADER + "\r",
        f"10%\r20%\r{HEADER}",
        f"10%\r{HEADER}\rdone",
        f"\x1b]8;;file:///x\x07{HEADER}",
    ):
        found = judge("one", line, MAKE)
        assert (found.failure_class, found.line_number, found.line) == ("missing_header", 2, HEADER)


def test_rules_hold_for_their_system_and_phase(judge: Judge) -> None:
    line = "=> SHA256 No such thing\n===>   a-1 depends on file: /usr/local/bin/b - not found"
    assert judge(line).failure_class == "other"
    assert judge(line, system="ports").failure_class == "depends"
    leftover = "extra\t/etc/x"
    assert judge(leftover).failure_class == "other"
    assert judge(leftover, phase="check").failure_class == "packing_list"


def test_a_log_that_is_not_there_or_cut_off(judge: Judge, tmp_path: pathlib.Path) -> None:
    assert classify(str(tmp_path / "none"), system="debian", reason="failed", phase="build") == Classification()
    assert classify(str(tmp_path / "none"), system="debian", reason="timeout", phase="").failure_class == "timeout"
    assert judge().failure_class == "other"
    packed = gzip.compress(HEADER.encode() + b"\n" + bytes(range(256)) * 2000)
    judge.path.write_bytes(packed[:-600])
    assert classify(str(judge.path), system="", reason="failed", phase="").failure_class in ("missing_header", "other")
    judge.path.write_bytes(packed[:5])
    assert classify(str(judge.path), system="", reason="failed", phase="") == Classification()


@given(
    st.binary(max_size=3000)
    | st.lists(st.sampled_from([HEADER, MAKE, "\x1b[", "\r", "\n", BANNER, "x" * 999])).map(
        lambda s: "".join(s).encode()
    )
)
@example("\u0380".encode())  # nobody has given it a meaning yet
@settings(deadline=None)
def test_anything_may_be_in_a_log(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile"
    path.write_bytes(content)
    for reason in ("failed", "timeout"):
        found = classify(str(path), system="debian", reason=reason, phase="build")
        assert 0 <= found.line_number <= content.count(b"\n") + 1
        shown = {unicodedata.category(character) for line in (found.line, *found.context) for character in line}
        assert shown.isdisjoint({"Cc", "Cs", "Zl", "Zp"})  # nothing moves the cursor, ends a line, or is no character


@given(st.lists(st.binary(max_size=40), max_size=40), st.integers(8, 64))
def test_blocks_are_whole_lines(lines: list[bytes], size: int) -> None:
    content = b"\n".join(line.replace(b"\n", b"") for line in lines)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(_classify, "_BLOCK", size)
        monkeypatch.setattr(_classify, "_LONGEST", 20)
        found = list(blocks(io.BytesIO(content)))
    assert all(block.endswith(b"\n") for block in found[:-1])
    assert all(len(block) <= size + 21 for block in found)
    joined = b"".join(found).split(b"\n")
    assert len(joined) == content.count(b"\n") + 1
    assert all(whole.startswith(part) for whole, part in zip(content.split(b"\n"), joined, strict=True))


def test_overlong_lines_are_cut(judge: Judge) -> None:
    junk = "x" * 5_000_000
    found = judge("one", junk + HEADER, SYNTAX)
    assert (found.failure_class, found.line_number) == ("compiler_error", 3)
    found = judge(HEADER + junk, MAKE)
    assert (found.failure_class, len(found.line)) == ("missing_header", 500)
    found = judge(HEADER[:30] + "y" * 300 + HEADER[30:], MAKE)
    assert found.failure_class == "missing_header"
    assert len(found.line) <= 500


def test_lines_are_counted_over_blocks(judge: Judge) -> None:
    found = judge(*["cc -c file.c"] * 100_000, HEADER, *["cc -c file.c"] * 3)
    assert found.line_number == 100_001
    assert found.context[:3] == ("cc -c file.c",) * 3
    assert len(found.context) == 7


def test_out_of_time_the_end_is_looked_at(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_classify, "_LAST", 100_000)
    monkeypatch.setattr(_classify, "_BLOCK", 50_000)
    ticks = iter(range(1000))
    lines = [*["cc -c file.c"] * 50_000, HEADER, *["cc -c file.c"] * 50_000, SYNTAX, MAKE]
    found = judge(*lines, monotonic=lambda: float(next(ticks)), budget=3.0)
    assert (found.failure_class, found.line_number, found.further) == ("compiler_error", 100_002, ())
    assert judge(*lines).further == ("missing_header",)
    assert (
        judge(*["cc -c file.c"] * 3, SYNTAX, MAKE, monotonic=lambda: float(next(ticks)), budget=-1.0).line_number == 4
    )


class Counting:
    """A stream that counts what is read, and how much is kept at once."""

    def __init__(self, line: bytes, size: int) -> None:
        self._line = line * (4096 // len(line) + 1)
        self.left = size

    def read(self, size: int) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return (self._line * (size // len(self._line) + 1))[:size]


@pytest.mark.parametrize(
    "line", [b"x", b"error: ", b"cc -c file.c\n", b"10%\r"], ids=["endless", "errors", "lines", "progress"]
)
def test_blocks_keep_little_of_a_large_log(line: bytes) -> None:
    stream: t.Any = Counting(line, 300 << 20)
    largest = max(map(len, blocks(stream)))
    assert largest <= _classify._BLOCK + _classify._LONGEST


HOSTILE = {
    "errors": b"error: " * 50 + b"\n",
    "unbroken": b"error: undefined reference to ld: ",
    "progress": b"error: \r",
    "escapes": b"\x1b[" + b"0" * 50,
    "colours": b"\x1b[0m" * 3 + b"x\n",
    "colons": b".c:1:1:.c:1:1: " * 30 + b"\n",
    "spaces": b" " * 3000 + b"error: \n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_take_linear_time(tmp_path: pathlib.Path, name: str) -> None:
    """Four times as much takes about four times as long."""
    path = tmp_path / "log"

    def cost(size: int) -> float:
        path.write_bytes((HOSTILE[name] * (size // len(HOSTILE[name]) + 1))[:size])
        begin = time.process_time()
        classify(str(path), system="debian", reason="failed", phase="build", budget=1e9)
        return time.process_time() - begin

    cost(10_000)
    small = cost(100_000)
    assert cost(400_000) < 10 * max(small, 0.01)

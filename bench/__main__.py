"""What `train` takes, against what one would do without it, side by side on one machine.

python -m bench [PART...] [--quick]

Parts: sync, pull, upload, trips, commands, grading, overhead, growth; without any, all. Results go
into results.json, results.md and PNG files beside this file, and a few into the README; the parts
that were not asked for stay as they were.
With --quick, one repetition of the small cases, to see that the bench works; its results go into
build/bench.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from bench import commands, grading, growth, overhead, pull, sync, trips, upload
from bench.compare import committed, fallen
from bench.figures import Figure, Results, load, to_json
from bench.line import LOOPBACK, Line, distant, why_none
from bench.machine import about
from bench.proof import Proof, prove
from bench.race import say
from bench.summary import show
from bench.table import markdown
from bench.vm import start_vm

HERE = Path(__file__).parent
QUICK_RTTS_MS = (0, 50)
# On a disk, whoever makes files after another's were removed pays for that: ext4 passes over inodes
# that were in use a moment ago, one by one. Twice what all parts write at once.
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 8 * 2**30

PARTS = {
    part.NAME: part for part in (sync, pull, upload, trips, commands, grading, overhead, growth)
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if shutil.which("rsync") is None:
        parser.error("no rsync to measure against; to change that: apt install rsync")
    results = measure(options.parts or list(PARTS), quick=options.quick)
    keep(results, HERE.parent / "build" / "bench" if options.quick else HERE)


def measure(parts: list[str], *, quick: bool) -> Results:
    """Part after part, the lines from the shortest to the longest."""
    rtts_ms = sorted({rtt_ms for part in parts for rtt_ms in PARTS[part].RTTS_MS})
    trouble = why_none()
    left_out = [f"{rtt_ms} ms: {trouble}" for rtt_ms in rtts_ms if rtt_ms and trouble]
    memory = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES else None
    facts = about() | {"files": "in memory" if memory else "on disk"}
    proofs: list[Proof] = []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=memory) as scratch:
        for rtt_ms in rtts_ms:
            if (rtt_ms and trouble) or (quick and rtt_ms not in QUICK_RTTS_MS):
                continue
            with _line(rtt_ms) as line, line.near():
                proofs.append(_proven(line))
                with start_vm(Path(scratch, f"{rtt_ms}"), line) as vm:
                    for part in parts:
                        if rtt_ms in PARTS[part].RTTS_MS:
                            folder = Path(scratch, f"{rtt_ms}-{part}")
                            folder.mkdir()
                            figures += PARTS[part].measure(vm, folder, quick=quick)
                            shutil.rmtree(folder)
    figures.sort(key=lambda figure: parts.index(figure.part))
    done = {figure.part: facts for figure in figures}
    return Results(done, tuple(proofs), tuple(figures), tuple(left_out))


def keep(results: Results, folder: Path) -> None:
    """Write the results into the folder, and say them, and which ratios fell."""
    # Here, because what this process holds is the least that a child's peak memory can read.
    from bench.plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    everything = load(file).updated(results)
    file.write_text(to_json(everything), "utf-8")
    (folder / "results.md").write_text(markdown(everything), "utf-8")
    draw(everything.figures, folder)
    if folder == HERE:
        show(everything, HERE.parent / "README.md")
    sys.stdout.write(markdown(results))
    before = committed(HERE / "results.json")
    if before is None:
        say("no results are committed yet, so there is nothing to compare with")
    else:
        for text in fallen(before, results):
            say(f"fell: {text}")


def _line(rtt_ms: float) -> contextlib.AbstractContextManager[Line]:
    return distant(rtt_ms) if rtt_ms else contextlib.nullcontext(LOOPBACK)


def _proven(line: Line) -> Proof:
    proof = prove(line)
    say(
        f"line of {line.rtt_ms:g} ms: {proof.measured_ms:.2f} ms,"
        f" {proof.one_mb_per_s:.0f} MB/s over one connection, {proof.many_mb_per_s:.0f} over eight"
    )
    if not proof.holds:
        raise SystemExit(f"error: the line is {proof.measured_ms:.1f} ms long")
    return proof


if __name__ == "__main__":
    main()

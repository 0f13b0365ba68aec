"""
Throws mutated bytes at the codec of shards until its time is over; the first bytes that break a promise end it.

``python -m tests.fuzz.run --seconds 60 [TARGET ...]``: each target first with compiled loops and random mutations, many
times a second, numba's bounds checks on; then, where atheris is installed, with the loops as plain Python, guided by
the branches that an input takes.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

MOST_MEMORY = 6 << 30
NUMBERS = [0, 1, 2, 7, 8, 9, 0x0F, 0x10, 0x1C, 0x1F, 0x20, 0x2C, 0x3F, 0x7F, 0x80, 0xC0, 0xF0, 0xFE, 0xFF]


def mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    """One of the corpus with some bytes changed, cut, repeated, or taken from another one."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(data) + 1)
        way = chance.randrange(8)
        if way == 0 and data:
            data[place % len(data)] ^= 1 << chance.randrange(8)
        elif way == 1 and data:
            data[place % len(data)] = chance.choice(NUMBERS)
        elif way == 2 and data:
            data[place % len(data)] = chance.randrange(256)
        elif way == 3:
            del data[place : place + chance.choice((1, 2, 4, 8, 64))]
        elif way == 4:
            data[place:place] = bytes(chance.choices(NUMBERS, k=chance.choice((1, 2, 4, 8))))
        elif way == 5:
            data[place : place + 8] = chance.choice((1, 2**31, 2**32, 2**62, 2**63 - 1, 2**64 - 1)).to_bytes(8, "big")
        elif way == 6:
            other = chance.choice(corpus)
            begin = chance.randrange(len(other) + 1)
            data[place : place + chance.choice((0, 8))] = other[begin : begin + chance.choice((8, 40, 300))]
        else:
            begin = chance.randrange(len(data) + 1)
            data[place:place] = data[begin : begin + chance.choice((8, 40, 300))]
    return bytes(data)


def natively(check: Callable[[bytes], object], corpus: list[bytes], seconds: float, seed: int) -> int:
    """Executions with compiled loops within the time; raises what an input raises, after it has shown it."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        for _ in range(200):
            data = mutated(chance, corpus)
            try:
                check(data)
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"fuzz-crash-{os.getpid()}"
                kept.write_bytes(data)
                print(f"these bytes break a promise: {kept}", flush=True)
                raise
            count += 1
    return count


def _worker(arguments: argparse.Namespace) -> None:
    (name,) = arguments.targets
    folder = Path(os.environ["FUZZ_SEEDS"]) / name
    if arguments.mode == "native":
        from tests.fuzz.targets import TARGETS

        corpus = [path.read_bytes() for path in sorted(folder.iterdir())]
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        count = natively(TARGETS[name], corpus, arguments.seconds, arguments.seed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"{name}: {count:,} executions in {arguments.seconds} s, {peak} MiB at most, nothing found", flush=True)
        return
    import atheris

    with atheris.instrument_imports(include=["influxdb_backup.influx"]):
        from tests.fuzz.targets import TARGETS
    import numpy as np

    np.seterr(over="ignore")
    longest = 64 * 1024 if name in ("file", "index", "tar") else 2048
    options = [f"-max_total_time={arguments.seconds}", f"-max_len={longest}", "-print_final_stats=1", "-timeout=60"]
    options += ["-rss_limit_mb=2048", f"-artifact_prefix={tempfile.gettempdir()}/fuzz-crash-"]
    atheris.Setup([sys.argv[0], *options, str(folder)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Runs every target in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=30, help="for each target and each way")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--mode", choices=["native", "guided"], default=None)
    parser.add_argument("--worker", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker:
        _worker(arguments)
        return 0
    names = ["index", "file", "times", "floats", "integers", "booleans", "strings", "snappy", "tombstone", "tar"]
    modes = [arguments.mode] if arguments.mode else ["native", *(["guided"] if find_spec("atheris") else [])]
    if len(modes) == 1 and not arguments.mode:
        print("atheris is not installed (it has wheels for Python up to 3.13): only compiled loops are tried.")
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "tests.fuzz.seeds", folder], check=True)
        failed = 0
        for mode in modes:
            environment = {**os.environ, "FUZZ_SEEDS": folder}
            if mode == "native":
                kept = Path(tempfile.gettempdir()) / f"fuzz-numba-{os.getuid()}"
                environment |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(kept)}
            else:
                environment |= {"NUMBA_DISABLE_JIT": "1"}
            for name in arguments.targets or names:
                options = [
                    "--worker",
                    "--mode",
                    mode,
                    "--seconds",
                    str(arguments.seconds),
                    "--seed",
                    str(arguments.seed),
                ]
                print(f"{name} ({mode})", flush=True)
                command = [sys.executable, "-m", "tests.fuzz.run", *options, name]
                failed += subprocess.run(command, env=environment, check=False).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

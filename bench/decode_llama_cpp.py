"""llama.cpp's turns in bench/decode.py. Runs under a Python of its own that has llama-cpp-python; imports nothing else.

python bench/decode_llama_cpp.py MODEL.gguf THREADS      one JSON request a line in, one answer a line out
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints must not get between the answers
    import llama_cpp
    import numpy as np

    threads = int(sys.argv[2])
    model = llama_cpp.Llama(
        sys.argv[1], n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    context, vocab = model.ctx, model.n_vocab()

    def likeliest() -> int:
        return int(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (vocab,)).argmax())

    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        model.reset()
        begin = time.perf_counter()
        model.eval(request["prompt"])
        ids = [likeliest()]
        read_s, begin = time.perf_counter() - begin, time.perf_counter()
        # along a text that is given (what would it have written?), else along its own
        forced = request.get("forced") or ids
        for at in range(request["tokens"] - 1):
            model.eval([forced[at]])
            ids.append(likeliest())
        answer = {"read_s": read_s, "write_s": time.perf_counter() - begin, "ids": [ids]}
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()

"""Feeds a client streams that coverage guides: ``python tests/fuzz/fuzz_responses.py -runs=100000``.

The first bytes choose the RPC and whether the rest is a message, or what befalls a right stream. Options are
libFuzzer's; it needs ``pip install atheris``.
"""

import collections
import sys

import atheris

with atheris.instrument_imports(include=["seedbed"]):
    import hostile

OUTCOMES = collections.Counter()


def one(data: bytes) -> None:
    choices = atheris.FuzzedDataProvider(data)

    def pick(most: int) -> int:
        return choices.ConsumeIntInRange(0, most)

    method = ("InitModel", "InitTensor")[pick(1)]
    right = hostile.RIGHT_ANSWERS[method]
    if pick(1):
        stream = hostile.rearranged(right, pick)
    else:
        begin = pick(len(right) - 1)
        stream = [*right[:begin], choices.ConsumeBytes(len(data)), *right[begin:]]
    OUTCOMES[hostile.receive(method, stream)] += 1
    if (total := OUTCOMES.total()) % 10_000 == 0:
        print(f"{total} streams: {dict(OUTCOMES)}", flush=True)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()

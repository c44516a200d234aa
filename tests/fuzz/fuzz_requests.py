"""Feeds a servicer requests that coverage guides: ``python tests/fuzz/fuzz_requests.py -runs=100000``.

The first byte chooses the RPC and whether the rest is a request, the damage to a sound one, or the choices of a message
built field by field. Options are libFuzzer's; it needs ``pip install atheris``.
"""

import collections
import sys

import atheris

with atheris.instrument_imports(include=["seedbed", "seedbed_server"]):
    import hostile

OUTCOMES = collections.Counter()


def one(data: bytes) -> None:
    choices = atheris.FuzzedDataProvider(data)

    def pick(most: int) -> int:
        return choices.ConsumeIntInRange(0, most)

    method = hostile.METHODS[pick(len(hostile.METHODS) - 1)]
    kind = pick(2)
    if kind == 0:
        request = choices.ConsumeBytes(len(data))
    elif kind == 1:
        sound = hostile.sound_requests(method)
        request = hostile.damaged(sound[pick(len(sound) - 1)], pick)
    else:
        request_type, _ = (hostile.STREAMS | hostile.UNARY)[method]
        request = hostile.built(request_type, pick).SerializeToString()
    OUTCOMES[hostile.answer(method, request)] += 1
    if (total := OUTCOMES.total()) % 10_000 == 0:
        print(f"{total} requests: {dict(OUTCOMES)}", flush=True)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()

"""Whatever bytes a client sends, the server answers what it can serve and refuses the rest by the name of its field.

`hostile` says what is checked of each; ``fuzz_requests.py`` goes on for as long as one likes.
"""

import random
import time
import tracemalloc

import grpc
import hostile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import seedbed
from seedbed.v1 import (
    Assembly,
    Axes,
    DescribeTensorRequest,
    Expression,
    Function,
    InitModelRequest,
    InitTensorRequest,
    Literal,
    Normal,
    Part,
    Parts,
    Recipe,
    Reduction,
    Region,
    ResumePoint,
    Step,
    TensorSlice,
    TensorSpec,
    VarianceScaling,
    View,
    Zeros,
)

quickly = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


def picker(seed):
    chosen = random.Random(seed)
    return lambda most: chosen.randint(0, most)


@pytest.mark.parametrize("method", hostile.METHODS)
@quickly
@given(data=st.binary(max_size=200))
def test_bytes_that_may_be_no_request(method, data):
    hostile.answer(method, data)


@pytest.mark.parametrize("method", hostile.METHODS)
@quickly
@given(seed=seeds)
def test_requests_that_were_damaged(method, seed):
    pick = picker(seed)
    for request in hostile.sound_requests(method):
        hostile.answer(method, hostile.damaged(request, pick))


@pytest.mark.parametrize("method", hostile.METHODS)
@quickly
@given(seed=seeds)
def test_requests_of_any_fields_and_lengths(method, seed):
    request_type, _ = (hostile.STREAMS | hostile.UNARY)[method]
    hostile.answer(method, hostile.built(request_type, picker(seed)).SerializeToString())


@pytest.mark.parametrize("method", hostile.METHODS)
def test_sound_requests_are_served(method):
    """Otherwise what is damaged above would prove little."""
    assert {hostile.answer(method, request) for request in hostile.sound_requests(method)} == {"served"}


CELL = Part(region=Region(start=[0], stop=[1]), recipe=Recipe(ones={}))
TINY = TensorSlice(spec=TensorSpec(shape=[1], zeros=Zeros()))
LARGEST = {
    "dimensions": ("DescribeTensor", DescribeTensorRequest(spec=TensorSpec(shape=[1] * 500_000, zeros=Zeros()))),
    "axes": (
        "DescribeTensor",
        DescribeTensorRequest(
            spec=TensorSpec(
                shape=[2, 2],
                variance_scaling=VarianceScaling(
                    scale=1, mode=1, distribution=1, in_axis=Axes(axes=[1] + [0] * 500_000)
                ),
            )
        ),
    ),
    "region": (
        "DescribeTensor",
        DescribeTensorRequest(spec=TINY.spec, region=Region(start=[0] * 250_000, stop=[1] * 250_000)),
    ),
    "parts": (
        "DescribeTensor",
        DescribeTensorRequest(spec=TensorSpec(shape=[9], parts=Parts(parts=[CELL] * 22_000))),
    ),
    "steps": (
        "DescribeTensor",
        DescribeTensorRequest(spec=TensorSpec(shape=[9], expression=Expression(steps=[Step(constant=1)] * 40_000))),
    ),
    "arguments": (
        "DescribeTensor",
        DescribeTensorRequest(
            spec=TensorSpec(
                shape=[9], expression=Expression(steps=[Step(constant=1), Step(function=1, arguments=[0] * 500_000)])
            )
        ),
    ),
    "strides": (
        "DescribeTensor",
        DescribeTensorRequest(
            spec=TensorSpec(
                shape=[9],
                expression=Expression(
                    steps=[
                        Step(constant=1),
                        Step(view=View(shape=[1] * 250_000, strides=[0] * 250_000), arguments=[0]),
                    ]
                ),
            )
        ),
    ),
    "reduced axes": (
        "DescribeTensor",
        DescribeTensorRequest(
            spec=TensorSpec(
                shape=[9],
                expression=Expression(
                    steps=[
                        Step(recipe=Recipe(normal={})),
                        Step(reduction={"reducer": 1, "axes": [0] * 500_000}, arguments=[0]),
                    ]
                ),
            )
        ),
    ),
    "literal": (
        "DescribeTensor",
        DescribeTensorRequest(spec=TensorSpec(shape=[125_000], literal=Literal(data=bytes(500_000)))),
    ),
    "name": ("DescribeTensor", DescribeTensorRequest(spec=TensorSpec(name="x" * 500_000, shape=[4], normal=Normal()))),
    "unset tensors": ("InitModel", InitModelRequest(tensors=[TensorSlice()] * 250_000)),
    "tensors": ("InitModel", InitModelRequest(tensors=[TINY] * 37_000)),
    "resume": ("InitModel", InitModelRequest(tensors=[TINY], resume=ResumePoint(tensor_index=2**32 - 1))),
}


@pytest.mark.parametrize("name", LARGEST)
def test_requests_of_half_a_mebibyte_take_seconds_at_most(name):
    """An eighth of what a server reads, all in one field; the time grows with the length and no faster."""
    method, request = LARGEST[name]
    begin = time.thread_time()
    assert hostile.answer(method, request.SerializeToString()) in ("refused", "served")
    assert time.thread_time() - begin < 2


NORMAL = Recipe(normal=Normal())
ADD = Function.FUNCTION_ADD


def expression(*steps, shape=(1 << 20,)):
    return TensorSpec(name="w", shape=shape, expression=Expression(steps=steps))


def parts(*placed, shape=(1 << 20,)):
    return TensorSpec(name="w", shape=shape, parts=Parts(parts=placed))


def nested(depth, wrap):
    recipe = NORMAL
    for _ in range(depth):
        recipe = wrap(recipe)
    return recipe


def in_parts(recipe, copies=1):
    return Recipe(parts=Parts(parts=[Part(recipe=recipe)] * copies))


def in_expression(recipe):
    step = Step(recipe=recipe)
    return Recipe(expression=Expression(steps=[step, step, Step(function=ADD, arguments=[0, 1])]))


def halves(levels):
    """x[::2] + x[1::2], and of that again: an element needs 2^levels of the first."""
    steps = [Step(recipe=Recipe(normal=Normal(), shape=[1 << (levels + 10)]))]
    for level in range(levels):
        shape, last = [1 << (levels + 9 - level)], len(steps) - 1
        for offset in (0, 1):
            steps.append(Step(view=View(shape=shape, strides=[2], offset=offset), arguments=[last]))
        steps.append(Step(function=ADD, arguments=[last + 1, last + 2]))
    return expression(*steps, shape=[1 << 10])


def windows(levels):
    """Each view holds its argument 16 times over."""
    steps = [Step(recipe=Recipe(normal=Normal(), shape=[4]))]
    size = 4
    for level in range(levels):
        steps.append(Step(view=View(shape=[16, size], strides=[0, 1]), arguments=[level]))
        size *= 16
    return expression(*steps, Step(view=View(), arguments=[levels]), shape=[5])


OVERLAPPING = [
    Part(view=View(shape=[1 << 10, 1 << 9], strides=[1, 1 << 11], offset=n % 7), recipe=NORMAL) for n in range(400)
]
AMPLIFIED = {
    "doubled": expression(Step(recipe=NORMAL), *(Step(function=ADD, arguments=[n, n]) for n in range(100))),
    "doubled to infinity": expression(
        Step(recipe=NORMAL), *(Step(function=ADD, arguments=[n, n]) for n in range(5000))
    ),
    "halves": halves(12),
    "too many halves": halves(40),
    "windows": windows(10),
    "windows beyond measure": windows(14),
    "parts within parts": parts(Part(recipe=nested(15, in_parts))),
    "parts as branches": parts(Part(recipe=nested(5, lambda recipe: in_parts(recipe, 5)))),
    "too deep": parts(Part(recipe=nested(30, in_parts))),
    "expressions within expressions": parts(Part(recipe=nested(7, in_expression)), shape=[64]),
    "huge shape, tiny view": expression(
        Step(recipe=Recipe(normal=Normal(), shape=[1 << 59])), Step(view=View(offset=(1 << 59) - 1), arguments=[0])
    ),
    "huge assembly": expression(
        Step(constant=1.0),
        Step(assembly=Assembly(shape=[1 << 59], boxes=[View(shape=[1 << 58], strides=[2])]), arguments=[0]),
        shape=[1 << 59],
    ),
    "huge parts": parts(
        Part(recipe=NORMAL), Part(view=View(shape=[1 << 60], strides=[-1], offset=(1 << 60) - 1), recipe=NORMAL),
        shape=[1 << 60],
    ),
    "overlapping parts": parts(*OVERLAPPING),
    "a literal too long": TensorSpec(shape=[1], literal=Literal(data=bytes(1 << 20))),
    "a literal of a huge shape": TensorSpec(shape=[1 << 59], literal=Literal(data=b"1234")),
    "a small literal of a huge part": parts(Part(recipe=Recipe(shape=[1], literal=Literal(data=bytes(4))))),
    "a huge reduction": expression(
        Step(recipe=Recipe(normal=Normal(), shape=[1 << 59])),
        Step(reduction=Reduction(reducer=1), arguments=[0]),
    ),
    "a huge orthogonal within": parts(Part(recipe=Recipe(orthogonal={}, shape=[1 << 20, 1 << 20]))),
    "many orthogonals within": parts(*[Part(recipe=Recipe(orthogonal={}))] * 100, shape=[2000, 2000]),
    "huge broadcast of views": expression(
        Step(recipe=NORMAL), Step(view=View(shape=[1 << 29, 1 << 30], strides=[0, 0]), arguments=[0]),
        Step(view=View(shape=[1], strides=[0], offset=(1 << 58) + 1), arguments=[1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AMPLIFIED)
def test_recipes_that_amplify_take_seconds_at_most(name):
    """A request of kilobytes is answered by its first values, or refused, however much it seems to ask for."""
    request = InitTensorRequest(spec=AMPLIFIED[name]).SerializeToString()
    begin = time.thread_time()
    assert hostile.answer("InitTensor", request) in ("described", "refused", "served")
    assert time.thread_time() - begin < 30


@pytest.mark.parametrize("name", [name for name in AMPLIFIED if name.startswith(("huge", "halves", "too many", "win"))])
def test_recipes_that_amplify_take_mebibytes_at_most(name):
    request = InitTensorRequest(spec=AMPLIFIED[name]).SerializeToString()
    tracemalloc.start()
    try:
        hostile.answer("InitTensor", request)
        assert tracemalloc.get_traced_memory()[1] < 1 << 30
    finally:
        tracemalloc.stop()


def test_a_server_survives_what_comes_over_a_socket(server):
    pick = picker(1)
    with grpc.insecure_channel(server) as channel, seedbed.connect(server) as client:
        before = client.normal((9, 9), name="w")
        for method in hostile.METHODS:
            for _ in range(40):
                assert send(channel, method, hostile.damaged(hostile.sound_requests(method)[0], pick)) in UNDERSTOOD
            assert send(channel, method, bytes(pick(255) for _ in range(99))) in UNDERSTOOD
        assert (client.normal((9, 9), name="w") == before).all()


UNDERSTOOD = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.CANCELLED}


def send(channel, method, request):
    """Reads at most one message of the answer; gives the status."""
    call = channel.unary_stream(f"/seedbed.v1.InitService/{method}")(request, timeout=60)
    try:
        next(call, None)
    except grpc.RpcError as error:
        return error.code()
    call.cancel()
    return grpc.StatusCode.OK

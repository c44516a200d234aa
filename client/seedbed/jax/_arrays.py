"""Sharded arrays, of which each process requests each shard of its own devices once; initializers for Flax."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from google.protobuf.message import Message

from seedbed import dtypes
from seedbed._ask import requests, schemes
from seedbed._client.sync import Client
from seedbed._types import Array, Progress, RegionLike, Shape
from seedbed._wire import targets
from seedbed.common import fields
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorSlice, TensorSpec

__all__ = ["init_array", "init_tree", "initializer"]


def init_array(
    client: Client, spec: TensorSpec, sharding: jax.sharding.Sharding, progress: Progress | bool | None = None
) -> jax.Array:
    """Makes one array; this process requests and holds only the shards of its own devices.

    The values do not depend on the sharding. A shard that several devices need is requested once.

    Args:
        client: A client with any target but ``local:cuda``.
        spec: The tensor, such as `seedbed.spec` returns.
        sharding: How the array is laid out over devices, those of other processes included.
        progress: Called as ``progress(done_bytes, total_bytes)`` of this process's shards after each chunk; True
            draws a bar.

    Raises:
        InvalidRequest: If the tensor is not served, the sharding does not fit its shape, or it is float64 and JAX is
            not in its 64-bit mode.
        SeedbedError: If the server is unreachable, or fails.

    >>> import jax, seedbed.jax
    >>> device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    >>> with seedbed.connect("local:") as client:
    ...     seedbed.jax.init_array(client, seedbed.spec("eye", (2, 3), dtype="bfloat16"), device)
    Array([[1, 0, 0],
           [0, 1, 0]], dtype=bfloat16)
    """
    [array] = _init(client, [_Tensor(spec, sharding, "spec")], progress)
    return array


def init_tree(
    client: Client,
    specs: Any,  # noqa: ANN401
    shardings: Any,  # noqa: ANN401
    progress: Progress | bool | None = None,
) -> Any:  # noqa: ANN401
    """Makes a tree of arrays in one stream, each as by `init_array`.

    All tensors are validated before the first is sampled.

    Args:
        client: A client with any target but ``local:cuda``.
        specs: A tree whose leaves are TensorSpec messages, such as `record` returns. A tensor is named by its spec
            alone, not by its place in the tree; two specs with the same name must be equal. Leaves of other kinds stay
            as they are, but arrays among them, such as counters and keys, are placed by their sharding.
        shardings: A tree of the same structure whose leaves are shardings, or a prefix of it: a sharding in place of a
            subtree applies to all its tensors.
        progress: Called as ``progress(done_bytes, total_bytes)`` of all of this process's shards after each chunk;
            True draws a bar.

    Returns:
        The tree with an array in place of each spec.

    Raises:
        InvalidRequest: If a tensor is not served, a sharding does not fit it, or the trees do not match.
        SeedbedError: If the server is unreachable, or fails.

    The trees of a Flax model follow from its abstract parameters, for which nothing is computed:

    >>> import jax, seedbed.jax
    >>> def spec_of(path, leaf):
    ...     name = jax.tree_util.keystr(path, simple=True, separator=".")
    ...     scheme = "zeros" if name.endswith("bias") else "xavier_uniform"
    ...     return seedbed.spec(scheme, leaf.shape, dtype=leaf.dtype, name=name, seed=7)
    >>> abstract = {  # such as jax.eval_shape(model.init, jax.random.key(0), x)
    ...     "dense": {"kernel": jax.ShapeDtypeStruct((4, 3), "float32"), "bias": jax.ShapeDtypeStruct((3,), "float32")}
    ... }
    >>> specs = jax.tree_util.tree_map_with_path(spec_of, abstract)
    >>> device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    >>> with seedbed.connect("local:") as client:
    ...     params = seedbed.jax.init_tree(client, specs, device)
    >>> params["dense"]["bias"]
    Array([0., 0., 0.], dtype=float32)
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(specs)
    are_kept = any(isinstance(leaf, (TensorSpec, jax.Array, np.ndarray)) for _, leaf in leaves)
    tensors: list[_Tensor] = []
    others: dict[int, Any] = {}
    for index, ((path, leaf), sharding) in enumerate(zip(leaves, _broadcast(shardings, specs), strict=True)):
        field = f"specs{jax.tree_util.keystr(path)}"
        if are_kept and not isinstance(leaf, (Message, jax.ShapeDtypeStruct)):
            others[index] = _placed(leaf, sharding, field)
        else:
            tensors.append(_Tensor(leaf, sharding, field))
    made = iter(_init(client, tensors, progress))
    arrays = [others[index] if index in others else next(made) for index in range(len(leaves))]
    return jax.tree.unflatten(structure, arrays)


def initializer(
    client: Client, scheme: str, *, name: str, seed: SupportsIndex = 0, **parameters: object
) -> Callable[..., jax.Array]:
    """A function ``(key, shape, dtype) -> Array``, for wherever Flax takes one of `jax.nn.initializers`.

    **The key is ignored.** A JAX key is not a seed: the values follow from ``name`` and ``seed`` alone. So each
    parameter needs an initializer with a different name: two layers with the same name begin with equal weights,
    whatever their keys. In Flax's linen, ``"/".join(self.path)`` distinguishes modules. The layers of a stack share one
    name: under ``nn.scan`` they would begin equal, and under a ``vmap`` over keys they are refused. Make a stack by
    `init_tree`, from one spec of the stacked shape.

    Outside of transformations the array is made at once. While JAX traces, as in ``jax.jit(model.init)``, only the
    parameters are checked; a request is sent whenever the compiled function runs (by `jax.pure_callback`). The client
    must be open then, and JAX's errors quote its errors. ``jax.eval_shape`` sends no request.
    One device receives the whole array before ``jit`` distributes it, so prefer `init_tree` for large weights; the
    values are the same.

    Args:
        client: A client with any target but ``local:cuda``.
        scheme: One of `seedbed.SCHEMES`.
        name: The parameter's name.
        seed: Any integer in 0 .. 2^64 - 1.
        **parameters: Those of the scheme's method; ``dtype`` applies where the function is called without one.

    Raises:
        InvalidRequest: If the scheme is unknown, or a message cannot carry a parameter. The function raises it if its
            shape or dtype is not served.
        TypeError: If the scheme has no such parameter.

    >>> import jax, seedbed.jax
    >>> with seedbed.connect("local:") as client:
    ...     init = seedbed.jax.initializer(client, "xavier_uniform", name="dense.kernel", seed=7)
    ...     w = init(jax.random.key(0), (3, 4), "bfloat16")
    >>> w.shape, w.dtype
    ((3, 4), dtype(bfloat16))
    """
    _check_client(client)
    parameters |= {"name": name, "seed": seed}
    schemes.spec(scheme, (), **parameters)  # reports errors here, not within the model

    def init(key: jax.Array | None, shape: Shape, dtype: Any = None) -> jax.Array:  # noqa: ANN401
        spec = schemes.spec(scheme, shape, **(parameters if dtype is None else parameters | {"dtype": dtype}))
        _check_x64(spec, "spec")
        return _when_run(client, spec)(key) if _is_traced(key) else jnp.asarray(client.init(spec))

    return init


def _placed(leaf: object, sharding: Any, field: str) -> Any:  # noqa: ANN401
    """A leaf that is not a spec; arrays are placed by their sharding."""
    if not isinstance(leaf, (jax.Array, np.ndarray)):
        return leaf
    _indices(tuple(leaf.shape), sharding, field)
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _placed(np.asarray(jax.random.key_data(leaf)), sharding, field)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    values = np.asarray(leaf)
    # device_put would make the processes compare their values first.
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


class _Tensor:
    """A tensor, and the parts that this process needs, each once.

    Args:
        spec: The tensor.
        sharding: How it is laid out.
        field: The name of its spec in errors.
    """

    def __init__(self, spec: TensorSpec, sharding: jax.sharding.Sharding, field: str) -> None:
        with _called(field):
            self.spec = requests.tensor_slice(spec, None).spec
        self.field = field
        self._sharding = sharding
        _check_x64(self.spec, field)
        parts = map(self._part, _indices(tuple(spec.shape), sharding, field))
        self.parts = {_key(part): part for part in parts}

    def assemble(self, values: Iterator[Array]) -> jax.Array:
        """The array, from the values of its parts in order."""
        shards = dict(zip(self.parts, values, strict=False))
        return jax.make_array_from_callback(
            tuple(self.spec.shape),
            self._sharding,
            lambda index: shards[_key(self._part(index))],
            dtypes.numpy_dtype(self.spec.dtype),  # for a process without a shard
        )

    def _part(self, index: RegionLike | None) -> TensorSlice:
        return requests.tensor_slice(self.spec, index)


def _key(part: TensorSlice) -> tuple[int, ...]:
    return (*part.region.start, *part.region.stop)


def _indices(shape: tuple[int, ...], sharding: object, field: str) -> Iterable[tuple[slice, ...] | None]:
    """The index of the part that each device of this process needs."""
    if not isinstance(sharding, jax.sharding.Sharding):
        remedy = "give a jax.sharding.Sharding, such as NamedSharding(mesh, PartitionSpec(...))"
        raise InvalidRequest("sharding", f"of {field} is {sharding!r}; {remedy}")
    try:
        return sharding.addressable_devices_indices_map(shape).values()
    except IndexError:
        raise InvalidRequest("sharding", f"of {field} has more dimensions than its shape {shape}: {sharding}") from None
    except ValueError as error:
        raise InvalidRequest("sharding", f"of {field} does not fit its shape {shape}: {error}") from None


def _broadcast(shardings: object, specs: object) -> list[Any]:
    """The sharding of each spec."""
    try:
        tree = jax.tree.map(lambda sharding, subtree: jax.tree.map(lambda _: sharding, subtree), shardings, specs)
    except ValueError as error:
        raise InvalidRequest("shardings", f"have neither the structure of specs nor a prefix of it: {error}") from None
    return jax.tree.leaves(tree)


def _init(client: Client, tensors: Sequence[_Tensor], progress: Progress | bool | None) -> list[jax.Array]:
    _check_client(client)
    with contextlib.closing(_values(client, tensors, progress)) as values:
        arrays = [tensor.assemble(values) for tensor in tensors]
        next(values, None)  # lets the stream end; closing it earlier would cancel it
    return arrays


def _values(
    client: Client, tensors: Sequence[_Tensor], progress: Progress | bool | None
) -> Generator[Array, None, None]:
    """The values of all parts, in order."""
    parts = [part for tensor in tensors for part in tensor.parts.values()]
    if not parts:
        return
    try:
        for _, values in client.init_model(parts, progress=progress):
            yield values
    except InvalidRequest as error:
        raise _of_part(error, [tensor.field for tensor in tensors for _ in tensor.parts]) from None


def _of_part(error: InvalidRequest, paths: Sequence[str]) -> InvalidRequest:
    """The error with a spec's path in the caller's tree in place of a part's number."""
    place = fields.split(error.field)
    if place is None or not place[1].startswith(".spec"):
        return error
    index, rest = place
    return InvalidRequest(paths[index] + rest.removeprefix(".spec"), error.description)


@contextlib.contextmanager
def _called(field: str) -> Iterator[None]:
    """Names a spec in errors as the caller does."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(field + error.field.removeprefix("spec"), error.description) from None


def _check_client(client: Client) -> None:
    if targets.is_cuda(client.target):
        raise InvalidRequest("client", f'arrays of "{client.target}" are CuPy\'s; use seedbed.connect("local:")')


def _check_x64(spec: TensorSpec, field: str) -> None:
    """Refuses dtypes that JAX would silently convert to float32."""
    dtype = dtypes.numpy_dtype(spec.dtype)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        remedy = 'set jax.config.update("jax_enable_x64", True), or request float32'
        raise InvalidRequest(f"{field}.dtype", f"{dtype} needs JAX's 64-bit mode; {remedy}")


def _is_traced(key: object) -> bool:
    """Whether JAX is tracing; under vmap only the key shows it, and under jit the key may be a constant."""
    return isinstance(key, jax.core.Tracer) or isinstance(jnp.zeros(()), jax.core.Tracer)


def _when_run(client: Client, spec: TensorSpec) -> Callable[[jax.Array | None], jax.Array]:
    """Requests the tensor when the traced computation runs.

    As a constant, `jax.eval_shape` would request it, too, and it would become part of the compiled program.
    """
    result = jax.ShapeDtypeStruct(tuple(spec.shape), dtypes.numpy_dtype(spec.dtype))  # type: ignore[no-untyped-call]

    @jax.custom_batching.custom_vmap
    def request(_: jax.Array | None) -> Any:  # noqa: ANN401
        return jax.pure_callback(lambda: client.init(spec), result)

    @request.def_vmap
    def refuse(axis_size: int, *_: object) -> Any:  # noqa: ANN401
        remedy = "make them by init_tree, from one spec of the stacked shape"
        raise InvalidRequest("name", f"{spec.name!r} cannot name {axis_size} parameters, under vmap; {remedy}")

    return request

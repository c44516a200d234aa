"""The schemes' methods, written by ``make schemes`` from `seedbed._ask.table`: edit that instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, SupportsIndex, TypeVar, Unpack

from seedbed._types import (
    BoundsName,
    DistributionName,
    FanModeName,
    NonlinearityName,
    Options,
    Shape,
    TorchFanModeName,
)

R = TypeVar("R")


class SchemeMethods(Generic[R]):
    """One method for each scheme."""

    def _make(self, scheme: str, shape: Shape, parameters: Mapping[str, object], options: Options) -> R:
        raise NotImplementedError

    def constant(self, shape: Shape, val: float, **options: Unpack[Options]) -> R:
        """Every element ``val``.

        Args:
            shape: The global shape.
            val: The value; finite and within the range of the dtype.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.constant((2, 2), 0.5)
        array([[0.5, 0.5],
               [0.5, 0.5]], dtype=float32)
        """
        return self._make("constant", shape, {"val": val}, options)

    def ones(self, shape: Shape, **options: Unpack[Options]) -> R:
        """Every element 1.

        Args:
            shape: The global shape.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.ones((3,))
        array([1., 1., 1.], dtype=float32)
        """
        return self._make("ones", shape, {}, options)

    def zeros(self, shape: Shape, **options: Unpack[Options]) -> R:
        """Every element 0.

        Args:
            shape: The global shape.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.zeros((3,), dtype="float64")
        array([0., 0., 0.])
        """
        return self._make("zeros", shape, {}, options)

    def eye(self, shape: Shape, **options: Unpack[Options]) -> R:
        """The identity matrix: 1 where row and column are equal, else 0.

        Args:
            shape: The global shape; 2 dimensions, which need not be equal.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.eye((2, 3))
        array([[1., 0., 0.],
               [0., 1., 0.]], dtype=float32)
        """
        return self._make("eye", shape, {}, options)

    def dirac(self, shape: Shape, groups: SupportsIndex = 1, **options: Unpack[Options]) -> R:
        """The Dirac delta of convolutions: passes as many channels as possible through unchanged.

        For each group g, ``w[g * out / groups + d, d, k // 2, ...] = 1``; all else is 0.

        Args:
            shape: The global shape, ``(out_channels, in_channels / groups, kernel...)``; 3 to 5 dimensions.
            groups: Groups of the convolution; at least 1 and a divisor of ``shape[0]``.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     client.dirac((2, 2, 3))
        array([[[0., 1., 0.],
                [0., 0., 0.]],
        <BLANKLINE>
               [[0., 0., 0.],
                [0., 1., 0.]]], dtype=float32)
        """
        return self._make("dirac", shape, {"groups": groups}, options)

    def uniform(self, shape: Shape, a: float = 0.0, b: float = 1.0, **options: Unpack[Options]) -> R:
        """The uniform distribution on [a, b): ``a <= x < b`` holds for every value, in every dtype.

        Args:
            shape: The global shape.
            a: Lower bound, included.
            b: Upper bound, excluded unless it equals ``a``.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.uniform((100, 100), -0.5, 0.5, seed=7, dtype="bfloat16")
        >>> bool(w.min() >= -0.5), bool(w.max() < 0.5)
        (True, True)
        """
        return self._make("uniform", shape, {"a": a, "b": b}, options)

    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0, **options: Unpack[Options]) -> R:
        """The normal distribution N(mean, std^2).

        Args:
            shape: The global shape.
            mean: Mean.
            std: Standard deviation; at least 0.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.normal((1000, 100), std=0.02, name="wte.weight")
        >>> round(float(w.std()), 3)
        0.02
        """
        return self._make("normal", shape, {"mean": mean, "std": std}, options)

    def trunc_normal(
        self,
        shape: Shape,
        mean: float = 0.0,
        std: float = 1.0,
        a: float = -2.0,
        b: float = 2.0,
        *,
        bounds: BoundsName = "absolute",
        **options: Unpack[Options],
    ) -> R:
        """The normal distribution N(mean, std^2), conditioned on [a, b].

        Args:
            shape: The global shape.
            mean: Mean before the cut.
            std: Standard deviation before the cut; at least 0.
            a: Lower bound, included.
            b: Upper bound, included.
            bounds: The unit of ``a`` and ``b``: "absolute" as in torch, or "sigma" (standard deviations from the mean)
                as in JAX and Keras.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.trunc_normal((100, 100), std=0.02, bounds="sigma")
        >>> bool(abs(w).max() <= 0.04)
        True
        """
        return self._make("trunc_normal", shape, {"mean": mean, "std": std, "a": a, "b": b, "bounds": bounds}, options)

    def xavier_uniform(self, shape: Shape, gain: float = 1.0, **options: Unpack[Options]) -> R:
        """Uniform within +-gain * sqrt(6 / (fan_in + fan_out)).

        From Glorot and Bengio, “Understanding the difficulty of training deep feedforward neural networks” (2010).

        Args:
            shape: The global shape; at least 2 dimensions.
            gain: Factor on the standard deviation; at least 0. See `Client.calculate_gain`.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.xavier_uniform((300, 300), gain=0.5)
        >>> bool(abs(w).max() <= 0.05)
        True
        """
        return self._make("xavier_uniform", shape, {"gain": gain}, options)

    def xavier_normal(self, shape: Shape, gain: float = 1.0, **options: Unpack[Options]) -> R:
        """Normal with mean 0 and std gain * sqrt(2 / (fan_in + fan_out)).

        From Glorot and Bengio, “Understanding the difficulty of training deep feedforward neural networks” (2010).

        Args:
            shape: The global shape; at least 2 dimensions.
            gain: Factor on the standard deviation; at least 0. See `Client.calculate_gain`.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.xavier_normal((400, 400))
        >>> round(float(w.std()), 3)
        0.05
        """
        return self._make("xavier_normal", shape, {"gain": gain}, options)

    def kaiming_uniform(
        self,
        shape: Shape,
        a: float = 0.0,
        mode: TorchFanModeName = "fan_in",
        nonlinearity: NonlinearityName = "leaky_relu",
        *,
        gain: float | None = None,
        **options: Unpack[Options],
    ) -> R:
        """Uniform within +-gain * sqrt(3 / fan).

        From He et al., “Delving deep into rectifiers” (2015).

        Args:
            shape: The global shape; at least 2 dimensions.
            a: Negative slope of leaky_relu; ignored for other nonlinearities.
            mode: "fan_in" (preserves variance in the forward pass) or "fan_out" (in the backward pass).
            nonlinearity: The nonlinearity after the layer, which determines the gain. One of linear, identity, conv1d,
                conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d, sigmoid, tanh, relu, leaky_relu,
                selu. See `Client.calculate_gain`.
            gain: Replaces the nonlinearity's gain, if given; at least 0.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.kaiming_uniform((64, 600), nonlinearity="relu")
        >>> bool(abs(w).max() <= 0.1)
        True
        """
        return self._make(
            "kaiming_uniform", shape, {"a": a, "mode": mode, "nonlinearity": nonlinearity, "gain": gain}, options
        )

    def kaiming_normal(
        self,
        shape: Shape,
        a: float = 0.0,
        mode: TorchFanModeName = "fan_in",
        nonlinearity: NonlinearityName = "leaky_relu",
        *,
        gain: float | None = None,
        **options: Unpack[Options],
    ) -> R:
        """Normal with mean 0 and std gain / sqrt(fan).

        From He et al., “Delving deep into rectifiers” (2015).

        Args:
            shape: The global shape; at least 2 dimensions.
            a: Negative slope of leaky_relu; ignored for other nonlinearities.
            mode: "fan_in" (preserves variance in the forward pass) or "fan_out" (in the backward pass).
            nonlinearity: The nonlinearity after the layer, which determines the gain. One of linear, identity, conv1d,
                conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d, sigmoid, tanh, relu, leaky_relu,
                selu. See `Client.calculate_gain`.
            gain: Replaces the nonlinearity's gain, if given; at least 0.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        A shard has the same values as that region of the tensor:

        >>> import numpy as np, seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.kaiming_normal((64, 32), mode="fan_out", nonlinearity="relu", seed=7)
        ...     shard = client.kaiming_normal((64, 32), mode="fan_out", nonlinearity="relu", seed=7,
        ...                                   region=np.s_[16:32, :])
        >>> bool((shard == w[16:32]).all())
        True
        """
        return self._make(
            "kaiming_normal", shape, {"a": a, "mode": mode, "nonlinearity": nonlinearity, "gain": gain}, options
        )

    def disk(self, shape: Shape, radius: float = 1.0, std: float | None = None, **options: Unpack[Options]) -> R:
        """Complex numbers with modulus at most ``radius`` and uniform angle; the dtype must be "complex64".

        Uniform on the disk, or normal and cut at its edge. JAX's ``variance_scaling`` draws these for complex dtypes.

        Args:
            shape: The global shape.
            radius: Largest modulus; at least 0.
            std: If given, the distribution is normal with this standard deviation before the cut; at most 16 times the
                radius.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.disk((100, 100), 0.5, dtype="complex64")
        >>> bool(abs(w).max() <= 0.500001)
        True
        """
        return self._make("disk", shape, {"radius": radius, "std": std}, options)

    def orthogonal(self, shape: Shape, gain: float = 1.0, axis: SupportsIndex = 0, **options: Unpack[Options]) -> R:
        """A random (semi-)orthogonal matrix, uniform by the Haar measure, times gain.

        One axis indexes the rows of the matrix; all other axes together index its columns.

        From Saxe et al., “Exact solutions to the nonlinear dynamics of learning in deep linear neural networks” (2013).

        Args:
            shape: The global shape; at least 2 dimensions, and at most ``server_info().limits.max_orthogonal_elements``
                elements.
            gain: Factor; at least 0.
            axis: The axis of the rows: 0 as in torch; -1 for what JAX and Keras call columns.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import numpy as np, seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.orthogonal((3, 5), dtype="float64")
        >>> np.allclose(w @ w.T, np.eye(3))
        True
        """
        return self._make("orthogonal", shape, {"gain": gain, "axis": axis}, options)

    def delta_orthogonal(
        self,
        shape: Shape,
        gain: float = 1.0,
        out_axis: SupportsIndex = 0,
        in_axis: SupportsIndex = 1,
        **options: Unpack[Options],
    ) -> R:
        """A convolution kernel that is 0 except at its centre, which is an orthogonal matrix times gain.

        From Xiao et al., “Dynamical isometry and a mean field theory of CNNs” (2018).

        Args:
            shape: The global shape, ``(out_channels, in_channels, kernel...)`` unless the axes say otherwise; 3 to 5
                dimensions, at least as many outputs as inputs.
            gain: Factor; at least 0.
            out_axis: The axis of the outputs: 0 as in torch, -1 as in JAX.
            in_axis: The axis of the inputs: 1 as in torch, -2 as in JAX.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import numpy as np, seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.delta_orthogonal((5, 3, 3), dtype="float64")
        >>> np.allclose(w[:, :, 1].T @ w[:, :, 1], np.eye(3)), bool(w[:, :, ::2].any())
        (True, False)
        """
        return self._make("delta_orthogonal", shape, {"gain": gain, "out_axis": out_axis, "in_axis": in_axis}, options)

    def sparse(self, shape: Shape, sparsity: float, std: float = 0.01, **options: Unpack[Options]) -> R:
        """Normal with mean 0, with ceil(sparsity * rows) elements of each column set to 0.

        From Martens, “Deep learning via Hessian-free optimization” (2010).

        Args:
            shape: The global shape; 2 dimensions.
            sparsity: The fraction of each column that is 0; in [0, 1].
            std: Standard deviation of the other elements; at least 0.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     w = client.sparse((10, 4), sparsity=0.3)
        >>> (w == 0).sum(axis=0).tolist()
        [3, 3, 3, 3]
        """
        return self._make("sparse", shape, {"sparsity": sparsity, "std": std}, options)

    def variance_scaling(
        self,
        shape: Shape,
        scale: float,
        mode: FanModeName,
        distribution: DistributionName,
        in_axis: SupportsIndex | Iterable[SupportsIndex] = -2,
        out_axis: SupportsIndex | Iterable[SupportsIndex] = -1,
        batch_axis: SupportsIndex | Iterable[SupportsIndex] = (),
        *,
        gain: float = 1.0,
        **options: Unpack[Options],
    ) -> R:
        """Variance gain^2 * scale / n, where n is a fan: ``jax.nn.initializers.variance_scaling``.

        JAX's and Keras's other initialisers are special cases, by ``(scale, mode)``: lecun is ``(1, "fan_in")``, he is
        ``(2, "fan_in")``, glorot is ``(1, "fan_avg")``. The distribution of their ``*_normal`` is "truncated_normal",
        that of ``*_uniform`` is "uniform".

        Args:
            shape: The global shape, in JAX's order ``(..., in, out)`` unless the axes say otherwise.
            scale: Factor on the variance; at least 0.
            mode: The fan n: "fan_in", "fan_out", "fan_avg" (their mean) or "fan_geo_avg" (their geometric mean).
            distribution: "uniform", "normal", or "truncated_normal" (cut at two standard deviations, widened so that
                the variance is right after the cut).
            in_axis: Input axis or axes.
            out_axis: Output axis or axes.
            batch_axis: Axes that count towards neither the fans nor the receptive field.
            gain: Factor on the standard deviation, for depth or width scaling; at least 0.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     lecun_normal = client.variance_scaling((400, 300), 1.0, "fan_in", "truncated_normal")
        >>> round(float(lecun_normal.std()), 3)
        0.05
        """
        return self._make(
            "variance_scaling",
            shape,
            {
                "scale": scale,
                "mode": mode,
                "distribution": distribution,
                "in_axis": in_axis,
                "out_axis": out_axis,
                "batch_axis": batch_axis,
                "gain": gain,
            },
            options,
        )

    def permutation(self, shape: Shape, **options: Unpack[Options]) -> R:
        """The numbers 0 .. n - 1 in random order, where n is the number of elements.

        Args:
            shape: The global shape.
            seed: Any integer in 0 .. 2^64 - 1.
            name: The tensor's name; tensors of different names are independent.
            dtype: float32, float16, bfloat16, float64 or complex64; see `dtypes.data_type` for its names.
            algorithm_version: The version of the stream; 0 means the server's newest.
            stream: The name to hash instead of the tensor's own, so that a copy has the same values as its original.
            region: The region to return, as ``np.s_[...]`` slices; default all of the tensor.
            out: An array of the region's shape and of this dtype to fill; default a new one.
            progress: Called as ``progress(done_bytes, total_bytes)`` after each chunk; True draws a bar.
            timeout: Seconds for the whole call; None waits for ever; default the client's.

        >>> import seedbed
        >>> with seedbed.connect("local:") as client:
        ...     order = client.permutation((2, 4), seed=7)
        >>> sorted(order.ravel().tolist())
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        """
        return self._make("permutation", shape, {}, options)

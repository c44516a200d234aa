"""The laws in plain Python, one element after the other, written from docs/stream-v1.md alone.

It shares no code with the engine, and follows the page: functions have the page's names, and tables are the page's.
Each operation is computed exactly, or in float64, and rounded once to the type. With float32 operands, that is the same
as rounding directly: their products are exact in float64, and two roundings of `+` or `√` equal one.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import mpmath

from seedbed.v1 import BoundsUnit, DataType, Distribution, FanMode, Kaiming, Nonlinearity, TensorSpec, VarianceScaling

Draw = Callable[[int], float]
"""Maps an index to its element."""

_DIGITS = 800
_NEVER = Fraction(1, 1 << 1100)
"""Less than the distance of any two float64."""


# Notation.


class Float(NamedTuple):
    """A type: its precision in bits, its smallest and its largest exponent, and its code in `struct`."""

    precision: int
    smallest: int
    largest: int
    code: str

    def quantum(self, exact: Fraction) -> Fraction:
        """The spacing of values around a number."""
        above, below = abs(exact.numerator), exact.denominator
        exponent = above.bit_length() - below.bit_length()
        if above * (1 << max(-exponent, 0)) < below * (1 << max(exponent, 0)):
            exponent -= 1
        exponent = max(exponent, self.smallest) if exact else self.smallest
        return Fraction(2) ** (exponent - self.precision + 1)

    def rn(self, number: float | Fraction) -> float:
        """The nearest value of the type, ties to even."""
        if isinstance(number, float) and (number == 0 or not math.isfinite(number)):
            return number
        exact = Fraction(number)
        quantum = self.quantum(exact)
        found = round(exact / quantum) * quantum  # `round` rounds ties to even
        if abs(found) >= Fraction(2) ** (self.largest + 1):
            return math.inf if exact > 0 else -math.inf
        return float(found) if exact > 0 else -float(-found)

    def fma(self, a: float, b: float, c: float) -> float:
        """`a · b + c`, rounded once."""
        (a1, a2), (b1, b2), (c1, c2) = a.as_integer_ratio(), b.as_integer_ratio(), c.as_integer_ratio()
        above, below = a1 * b1 * c2 + c1 * a2 * b2, a2 * b2 * c2
        if above == 0:
            return a * b + c if a == 0 or b == 0 else 0.0  # zeros have signs
        if self is F64:
            return above / below  # of integers, which Python rounds once
        return self.rn(Fraction(above, below))

    def polynomial(self, coefficients: Sequence[float], x: float) -> float:
        y = self.rn(coefficients[0])
        for coefficient in coefficients[1:]:
            y = self.fma(y, x, self.rn(coefficient))
        return y


F32 = Float(24, -126, 127, "<f")
F64 = Float(53, -1022, 1023, "<d")
F16 = Float(11, -14, 15, "<e")
BF16 = Float(8, -126, 127, "")
TYPES = {
    DataType.DATA_TYPE_UNSPECIFIED: F32,
    DataType.DATA_TYPE_FLOAT32: F32,
    DataType.DATA_TYPE_FLOAT16: F16,
    DataType.DATA_TYPE_BFLOAT16: BF16,
    DataType.DATA_TYPE_FLOAT64: F64,
    DataType.DATA_TYPE_COMPLEX64: F32,
}
RN32, RN64 = F32.rn, F64.rn


def made(spec: TensorSpec) -> Float:
    """The type in which a tensor is computed, before it is rounded to its own."""
    return F64 if spec.dtype == DataType.DATA_TYPE_FLOAT64 else F32


def signed(w: int, size: int) -> int:
    return w - (1 << size) if w >> (size - 1) else w


def inverted(w: int) -> int:
    """`~w` in 32 bits."""
    return w ^ 0xFFFFFFFF


# Words, streams and elements.


@functools.lru_cache(maxsize=1024)
def philox(seed: int, stream: int, block: int) -> tuple[int, int, int, int]:
    """The four words of a block of Philox4x32-10."""
    k1, k0 = divmod(seed, 1 << 32)
    (c1, c0), (c3, c2) = divmod(block, 1 << 32), divmod(stream, 1 << 32)
    for _ in range(10):
        (high0, low0), (high1, low1) = divmod(0xD2511F53 * c0, 1 << 32), divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % (1 << 32), (k1 + 0xBB67AE85) % (1 << 32)
    return c0, c1, c2, c3


class Source(NamedTuple):
    """The words of one stream."""

    seed: int
    stream: int

    def word(self, element: int) -> int:
        return philox(self.seed, self.stream, element // 4)[element % 4]

    def pair(self, element: int) -> tuple[int, int]:
        """The words that this element and its neighbour share."""
        return self.word(element - element % 2), self.word(element - element % 2 + 1)

    def wide(self, element: int) -> int:
        """The 64-bit word."""
        return self.word(2 * element) + (self.word(2 * element + 1) << 32)

    def wide_pair(self, element: int) -> tuple[int, int]:
        return self.wide(element - element % 2), self.wide(element - element % 2 + 1)


def source(seed: int, name: str, purpose: bytes = b"") -> Source:
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=purpose).digest()
    return Source(seed, int.from_bytes(digest, "little"))


# Functions.

L = {
    F32: [
        *[0.0034051598, -0.009673636, 0.015397904, -0.009254201, 0.010627132, 0.010992159, 0.03148358, 0.08331581],
        *[0.25000045],
    ],
    F64: [
        *[1.8637781990062007e-05, -0.00014774059987681415, 0.0005558329959428116, -0.0012945615236272647],
        *[0.0020831959251222027, -0.0024375509765318087, 0.002151028515066266, -0.0014353718463632334],
        *[0.0007672925426327746, -0.00025872920218515964, 0.00018080046460160353, 0.0001738095686739658],
        *[0.00043778291063295446, 0.0009760848496013021, 0.0022321854832041406, 0.0052083308082451355],
        *[0.012500000091151155, 0.031249999998264083, 0.08333333333334643, 0.24999999999999997],
    ],
}
S = {
    F32: [-3.5957124e-05, 0.0024900113, -0.080745436, -2.439898e-08],
    F64: [
        *[6.877360573166326e-12, -1.7571500746983935e-09, 3.133616225433416e-07, -3.657620415891387e-05],
        *[0.002490394570188844, -0.08074551218828054, 2.8144383096987086e-17],
    ],
}
C = {
    F32: [3.494037e-06, -0.00032586866, 0.015854284, -0.30842513],
    F64: [
        *[-3.863156948832656e-13, 1.1500679700940496e-10, -2.4611366238309744e-08, 3.590860447448612e-06],
        *[-0.0003259918869271996, 0.015854344243815488, -0.30842513753404244],
    ],
}
MIDDLE = [0.39163038, -0.2998023, 0.24237792, 0.05047956, 0.1277339, 0.18006028, 0.32812464, -2.985963e-08]
NEAR = [
    *[46723.082, -22146.39, 4975.354, -1155.8873, 357.5412, -113.9399, 36.104343, -13.203007, 4.547421, -4.065572],
    1.5341206,
]
FAR = [
    *[-4.758446e-09, 1.1148036e-07, -1.1531592e-06, 7.0722413e-06, -2.9878036e-05, 0.00010024683, -0.00031218448],
    *[0.0010008857, -0.0033516474, 0.011625443, -0.042136066, 1.1642519, 1.9265809],
]


def parts(x: float) -> tuple[int, float]:
    """`k` and `h` of a positive number."""
    half, exponent = math.frexp(x)
    return -exponent, 2 * (1 - half)


def minustwolog(f: Float, k: int, h: float) -> float:
    log = f.fma(h, f.rn(f.polynomial(L[f], h) * h), h)
    return f.fma(float(k), f.rn(1.3862943611198906), log)


def radius(f: Float, w: int) -> float:
    size = 32 if f is F32 else 64
    c = f.rn(Fraction(signed(w | 1, size)))
    k, h = (0, c * -(2.0 ** (1 - size))) if c < 0 else parts(c * 2.0**-size)
    return f.rn(math.sqrt(minustwolog(f, k, h)))


def cossin(f: Float, w: int) -> tuple[float, float]:
    size, low = (32, 8) if f is F32 else (64, 11)
    x = f.rn(Fraction(signed(w >> low << low | 1 << (low - 1), size))) * 2.0 ** (1 - size)
    z = f.rn(x * x)
    s = f.fma(x, f.rn(0.7853981633974483), f.rn(f.polynomial(S[f], z) * x))
    c = f.fma(f.polynomial(C[f], z), z, 1.0)
    c = -c if w & 1 else c
    return (s, c) if w & 2 else (c, s)


def middle(x: float) -> float:
    y = F32.fma(x, RN32(1.2533141), RN32(F32.polynomial(MIDDLE, RN32(x * x)) * x))
    return min(y, RN32(1.0027117))


def near(t: float) -> float:
    return F32.polynomial(NEAR, RN32(RN32(math.sqrt(t)) - 0.25))


def far(t: float) -> float:
    return F32.polynomial(FAR, RN32(RN32(math.sqrt(minustwolog(F32, *parts(t)))) - 2.6875))


A241 = {
    "A": [
        *[2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4],
        *[1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0],
    ],
    "B": [
        *[5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4],
        *[5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1],
    ],
    "C": [
        *[7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0],
        *[3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0],
    ],
    "D": [
        *[1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1],
        *[6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1],
    ],
    "E": [
        *[2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2],
        *[2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0],
    ],
    "F": [
        *[2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4],
        *[1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1],
    ],
}


def quantile(below: float, above: float) -> float:
    """The quantile of the standard normal, from the nearer tail: Wichura's AS 241."""
    q = 0.5 * (below - above)
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * F64.polynomial(A241["A"], r) / F64.polynomial(A241["B"], r)
    t = math.sqrt(0.5 * minustwolog(F64, *parts(min(below, above))))
    if t <= 5:
        y = F64.polynomial(A241["C"], t - 1.6) / F64.polynomial(A241["D"], t - 1.6)
    else:
        y = F64.polynomial(A241["E"], t - 5) / F64.polynomial(A241["F"], t - 5)
    return -y if below < above else y


# Laws. float32 laws make a float32 tensor, which is rounded to the type afterwards.


def uniform(f: Float, words: Source, a: float, b: float) -> Draw:
    if f is F64:
        return lambda i: a + (b - a) * ((words.wide(i) >> 11) * 2.0**-53)
    return lambda i: RN32(RN32(a) + RN32(RN32(b - a) * ((words.word(i) >> 8) * 2.0**-24)))


def normal(f: Float, words: Source, mean: float, std: float) -> Draw:
    def draw(i: int) -> float:
        w, other = words.wide_pair(i) if f is F64 else words.pair(i)
        return box_muller(f, w, other, f.rn(mean), f.rn(std))[i % 2]

    return draw


def box_muller(f: Float, w: int, other: int, m: float, s: float) -> tuple[float, float]:
    r = f.rn(s * radius(f, w))
    c, d = cossin(f, other)
    return f.fma(r, c, m), f.fma(r, d, m)


class Probabilities(NamedTuple):
    p: float
    d: float
    q: float


@functools.lru_cache(maxsize=1024)
def probabilities(alpha: float, beta: float) -> Probabilities:
    """The probabilities of a standard normal below α, between α and β, and above β, each rounded to float64."""
    with mpmath.workdps(_DIGITS):
        root = mpmath.sqrt(2)

        def above(x: float) -> mpmath.mpf:
            x = min(max(x, -1000.0), 1000.0)  # beyond that, the result rounds to 0
            return mpmath.erfc(mpmath.mpf(x) / root) / 2

        if alpha >= 0:
            between = above(alpha) - above(beta)
        elif beta <= 0:
            between = above(-beta) - above(-alpha)
        else:
            between = 1 - above(-alpha) - above(beta)
        return Probabilities(*map(_nearest, (above(-alpha), between, above(beta))))


def _nearest(exact: mpmath.mpf) -> float:
    if exact < mpmath.mpf(2) ** -1080:
        return 0.0
    return RN64(Fraction(int(exact.man)) * Fraction(2) ** int(exact.exp))


def trunc_normal(f: Float, words: Source, mean: float, std: float, a: float, b: float) -> Draw:
    chances = probabilities((a - mean) / std, (b - mean) / std)
    p, d, _ = chances
    e = (0.5 - p) / d * 2.0**32
    m = round(e)
    is_single = f is not F64 and 0 < m < 1 << 32 and d >= 2.0**-20 and 2.0**-100 <= std <= 2.0**100
    if is_single and (mean == 0 or 2.0**-100 <= abs(mean) <= 2.0**100):
        return _single(words, mean, std, chances)
    return _double(f, words, mean, std, chances)


def _single(words: Source, mean: float, std: float, chances: Probabilities) -> Draw:
    p, d, q = chances
    e = (0.5 - p) / d * 2.0**32
    median = round(e)
    g, h = d * 2.0**-32, median - e
    m, s1 = RN32(mean), RN32(std)
    s2 = RN32(std - s1)
    g1 = RN32(g)
    g2 = RN32(g - g1)
    p1, q1 = RN32(p + g / 2), RN32(q + g / 2)
    x1, x2 = RN32(g * (1 - 2 * h)), RN32(g * (1 + 2 * h))
    tail = near if p >= 0.02 and q >= 0.02 else far

    def draw(i: int) -> float:
        w = words.word(i)
        is_below = w < median
        n = RN32(Fraction(w if is_below else inverted(w)))
        k = RN32(Fraction(median - 1 - w if is_below else w - median))
        t = F32.fma(n, g1, p1 if is_below else q1)
        x = F32.fma(k, 2 * g1, F32.fma(k, 2 * g2, x1 if is_below else x2))
        z = middle(x) if t > RN32(0.158) else tail(t)
        z = -z if is_below else z
        return F32.fma(s1, z, F32.fma(s2, z, m))

    return draw


def _double(f: Float, words: Source, mean: float, std: float, chances: Probabilities) -> Draw:
    p, d, q = chances

    def draw(i: int) -> float:
        if f is F64:
            number = words.wide(i) >> 11
            u, v = RN64(Fraction(2 * number + 1)), RN64(Fraction(2 * ((1 << 53) - 1 - number) + 1))
            u, v = u * 2.0**-54, v * 2.0**-54
        else:
            w = words.word(i)
            u, v = (w + 0.5) * 2.0**-32, (inverted(w) + 0.5) * 2.0**-32
        x = mean + std * quantile(p + u * d, q + v * d)
        return x if f is F64 else RN32(x)

    return draw


def lowest(f: Float, bound: Fraction) -> Fraction:
    """The smallest finite value of the type that is at least the bound."""
    quantum = f.quantum(bound)
    largest = (2 - Fraction(2) ** (1 - f.precision)) * Fraction(2) ** f.largest
    return max(math.ceil(bound / quantum) * quantum, -largest)


def bounded(f: Float, draw: Draw, a: float, b: float, *, is_open: bool) -> Draw:
    """Clips values to the type's outermost values within the bounds."""
    low = lowest(f, Fraction(a))
    high = -lowest(f, -Fraction(b) + (_NEVER if is_open else 0))
    return lambda i: brought(draw(i), float(low), float(high))


def brought(x: float, low: float, high: float) -> float:
    return low if x < low else high if x > high else x


def disk(words: Source, greatest: float, std: float | None) -> Draw:
    """Real parts are the even elements, imaginary parts the odd ones."""

    def flat(i: int) -> float:
        w, other = words.pair(i)
        root = RN32(math.sqrt(RN32(Fraction(w | 1)) * 2.0**-32))
        r = RN32(RN32(greatest) * root)
        return RN32(r * cossin(F32, other)[i % 2])

    if std is None:
        return flat
    t = greatest / std
    with mpmath.workdps(_DIGITS):
        first = int(mpmath.ceil((1 << 32) * mpmath.exp(-mpmath.mpf(t * t))))
    first -= first % 2
    s = RN32(std * math.sqrt(0.5))

    def bent(i: int) -> float:
        w, other = words.pair(i)
        w = first + (((1 << 32) - first) * w >> 32)
        return box_muller(F32, w, other, 0.0, s)[i % 2]

    return bent


# Sparse and permutations.


def place(words: Source, i: int, rows: int, column: int = 0) -> int:
    """π: the place of a row in this column, by a Feistel network that walks its cycles."""
    keys = [word for block in range(4 * column, 4 * column + 4) for word in philox(words.seed, words.stream, block)]
    bits = (rows - 1).bit_length()
    bits = 4 if bits == 3 else bits
    low_bits = (bits + 1) // 2
    i = _feistel(i, keys, low_bits, bits - low_bits)
    while i >= rows:
        i = _feistel(i, keys, low_bits, bits - low_bits)
    return i


def _feistel(number: int, keys: Sequence[int], low_bits: int, high_bits: int) -> int:
    high, low = divmod(number, 1 << low_bits)
    for even, odd in zip(keys[::2], keys[1::2], strict=True):
        low ^= _mix(high ^ even) % (1 << low_bits)
        high ^= _mix(low ^ odd) % (1 << high_bits)
    return high << low_bits | low


def _mix(x: int) -> int:
    x = (x ^ x >> 16) * 0x85EBCA6B % (1 << 32)
    x = (x ^ x >> 13) * 0xC2B2AE35 % (1 << 32)
    return x ^ x >> 16


def sparse(draw: Draw, mask: Source, shape: Sequence[int], sparsity: float) -> Draw:
    rows, columns = shape
    zeros = math.ceil(sparsity * float(rows))
    return lambda i: 0.0 if place(mask, i // columns, rows, i % columns) < zeros else draw(i)


# Orthogonal.

Matrix = list[list[float]]


def plus_times(c: Matrix, a: Matrix, b: Matrix) -> Matrix:
    """C plus A times B."""

    def element(s: float, row: list[float], column: Sequence[float]) -> float:
        for x, y in zip(row, column, strict=True):
            if x != 0 and y != 0:
                s = F64.fma(x, y, s)
        return s

    columns = list(zip(*b, strict=True))
    return [
        [element(s, row, column) for s, column in zip(sums, columns, strict=True)]
        for sums, row in zip(c, a, strict=True)
    ]


def times(a: Matrix, b: Matrix) -> Matrix:
    return plus_times([[0.0] * len(b[0]) for _ in a], a, b)


def transpose(a: Matrix) -> Matrix:
    return [list(row) for row in zip(*a, strict=True)]


@functools.lru_cache(maxsize=4)
def orthogonal(words: Source, rows: int, columns: int) -> Matrix:
    """The matrix, before its gain."""
    draw = normal(F64, words, 0.0, 1.0)
    gaussian = [[draw(i * columns + j) for j in range(columns)] for i in range(rows)]
    a = gaussian if rows >= columns else transpose(gaussian)
    m, n = len(a), len(a[0])
    reflections = [_reflection([row[k] for row in a[k:]]) for k in range(n)]
    v = transpose([[0.0] * k + reflections[k].v for k in range(n)])
    q = [[float(i == j) for j in range(n)] for i in range(m)]
    for k0 in reversed(range(0, n, 64)):
        block = reflections[k0 : k0 + 64]
        _apply([row[k0 : k0 + 64] for row in v[k0:]], [reflection.tau for reflection in block], q, k0)
    q = [[-x if r.beta < 0 else x for x, r in zip(row, reflections, strict=True)] for row in q]
    return q if rows >= columns else transpose(q)


class Reflection(NamedTuple):
    tau: float
    beta: float
    v: list[float]


def _reflection(x: list[float]) -> Reflection:
    sigma = 0.0
    for other in x[1:]:
        sigma = F64.fma(other, other, sigma)
    if sigma == 0:
        return Reflection(0.0, x[0], [1.0] + [0.0] * (len(x) - 1))
    h = math.sqrt(F64.fma(x[0], x[0], sigma))
    beta = math.copysign(h, -x[0])
    return Reflection((beta - x[0]) / beta, beta, [1.0, *(other / (x[0] - beta) for other in x[1:])])


def _apply(v: Matrix, tau: list[float], q: Matrix, k0: int) -> None:
    """Applies the reflections of one block to the part of Q that starts at row and column k0."""
    part = [row[k0:] for row in q[k0:]]
    s = times(transpose(v), v)
    t = [[0.0] * len(tau) for _ in tau]
    for k, own in enumerate(tau):
        t[k][k] = -own
        if k:
            column = times([row[:k] for row in t[:k]], [row[k : k + 1] for row in s[:k]])
            for row, [x] in zip(t, column, strict=False):
                row[k] = x * -own
    u = times(t, times(transpose(v), part))
    for row, new in zip(q[k0:], plus_times(part, v, u), strict=True):
        row[k0:] = new


# Schemes.


def tensor(spec: TensorSpec) -> Callable[[int], bytes]:
    """Maps an index to the bytes of its element."""
    draw = _law(spec)
    if spec.dtype != DataType.DATA_TYPE_COMPLEX64:
        return lambda i: data(draw(i), spec.dtype)
    return lambda i: data(draw(2 * i), spec.dtype) + data(draw(2 * i + 1), spec.dtype)


def data(value: float, dtype: int) -> bytes:
    """The bytes of a value, after its last rounding."""
    f = TYPES[dtype]  # type: ignore[index]
    if f is BF16:  # the upper half of a float32
        return struct.pack("<f", f.rn(value))[2:]
    return struct.pack(f.code, f.rn(value))


def _law(spec: TensorSpec) -> Draw:
    scheme = spec.WhichOneof("scheme")
    assert scheme is not None
    if scheme in ("ones", "zeros", "constant"):
        return _constant(spec, {"ones": 1.0, "zeros": 0.0, "constant": spec.constant.val}[scheme])
    return _SCHEMES[scheme](spec)


def _constant(spec: TensorSpec, value: float) -> Draw:
    return _real(spec, lambda i: made(spec).rn(value))


def _real(spec: TensorSpec, draw: Draw) -> Draw:
    """For complex numbers, makes these the real parts; imaginary parts are +0."""
    if spec.dtype != DataType.DATA_TYPE_COMPLEX64:
        return draw
    return lambda i: 0.0 if i % 2 else draw(i // 2)


def _words(spec: TensorSpec, purpose: bytes = b"") -> Source:
    return source(spec.seed, spec.stream or spec.name, purpose)


def _optional(message: object, field: str, default: float) -> float:
    value: float = getattr(message, field)
    return value if message.HasField(field) else default  # type: ignore[attr-defined]


def _uniform_law(spec: TensorSpec, a: float, b: float) -> Draw:
    f = made(spec)
    if a == b:
        return _constant(spec, a + 0.0)
    a, b = a + 0.0, b + 0.0  # −0 becomes +0
    return bounded(TYPES[spec.dtype], uniform(f, _words(spec), a, b), a, b, is_open=True)


def _normal_law(spec: TensorSpec, mean: float, std: float) -> Draw:
    f = made(spec)
    if std == 0:
        return _constant(spec, mean + 0.0)
    if spec.dtype == DataType.DATA_TYPE_COMPLEX64:
        std *= math.sqrt(0.5)
    return normal(f, _words(spec), mean + 0.0, std)


def _trunc_normal_law(spec: TensorSpec, mean: float, std: float, a: float, b: float) -> Draw:
    f = made(spec)
    if a == b or std == 0:
        return _constant(spec, brought(mean, a, b) + 0.0)
    mean, a, b = mean + 0.0, a + 0.0, b + 0.0
    return bounded(TYPES[spec.dtype], trunc_normal(f, _words(spec), mean, std, a, b), a, b, is_open=False)


def _disk_law(spec: TensorSpec, greatest: float, std: float | None) -> Draw:
    if greatest == 0 or std == 0:
        return _constant(spec, 0.0)
    return disk(_words(spec), greatest, std)


def _uniform(spec: TensorSpec) -> Draw:
    return _uniform_law(spec, spec.uniform.a, _optional(spec.uniform, "b", 1.0))


def _normal(spec: TensorSpec) -> Draw:
    return _normal_law(spec, spec.normal.mean, _optional(spec.normal, "std", 1.0))


def _trunc_normal(spec: TensorSpec) -> Draw:
    scheme = spec.trunc_normal
    std, a, b = _optional(scheme, "std", 1.0), _optional(scheme, "a", -2.0), _optional(scheme, "b", 2.0)
    if scheme.bounds == BoundsUnit.BOUNDS_UNIT_SIGMA:
        a, b = scheme.mean + std * a, scheme.mean + std * b
    return _trunc_normal_law(spec, scheme.mean, std, a, b)


def _eye(spec: TensorSpec) -> Draw:
    columns = spec.shape[1]
    return _real(spec, lambda i: float(i // columns == i % columns))


def _dirac(spec: TensorSpec) -> Draw:
    n = spec.shape[0] // int(_optional(spec.dirac, "groups", 1))

    def draw(i: int) -> float:
        o, d, *k = index_of(i, spec.shape)
        centre = [size // 2 for size in spec.shape[2:]]
        return float(d == o % n and k == centre)

    return _real(spec, draw)


def index_of(i: int, shape: Sequence[int]) -> list[int]:
    index = []
    for size in reversed(shape):
        index.append(i % size)
        i //= size
    return index[::-1]


def flat_of(index: Sequence[int], shape: Sequence[int]) -> int:
    flat = 0
    for at, size in zip(index, shape, strict=True):
        flat = flat * size + at
    return flat


def _sparse(spec: TensorSpec) -> Draw:
    f, std = made(spec), _optional(spec.sparse, "std", 0.01)
    if std == 0:
        return _constant(spec, 0.0)
    draw = normal(f, _words(spec), 0.0, std)
    return sparse(draw, _words(spec, b"sparse.mask"), spec.shape, spec.sparse.sparsity)


def _permutation(spec: TensorSpec) -> Draw:
    words, count = _words(spec, b"permutation"), math.prod(spec.shape)
    return lambda i: float(place(words, i, count))


def _orthogonal(spec: TensorSpec) -> Draw:
    scheme = spec.orthogonal
    return _orthogonal_law(spec, spec.shape, _optional(scheme, "gain", 1.0), scheme.axis)


def _orthogonal_law(spec: TensorSpec, shape: Sequence[int], gain: float, axis: int) -> Draw:
    f, axis = made(spec), axis % len(shape)
    if gain == 0:
        return _constant(spec, 0.0)
    others = [size for at, size in enumerate(shape) if at != axis]
    matrix = orthogonal(_words(spec, b"orthogonal"), shape[axis], math.prod(others))

    def draw(i: int) -> float:
        index = index_of(i, shape)
        row = index.pop(axis)
        value = matrix[row][flat_of(index, others)] * gain
        return value if f is F64 else RN32(value)

    return draw


def _delta_orthogonal(spec: TensorSpec) -> Draw:
    given, shape = spec.delta_orthogonal, spec.shape
    kept = {given.out_axis % len(shape), int(_optional(given, "in_axis", 1)) % len(shape)}
    box = [size if axis in kept else 1 for axis, size in enumerate(shape)]
    matrix = _orthogonal_law(spec, box, _optional(given, "gain", 1.0), given.out_axis)

    def draw(i: int) -> float:
        index = index_of(i, shape)
        if any(at != (shape[axis] - 1) // 2 for axis, at in enumerate(index) if axis not in kept):
            return 0.0
        return matrix(flat_of([at if axis in kept else 0 for axis, at in enumerate(index)], box))

    return draw


def _disk(spec: TensorSpec) -> Draw:
    std = spec.disk.std if spec.disk.HasField("std") else None
    return _disk_law(spec, _optional(spec.disk, "radius", 1.0), std)


def fans(shape: Sequence[int]) -> tuple[int, int]:
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def _xavier_std(spec: TensorSpec, gain: float) -> float:
    return gain * math.sqrt(2 / float(sum(fans(spec.shape))))


def _xavier_normal(spec: TensorSpec) -> Draw:
    return _normal_law(spec, 0.0, _xavier_std(spec, _optional(spec.xavier_normal, "gain", 1.0)))


def _xavier_uniform(spec: TensorSpec) -> Draw:
    c = math.sqrt(3) * _xavier_std(spec, _optional(spec.xavier_uniform, "gain", 1.0))
    return _uniform_law(spec, -c, c)


def _kaiming_std(spec: TensorSpec, given: Kaiming) -> float:
    fan_in, fan_out = fans(spec.shape)
    fan = fan_out if given.mode == FanMode.FAN_MODE_FAN_OUT else fan_in
    return (given.gain if given.HasField("gain") else gain_of(given)) / math.sqrt(float(fan))


def gain_of(given: Kaiming) -> float:
    if given.nonlinearity in (Nonlinearity.NONLINEARITY_UNSPECIFIED, Nonlinearity.NONLINEARITY_LEAKY_RELU):
        return math.sqrt(2 / (1 + given.a * given.a))
    gains = {
        Nonlinearity.NONLINEARITY_TANH: 5 / 3,
        Nonlinearity.NONLINEARITY_RELU: math.sqrt(2),
        Nonlinearity.NONLINEARITY_SELU: 3 / 4,
    }
    return gains.get(given.nonlinearity, 1.0)


def _kaiming_normal(spec: TensorSpec) -> Draw:
    return _normal_law(spec, 0.0, _kaiming_std(spec, spec.kaiming_normal))


def _kaiming_uniform(spec: TensorSpec) -> Draw:
    c = math.sqrt(3) * _kaiming_std(spec, spec.kaiming_uniform)
    return _uniform_law(spec, -c, c)


def _variance_scaling(spec: TensorSpec) -> Draw:
    given = spec.variance_scaling
    v, gain = _optional(given, "scale", 1.0) / _fan(given, spec.shape), _optional(given, "gain", 1.0)
    is_complex = spec.dtype == DataType.DATA_TYPE_COMPLEX64
    if given.distribution == Distribution.DISTRIBUTION_NORMAL:
        return _normal_law(spec, 0.0, gain * math.sqrt(v))
    if given.distribution == Distribution.DISTRIBUTION_UNIFORM:
        if is_complex:
            return _disk_law(spec, gain * math.sqrt(2 * v), None)
        c = gain * math.sqrt(3 * v)
        return _uniform_law(spec, -c, c)
    std = gain * (math.sqrt(v) / (0.95311164380491208 if is_complex else 0.87962566103423978))
    if is_complex:
        return _disk_law(spec, 2 * std, std)
    return _trunc_normal_law(spec, 0.0, std, -2 * std, 2 * std)


def _fan(given: VarianceScaling, shape: Sequence[int]) -> float:
    def axes(field: str, default: Sequence[int]) -> set[int]:
        named = getattr(given, field).axes if given.HasField(field) else default
        return {axis % len(shape) for axis in named}

    def product(chosen: set[int]) -> int:
        return math.prod(shape[axis] for axis in chosen)

    ins, outs, batch = axes("in_axis", [-2]), axes("out_axis", [-1]), axes("batch_axis", [])
    receptive = product(set(range(len(shape))) - ins - outs - batch)
    fan_in, fan_out = product(ins) * receptive, product(outs) * receptive
    if given.mode == FanMode.FAN_MODE_FAN_OUT:
        return float(fan_out)
    if given.mode == FanMode.FAN_MODE_FAN_AVG:
        return float(fan_in + fan_out) / 2
    if given.mode == FanMode.FAN_MODE_FAN_GEO_AVG:
        return math.sqrt(float(fan_in * fan_out))
    return float(fan_in)


_SCHEMES: dict[str, Callable[[TensorSpec], Draw]] = {
    "eye": _eye,
    "dirac": _dirac,
    "uniform": _uniform,
    "normal": _normal,
    "trunc_normal": _trunc_normal,
    "xavier_uniform": _xavier_uniform,
    "xavier_normal": _xavier_normal,
    "kaiming_uniform": _kaiming_uniform,
    "kaiming_normal": _kaiming_normal,
    "orthogonal": _orthogonal,
    "sparse": _sparse,
    "variance_scaling": _variance_scaling,
    "permutation": _permutation,
    "delta_orthogonal": _delta_orthogonal,
    "disk": _disk,
}

"""The elementary functions: within 1 ulp of the exact value, with the special values of C99, and frozen bits."""

from __future__ import annotations

import warnings

import mpmath as mp
import numpy as np
import pytest

from seedbed_server.engine import functions

INF, NAN = float("inf"), float("nan")
COUNT = 60
ODD = ("expm1", "log1p", "sin", "tanh", "erf", "erfinv")  # expm1 and log1p only keep the sign of 0
UNARY = ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "softplus", "erf", "erfinv", "rsqrt")
EXACT = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "log": mp.log,
    "log1p": mp.log1p,
    "sin": mp.sin,
    "cos": mp.cos,
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "erf": mp.erf,
    "erfinv": mp.erfinv,
    "rsqrt": lambda x: 1 / mp.sqrt(x),
}
# ("flat", a, b): evenly between a and b; ("log", a, b): +-2^e with e between a and b, positive only for "log+".
TINY = ("log", -1074, -20)
REGIONS = {
    "exp": [("flat", -1, 1), ("flat", -745.2, -700), ("flat", -700, 709.8), TINY],
    "expm1": [("flat", -0.3, 0.3), ("flat", -50, 50), ("flat", 50, 709.7), ("flat", -2, 2), TINY],
    "log": [("log+", -1074, 1024), ("flat", 0.5, 2), ("flat", 0.99, 1.01), ("log+", -1074, -1020), ("flat", 0.7, 0.72)],
    "log1p": [("flat", -0.9999, 1), ("log+", -10, 1023), ("flat", -0.02, 0.02), TINY],
    "sin": [("flat", -10, 10), ("log", -1074, 10), ("log", 10, 24), ("log", 20, 1024)],
    "cos": [("flat", -10, 10), ("log", -1074, 10), ("log", 10, 24), ("log", 20, 1024)],
    "tanh": [("flat", -0.3, 0.3), ("flat", -1, 1), ("flat", -25, 25), TINY],
    "sigmoid": [("flat", -1, 1), ("flat", -45, 45), ("flat", -745, -700), ("flat", -750, 750), TINY],
    "softplus": [("flat", -1, 1), ("flat", -45, 45), ("flat", -745, -700), ("flat", 30, 750), TINY],
    "erf": [("flat", -0.55, 0.55), ("flat", 0.4, 1.6), ("flat", -6.2, 6.2), TINY],
    "erfinv": [("flat", -1, 1), ("flat", 0.45, 0.7), ("flat", -0.5, 0.5), TINY],
    "rsqrt": [("log+", -1074, 1024), ("flat", 0.25, 4), ("log+", -1074, -1020)],
}
BORDERS = {
    "exp": [709.782712893384, -745.1332191019411, -708.3964185322641],
    "expm1": [0.25, -0.25, 50.0, -50.0, 709.782712893384],
    "log": [0.7071067811865476, 0.7071067811865475, 1.0, 5e-324, 1.7976931348623157e308],
    "log1p": [-0.9999999999999999, 2.0**-53, -(2.0**-54), 1.7976931348623157e308],
    "sin": [k * np.pi / 2 for k in (1, 2, 3, 355, 710, 1e5)] + [2.0**20, 6381956970095103 * 2.0**797],
    "cos": [k * np.pi / 2 for k in (1, 2, 3, 355, 710, 1e5)] + [2.0**20, 6381956970095103 * 2.0**797],
    "tanh": [0.25, 19.06, 22.0, 25.0],
    "sigmoid": [-40.0, 36.7, -745.1],
    "softplus": [-40.0, 50.0, 36.7],
    "erf": [0.5, 0.125, 0.625, 5.92, 6.0],
    "erfinv": [0.5, 1 - 2.0**-53, 2.0**-52 - 1, 0.9, *(1 - np.exp([-1.5625, -3.0625, -6.25, -12.25, -22.5625]))],
    "rsqrt": [2.0**-500, 2.0**-1022, 5e-324, 1.7976931348623157e308],
}


def points(name: str) -> np.ndarray:
    draws = np.random.default_rng(20)
    parts = [np.array(BORDERS[name]), np.nextafter(BORDERS[name], 1)]
    for kind, low, high in REGIONS[name]:  # type: ignore[attr-defined]
        u = draws.uniform(low, high, COUNT)
        if kind != "flat":
            u = np.exp2(u) * (draws.choice([-1.0, 1.0], COUNT) if kind == "log" else 1.0)
        parts.append(u)
    return np.concatenate(parts)


def ulps(got: float, exact: mp.mpf) -> float:
    """The error in units of the last place of the double nearest to ``exact``."""
    if mp.isinf(exact) or abs(exact) >= mp.mpf(2) ** 1024 - mp.mpf(2) ** 970:
        return 0.0 if got == (INF if exact > 0 else -INF) else INF
    unit = mp.mpf(2) ** (max(mp.frexp(abs(exact))[1] - 53, -1074) if exact else -1074)
    return float(abs(mp.mpf(got) - exact) / unit)


@pytest.mark.parametrize("name", UNARY)
def test_within_one_ulp(name) -> None:
    x = points(name)
    got = getattr(functions, name)(x).tolist()
    with mp.workprec(140):
        errors = [ulps(b, EXACT[name](mp.mpf(a))) for a, b in zip(x.tolist(), got, strict=True)]
    assert max(errors) < 1, x[np.argmax(errors)].hex()


def test_power_within_one_ulp() -> None:
    draws = np.random.default_rng(21)
    wide, near = np.exp2(draws.uniform(-1074, 1024, 200)), 1 + np.exp2(draws.uniform(-52, -5, 200))
    x = np.concatenate([wide, wide, near, draws.uniform(0.1, 9, 200)])
    y = np.concatenate([draws.uniform(-745, 709, 200) / np.log(wide), draws.uniform(-1, 1, 200),
                        np.exp2(draws.uniform(-3, 40, 200)), draws.uniform(-50, 50, 200)])  # fmt: skip
    got = functions.power(x, y)
    with mp.workprec(160):
        errors = [ulps(c, mp.mpf(a) ** mp.mpf(b)) for a, b, c in zip(x.tolist(), y.tolist(), got.tolist(), strict=True)]
    assert max(errors) < 1


SPECIAL = {
    "exp": {INF: INF, -INF: 0.0, 0.0: 1.0, 710.0: INF, -746.0: 0.0},
    "expm1": {INF: INF, -INF: -1.0, -800.0: -1.0, 800.0: INF},
    "log": {0.0: -INF, 1.0: 0.0, -1.0: NAN, INF: INF, -INF: NAN},
    "log1p": {-1.0: -INF, -2.0: NAN, INF: INF, -INF: NAN},
    "sin": {INF: NAN, -INF: NAN},
    "cos": {INF: NAN, -INF: NAN, 0.0: 1.0},
    "tanh": {INF: 1.0, -INF: -1.0},
    "sigmoid": {INF: 1.0, -INF: 0.0, 0.0: 0.5},
    "softplus": {INF: INF, -INF: 0.0},
    "erf": {INF: 1.0, -INF: -1.0},
    "erfinv": {1.0: INF, -1.0: -INF, 1.5: NAN, -INF: NAN},
    "rsqrt": {0.0: INF, INF: 0.0, -1.0: NAN, 4.0: 0.5},
}


@pytest.mark.parametrize("name", UNARY)
def test_special_values_without_warnings(name) -> None:
    table = {**SPECIAL[name], NAN: NAN}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = getattr(functions, name)(np.array(list(table)))
    np.testing.assert_array_equal(got, np.array(list(table.values())))
    assert not np.signbit(got[np.isnan(got)]).any()


@pytest.mark.parametrize("name", ODD)
def test_the_sign_of_zero_is_kept(name) -> None:
    got = getattr(functions, name)(np.array([0.0, -0.0]))
    assert (got == 0).all()
    assert np.signbit(got).tolist() == [False, True]


@pytest.mark.parametrize("name", ["sin", "tanh", "erf", "erfinv"])
def test_odd_functions_are_odd(name) -> None:
    x, f = points(name), getattr(functions, name)
    assert f(-x).tobytes() == (-f(x)).tobytes()


def test_power_has_the_special_cases_of_c99() -> None:
    values = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, INF, -INF, NAN, 1e300, -1e300]
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        libm = np.power(x, y)
    got = functions.power(x, y)
    np.testing.assert_allclose(got, libm, rtol=3e-16)
    known = ~np.isnan(libm)
    assert (np.signbit(got) == np.signbit(libm))[known].all()


@pytest.mark.parametrize("name", UNARY)
def test_the_shape_is_kept_and_the_argument_unchanged(name) -> None:
    f, x = getattr(functions, name), np.random.default_rng(3).uniform(0.1, 0.9, (3, 5000))
    before = x.copy()
    got = f(x)
    assert got.shape == x.shape
    assert got.tobytes() == b"".join(f(row).tobytes() for row in x)
    assert f(x.T).tobytes() == np.ascontiguousarray(got.T).tobytes()
    assert f(np.array(0.5)).shape == ()
    assert f(np.empty((0, 2))).shape == (0, 2)
    assert x.tobytes() == before.tobytes()


def test_power_broadcasts() -> None:
    got = functions.power(np.array([[2.0], [3.0]]), np.array([1.0, 2.0, 3.0]))
    assert got.tolist() == [[2.0, 4.0, 8.0], [3.0, 9.0, 27.0]]


GOLDEN_POINTS = [2.0**-30, 0.1, 0.3, 0.7, 0.99]
GOLDEN = {
    "exp": "3ff0000000400000 3ff1aec7b35a00d4 3ff599058c8c1a96 40001c2a61268987 400587a5f064dcf9",
    "expm1": "3e10000000200000 3fbaec7b35a00d3a 3fd6641632306a56 3ff03854c24d130d 3ffb0f4be0c9b9f3",
    "log": "c034cb5ecf0a9650 c0026bb1bbb55515 bff34378fcbda721 bfd6d3c324e13f50 bf8495453e6fd4bc",
    "log1p": "3e0fffffffc00000 3fb8663f793c46c7 3fd0ca937be1b9dc 3fe0fae81914a991 3fe60532ef13c385",
    "sin": "3e10000000000000 3fb98eaecb8bcb2c 3fd2e9cd95baba33 3fe49d6e694619b8 3feac0b98d96429d",
    "cos": "3ff0000000000000 3fefd712f9a817c1 3fee921dd42f09ba 3fe87996529f9d93 3fe18ede09db07ee",
    "tanh": "3e10000000000000 3fb983d7795f413a 3fd2a4dda7d914fa 3fe356fb17af2e91 3fe83c4fe9b770e1",
    "sigmoid": "3fe0000000200000 3fe0cca12729afb8 3fe261d545e46a8b 3fe561cb52a19475 3fe754b031ccc374",
    "softplus": "3fe62e42ff3a39ef 3fe7d218f1c8904f 3feb56e0cf4511af 3ff1a6a66a15dd2e 3ff4e5374e72e06c",
    "erf": "3e120dd750429b6d 3fbcca5ea24fb334 3fd50838881dea0f 3fe5b08c21171646 3fead50ee005845b",
    "erfinv": "3e0c5bf891b4ef6b 3fb6bf442539fd74 3fd1700774485ed2 3fe773a9da42b44f 3ffd2466082bb20e",
    "rsqrt": "40e0000000000000 40094c583ada5b52 3ffd363d1848dcbf 3ff31fa808c55b44 3ff014a2883c8175",
    "power": "3e13b2c47bff832a 3fc98a13577c93c1 3fe64c8e84c5f4e9 3feee0f6172e7679 3feffffffffeb6ac",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bits_never_change(name) -> None:
    x = np.array(GOLDEN_POINTS)
    got = functions.power(x, x[::-1]) if name == "power" else getattr(functions, name)(x)
    assert " ".join(f"{bits:016x}" for bits in got.view(np.uint64).tolist()) == GOLDEN[name]

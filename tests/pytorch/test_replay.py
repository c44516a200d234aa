"""A recording gives the values that the code computes, one by one.

Each program runs twice: recorded, and for real with torch's uniforms and normals replaced by ours. Both must give the
same values, but for float32's rounding.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import seedbed
import seedbed.torch
from seedbed._record import emit


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


class Replaced(TorchDispatchMode):
    """Replaces torch's draws by ours: the n-th takes the stream "#n"."""

    def __init__(self, client):
        super().__init__()
        self._client = client
        self._count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.removesuffix("_")
        if name not in ("uniform", "normal", "rand", "randn", "rand_like", "randn_like"):
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        parameters = [arg for arg in args[1:] if isinstance(arg, (int, float))] if name in ("uniform", "normal") else []
        scheme = "uniform" if "uniform" in name or name.startswith("rand_") or name == "rand" else "normal"
        names = ("a", "b") if scheme == "uniform" else ("mean", "std")
        if isinstance(args[0], float):  # torch.normal(mean, std, size)
            parameters = list(args[:2])
        self._count += 1
        spec = seedbed.spec(
            scheme, tuple(result.shape), **dict(zip(names, parameters, strict=False)), stream=f"#{self._count}",
            dtype=str(result.dtype).removeprefix("torch."), seed=5,
        )  # fmt: skip
        return result.copy_(torch.from_numpy(self._client.init(spec)))


def replayed(fill, client, monkeypatch):
    """The values of a program, as recorded and as computed for real."""
    monkeypatch.setattr(emit.Names, "stream", lambda self, tensor, draw, use=None: f"#{draw.drawing.number}")
    monkeypatch.setattr(emit.Names, "is_alone", lambda self, draw: False)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.no_grad():
                self.weight = nn.Parameter(fill())

    module = seedbed.torch.build(Net, client, seed=5)
    with Replaced(client):
        expected = Net()
    return module.weight.detach(), expected.weight.detach()


def _in_place(*steps):
    def fill():
        w = torch.empty(4, 6)
        for step in steps:
            step(w)
        return w

    return fill


R = torch.randn
U = torch.rand

PROGRAMS = {
    "affine": lambda: 3 - R(5, 4) * 0.5,
    "affine of a uniform": lambda: (U(50) * 2 - 1) / 7,
    "turned uniform": lambda: -U(5) + 0.25,
    "turned twice": lambda: 2 - (1 - U(5)) * 3,
    "normal_(mean, std) turned": lambda: -torch.empty(7).normal_(2.0, 3.0),
    "log": lambda: torch.log(U(50) * 15 + 1),
    "chain": lambda: torch.exp(U(50) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4),
    "inverse softplus": lambda: (dt := torch.exp(U(20) * 2 - 5)) + torch.log(-torch.expm1(-dt)),
    "sigmoid, tanh, erf": lambda: torch.sigmoid(R(9)) + torch.tanh(R(9)) * torch.erf(R(9)),
    "sin of cos": lambda: torch.sin(torch.cos(R(9) * 3)),
    "powers": lambda: R(9).abs() ** 1.5 + R(9) ** 2 + U(9).sqrt() + (U(9) + 1) ** -0.5 + 2 ** R(9),
    "rsqrt, reciprocal": lambda: torch.rsqrt(U(9) + 1) + torch.reciprocal(U(9) + 1),
    "rounding": lambda: (R(99) * 3).round() + (R(99) * 3).floor() + (R(99) * 3).ceil() + (R(99) * 3).trunc(),
    "comparisons": lambda: torch.where(R(99) > 0.5, U(99), torch.zeros(99)),
    "masks": lambda: R(99).masked_fill(U(99) < 0.3, 7.0),
    "booleans": lambda: ((R(99) > 0) & (R(99) < 1) | (U(99) >= 0.9)).float(),
    "not equal": lambda: ((U(99) * 4).floor() != 2).to(torch.float32),
    "sign": lambda: torch.sign(R(9)) * U(9),
    "activations": lambda: (
        F.relu(R(9)) + F.silu(R(9)) + F.gelu(R(9)) + F.softplus(R(9)) + F.gelu(R(9), approximate="tanh")
    ),
    "logit": lambda: torch.logit(U(9) * 0.8 + 0.1),
    "lerp": lambda: torch.lerp(R(5), U(5), 0.3),
    "addcmul": lambda: torch.addcmul(R(5), U(5), R(5), value=0.5),
    "alpha": lambda: torch.add(R(5), U(5), alpha=3) - torch.sub(R(5), 1, alpha=2),
    "broadcast": lambda: R(4, 1) * U(1, 6) + R(6),
    "outer": lambda: torch.outer(R(4), torch.arange(6.0)),
    "sum": lambda: R(4, 6).sum(1) + R(4, 6).mean(-1),
    "sum of all": lambda: R(4, 6).sum().reshape(1) + R(3).norm(),
    "normalised": lambda: F.normalize(R(4, 6), dim=-1),
    "normalised by columns": lambda: (w := R(40, 6)) / w.norm(dim=0, keepdim=True),
    "1-norm, max": lambda: (w := R(4, 6)) / w.abs().sum(1, keepdim=True) + w.amax(0) - w.max() - w.min(),
    "standardised": lambda: ((w := R(4, 60)) - w.mean(1, keepdim=True)) / w.std(1, keepdim=True),
    "variance": lambda: R(4, 60).var(1, unbiased=False),
    "fmod": lambda: torch.fmod(R(50) * 3, 2),
    "prefix sums": lambda: R(4, 6).cumsum(1) + R(4, 6).cumsum(0) + U(6).cumsum(0),
    "products": lambda: R(4, 6).prod(1) + R(4, 6).prod(0)[:4] + R(5).prod(),
    "checked": lambda: w if torch.isfinite(w := R(5)).all() and not w.isnan().any() else 1 / 0,
    "softmax": lambda: torch.softmax(R(4, 6), -1),
    "matrix products": lambda: R(4, 3) @ U(3, 6) + torch.mv(R(4, 3), R(3))[:, None],
    "matrix products of constants": lambda: torch.ones(4, 3) @ R(3, 6) + R(4, 3) @ torch.zeros(3, 6),
    "sum and mean beside constants": lambda: (
        (torch.full((4, 6), 2.0) * R(6)).sum(0) + (torch.full((4, 6), 2.0) * R(6)).mean() + U(6)
    ),
    "transposed": lambda: R(4, 6).t() * 2,
    "transposed, contiguous": lambda: R(4, 6).t().contiguous(),
    "permuted": lambda: R(2, 3, 4).permute(2, 0, 1).reshape(6, 4),
    "view": lambda: R(24).view(4, 6)[1:3, ::2],
    "flip": lambda: R(4, 6).flip(1) + torch.flip(U(4, 6), (0, 1)),
    "roll": lambda: R(4, 6).roll(1, 0) + U(4, 6).roll((1, 2), (0, 1)) + R(4, 6).roll(5),
    "triangles": lambda: R(4, 6).tril() + U(4, 6).triu(1),
    "repeat": lambda: R(1, 4).repeat(5, 2),
    "repeat_interleave": lambda: R(3, 4).repeat_interleave(2, dim=1),
    "expand": lambda: R(1, 4).expand(5, 4).clone() + R(5, 1).expand(-1, 4),
    "expanded parameter": lambda: R(1, 4).expand(5, 4),
    "cat": lambda: torch.cat([R(2, 4), U(3, 4), torch.zeros(1, 4)]),
    "cat of columns, scaled": lambda: torch.cat([R(4, 2), U(4, 3)], 1) * 3 + 1,
    "stack": lambda: torch.stack([R(4), U(4), R(4)], 1),
    "chunks": lambda: torch.cat(R(6, 4).chunk(3)[::-1]),
    "split and unbind": lambda: torch.cat(R(6, 4).split([1, 5])[::-1]) + torch.stack(U(6, 4).unbind(0)[::-1]),
    "index": lambda: R(6, 4)[torch.tensor([3, 1, 1])] + R(6, 4).index_select(0, torch.tensor([0, 5, 2])),
    "index of columns": lambda: R(6, 4)[:, [3, 0]],
    "eye and noise": lambda: torch.eye(5) + R(5, 5) * 0.01,
    "diagonals": lambda: torch.diag(R(4)) + torch.diag(R(4, 4)).unsqueeze(0),
    "padding": lambda: F.pad(R(2, 3), (1, 2, 0, 1), value=0.5),
    "double": lambda: R(5).double(),
    "half": lambda: (R(50) * 3 + 1).half(),
    "bfloat16 of something": lambda: torch.exp(R(50)).bfloat16(),
    "half and back": lambda: R(50).half().float(),
    "drawn in half": lambda: torch.empty(50, dtype=torch.float16).normal_().float() * 2,
    "float64": lambda: torch.exp(torch.randn(9, dtype=torch.float64)),
    "torch.normal": lambda: torch.normal(0.5, 0.02, (50, 4)),
    "rows": _in_place(lambda w: w[:2].normal_(), lambda w: w[2:].uniform_(-1, 1)),
    "rows and columns": _in_place(lambda w: w.zero_(), lambda w: w[:, 1:3].normal_(), lambda w: w[2].uniform_()),
    "steps": _in_place(lambda w: w.normal_(), lambda w: w[::2].fill_(3), lambda w: w[1::2, 1::3].uniform_()),
    "in place": _in_place(lambda w: w.normal_(), lambda w: w.mul_(2).add_(1).abs_().log1p_(), lambda w: w[0].neg_()),
    "through views": _in_place(
        lambda w: w.t().normal_(), lambda w: w.view(-1)[3:9].mul_(2), lambda w: w.t()[2].zero_()
    ),
    "rows, copied": _in_place(lambda w: w.normal_(), lambda w: w[0].copy_(w[3]), lambda w: w[2].copy_(w[1] * 2)),
    "rows, repeated": _in_place(lambda w: w.copy_(R(6))),
    "a buffer, reused": _in_place(lambda w: [row.copy_(torch.empty(6).normal_(i)) for i, row in enumerate(w)]),
    "diagonal": _in_place(lambda w: w.normal_(), lambda w: w.diagonal().mul_(5), lambda w: w.fill_diagonal_(2)),
    "assigned": _in_place(
        lambda w: w.normal_(), lambda w: w.__setitem__((slice(None), 2), U(4)), lambda w: w.__setitem__(w > 0.9, 9.0)
    ),
    "by numbers": _in_place(
        lambda w: w.normal_(),
        lambda w: w.index_fill_(0, torch.tensor([1, 3]), 4),
        lambda w: w.__setitem__(torch.tensor([0, 2]), U(2, 6)),
    ),
    "out=": _in_place(lambda w: torch.mul(R(4, 6), 2, out=w), lambda w: torch.exp(w, out=w)),
    "linspace and noise": lambda: torch.linspace(0, 1, 50) + U(50) * 0.1,
    "sinusoid": lambda: torch.sin(torch.arange(40.0)[:, None] * torch.exp(torch.arange(0, 20.0) * -0.3)),
    "arange into": _in_place(lambda w: torch.arange(24.0, out=w.view(-1)), lambda w: w.mul_(math.pi)),
    "large constants": lambda: torch.ones(1 << 19) * 0.3 + torch.full((1 << 19,), 2.0),
    "large, then drawn": lambda: torch.zeros(1 << 18).normal_() * torch.ones(1 << 18),
    "deep": lambda: _deep(R(5)),
    "one draw, twice": lambda: (w := R(6)) * w + w.roll(1),
    "a truncation by hand": lambda: (w := R(50)).where(w.abs() < 2, w.clamp(-2, 2) * 0),
    "erfinv": lambda: torch.erfinv(U(50) * 1.9 - 0.95) * math.sqrt(2),
}


def _deep(w):
    for _ in range(600):
        w = torch.tanh(w * 1.5)
    return w


@pytest.mark.parametrize("fill", PROGRAMS.values(), ids=PROGRAMS)
def test_what_the_code_says(client, monkeypatch, fill):
    found, expected = replayed(fill, client, monkeypatch)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    size = float(expected.double().abs().max()) or 1.0
    precision = {torch.float64: 1e-13, torch.float32: 2e-6}.get(expected.dtype, 2e-2)
    worst = float((found.double() - expected.double()).abs().max())
    assert worst <= precision * max(size, 1.0), worst
    assert np.isfinite(found.double().numpy()).all()

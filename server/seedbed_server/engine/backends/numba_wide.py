"""Compiles our kernels, and nobody else's functions, for the widest vectors that a processor has.

Trainers run the engine beside Numba functions of their own. So nothing global is changed: the kernels have a pipeline
of their own, which puts an attribute on each. It decides how many lanes a vector has, and not what is computed in them.

Numba keeps machine code on disk under the processor's name and features, and what is decided here depends on the name
alone: machines that share a home directory do not get each other's.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import BaseNativeLowering, NativeLowering


def wide_on(processors: Set[str]) -> type[CompilerBase]:
    """What ``njit(pipeline_class=...)`` takes: vectors of 512 bits on these processors, by LLVM's names for them."""

    class WideLower(Lower):
        def setup_function(self, fndesc: object) -> None:
            super().setup_function(fndesc)
            _, processor, _ = self.context.codegen().magic_tuple()  # of the key on disk; NUMBA_CPU_NAME, if that is set
            if processor in processors:
                # llvmlite's own `add` knows the attributes without values only; what is there is written as it is.
                set.add(self.function.attributes, '"prefer-vector-width"="512"')

    @register_pass(mutates_CFG=True, analysis_only=False)
    class WideLowering(BaseNativeLowering):
        _name: Any = "seedbed_wide_lowering"

        @property
        def lowering_class(self) -> type[Lower]:
            return WideLower

    class WideCompiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
            pipeline.passes = [(WideLowering if each is NativeLowering else each, of) for each, of in pipeline.passes]
            pipeline.finalize()
            return [pipeline]

    return WideCompiler

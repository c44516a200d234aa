"""Compiles the engine's kernels, and no other functions, for the widest vectors of a processor.

A training process may have Numba functions too, so nothing global changes: the kernels have their own pipeline, which
sets an attribute on each function. The attribute determines the number of lanes, not what they compute.

Numba caches machine code on disk under the processor's name and features, and this choice depends on the name only. So
machines that share a home directory do not load each other's code.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import BaseNativeLowering, NativeLowering


def wide_on(processors: Set[str]) -> type[CompilerBase]:
    """A compiler for ``njit(pipeline_class=...)``: 512-bit vectors on these processors, given by LLVM's names."""

    class WideLower(Lower):
        def setup_function(self, fndesc: object) -> None:
            super().setup_function(fndesc)
            _, processor, _ = self.context.codegen().magic_tuple()  # as in the cache's key; honours NUMBA_CPU_NAME
            if processor in processors:
                # `add` of llvmlite accepts only attributes without values, but the set is written out unchanged.
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

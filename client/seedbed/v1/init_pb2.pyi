from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_BFLOAT16: _ClassVar[DataType]
    DATA_TYPE_FLOAT64: _ClassVar[DataType]
    DATA_TYPE_COMPLEX64: _ClassVar[DataType]

class FanMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAN_MODE_UNSPECIFIED: _ClassVar[FanMode]
    FAN_MODE_FAN_IN: _ClassVar[FanMode]
    FAN_MODE_FAN_OUT: _ClassVar[FanMode]
    FAN_MODE_FAN_AVG: _ClassVar[FanMode]
    FAN_MODE_FAN_GEO_AVG: _ClassVar[FanMode]

class Nonlinearity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NONLINEARITY_UNSPECIFIED: _ClassVar[Nonlinearity]
    NONLINEARITY_LINEAR: _ClassVar[Nonlinearity]
    NONLINEARITY_IDENTITY: _ClassVar[Nonlinearity]
    NONLINEARITY_CONV1D: _ClassVar[Nonlinearity]
    NONLINEARITY_CONV2D: _ClassVar[Nonlinearity]
    NONLINEARITY_CONV3D: _ClassVar[Nonlinearity]
    NONLINEARITY_CONV_TRANSPOSE1D: _ClassVar[Nonlinearity]
    NONLINEARITY_CONV_TRANSPOSE2D: _ClassVar[Nonlinearity]
    NONLINEARITY_CONV_TRANSPOSE3D: _ClassVar[Nonlinearity]
    NONLINEARITY_SIGMOID: _ClassVar[Nonlinearity]
    NONLINEARITY_TANH: _ClassVar[Nonlinearity]
    NONLINEARITY_RELU: _ClassVar[Nonlinearity]
    NONLINEARITY_LEAKY_RELU: _ClassVar[Nonlinearity]
    NONLINEARITY_SELU: _ClassVar[Nonlinearity]

class Distribution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISTRIBUTION_UNSPECIFIED: _ClassVar[Distribution]
    DISTRIBUTION_UNIFORM: _ClassVar[Distribution]
    DISTRIBUTION_NORMAL: _ClassVar[Distribution]
    DISTRIBUTION_TRUNCATED_NORMAL: _ClassVar[Distribution]

class BoundsUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BOUNDS_UNIT_UNSPECIFIED: _ClassVar[BoundsUnit]
    BOUNDS_UNIT_ABSOLUTE: _ClassVar[BoundsUnit]
    BOUNDS_UNIT_SIGMA: _ClassVar[BoundsUnit]

class Function(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FUNCTION_UNSPECIFIED: _ClassVar[Function]
    FUNCTION_ADD: _ClassVar[Function]
    FUNCTION_SUBTRACT: _ClassVar[Function]
    FUNCTION_MULTIPLY: _ClassVar[Function]
    FUNCTION_DIVIDE: _ClassVar[Function]
    FUNCTION_NEGATE: _ClassVar[Function]
    FUNCTION_ABSOLUTE: _ClassVar[Function]
    FUNCTION_MINIMUM: _ClassVar[Function]
    FUNCTION_MAXIMUM: _ClassVar[Function]
    FUNCTION_CLAMP: _ClassVar[Function]
    FUNCTION_LESS: _ClassVar[Function]
    FUNCTION_LESS_EQUAL: _ClassVar[Function]
    FUNCTION_EQUAL: _ClassVar[Function]
    FUNCTION_WHERE: _ClassVar[Function]
    FUNCTION_SQRT: _ClassVar[Function]
    FUNCTION_RSQRT: _ClassVar[Function]
    FUNCTION_POWER: _ClassVar[Function]
    FUNCTION_EXP: _ClassVar[Function]
    FUNCTION_EXPM1: _ClassVar[Function]
    FUNCTION_LOG: _ClassVar[Function]
    FUNCTION_LOG1P: _ClassVar[Function]
    FUNCTION_SIN: _ClassVar[Function]
    FUNCTION_COS: _ClassVar[Function]
    FUNCTION_TANH: _ClassVar[Function]
    FUNCTION_SIGMOID: _ClassVar[Function]
    FUNCTION_SOFTPLUS: _ClassVar[Function]
    FUNCTION_ERF: _ClassVar[Function]
    FUNCTION_ERFINV: _ClassVar[Function]
    FUNCTION_FLOOR: _ClassVar[Function]
    FUNCTION_ROUND: _ClassVar[Function]

class Reducer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDUCER_UNSPECIFIED: _ClassVar[Reducer]
    REDUCER_SUM: _ClassVar[Reducer]
    REDUCER_MEAN: _ClassVar[Reducer]
    REDUCER_MAXIMUM: _ClassVar[Reducer]
    REDUCER_MINIMUM: _ClassVar[Reducer]
    REDUCER_NORM: _ClassVar[Reducer]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_BFLOAT16: DataType
DATA_TYPE_FLOAT64: DataType
DATA_TYPE_COMPLEX64: DataType
FAN_MODE_UNSPECIFIED: FanMode
FAN_MODE_FAN_IN: FanMode
FAN_MODE_FAN_OUT: FanMode
FAN_MODE_FAN_AVG: FanMode
FAN_MODE_FAN_GEO_AVG: FanMode
NONLINEARITY_UNSPECIFIED: Nonlinearity
NONLINEARITY_LINEAR: Nonlinearity
NONLINEARITY_IDENTITY: Nonlinearity
NONLINEARITY_CONV1D: Nonlinearity
NONLINEARITY_CONV2D: Nonlinearity
NONLINEARITY_CONV3D: Nonlinearity
NONLINEARITY_CONV_TRANSPOSE1D: Nonlinearity
NONLINEARITY_CONV_TRANSPOSE2D: Nonlinearity
NONLINEARITY_CONV_TRANSPOSE3D: Nonlinearity
NONLINEARITY_SIGMOID: Nonlinearity
NONLINEARITY_TANH: Nonlinearity
NONLINEARITY_RELU: Nonlinearity
NONLINEARITY_LEAKY_RELU: Nonlinearity
NONLINEARITY_SELU: Nonlinearity
DISTRIBUTION_UNSPECIFIED: Distribution
DISTRIBUTION_UNIFORM: Distribution
DISTRIBUTION_NORMAL: Distribution
DISTRIBUTION_TRUNCATED_NORMAL: Distribution
BOUNDS_UNIT_UNSPECIFIED: BoundsUnit
BOUNDS_UNIT_ABSOLUTE: BoundsUnit
BOUNDS_UNIT_SIGMA: BoundsUnit
FUNCTION_UNSPECIFIED: Function
FUNCTION_ADD: Function
FUNCTION_SUBTRACT: Function
FUNCTION_MULTIPLY: Function
FUNCTION_DIVIDE: Function
FUNCTION_NEGATE: Function
FUNCTION_ABSOLUTE: Function
FUNCTION_MINIMUM: Function
FUNCTION_MAXIMUM: Function
FUNCTION_CLAMP: Function
FUNCTION_LESS: Function
FUNCTION_LESS_EQUAL: Function
FUNCTION_EQUAL: Function
FUNCTION_WHERE: Function
FUNCTION_SQRT: Function
FUNCTION_RSQRT: Function
FUNCTION_POWER: Function
FUNCTION_EXP: Function
FUNCTION_EXPM1: Function
FUNCTION_LOG: Function
FUNCTION_LOG1P: Function
FUNCTION_SIN: Function
FUNCTION_COS: Function
FUNCTION_TANH: Function
FUNCTION_SIGMOID: Function
FUNCTION_SOFTPLUS: Function
FUNCTION_ERF: Function
FUNCTION_ERFINV: Function
FUNCTION_FLOOR: Function
FUNCTION_ROUND: Function
REDUCER_UNSPECIFIED: Reducer
REDUCER_SUM: Reducer
REDUCER_MEAN: Reducer
REDUCER_MAXIMUM: Reducer
REDUCER_MINIMUM: Reducer
REDUCER_NORM: Reducer

class Ones(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Zeros(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Constant(_message.Message):
    __slots__ = ("val",)
    VAL_FIELD_NUMBER: _ClassVar[int]
    val: float
    def __init__(self, val: _Optional[float] = ...) -> None: ...

class Eye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Dirac(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: int
    def __init__(self, groups: _Optional[int] = ...) -> None: ...

class Uniform(_message.Message):
    __slots__ = ("a", "b")
    A_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    a: float
    b: float
    def __init__(self, a: _Optional[float] = ..., b: _Optional[float] = ...) -> None: ...

class Normal(_message.Message):
    __slots__ = ("mean", "std")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    mean: float
    std: float
    def __init__(self, mean: _Optional[float] = ..., std: _Optional[float] = ...) -> None: ...

class TruncNormal(_message.Message):
    __slots__ = ("mean", "std", "a", "b", "bounds")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    A_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    mean: float
    std: float
    a: float
    b: float
    bounds: BoundsUnit
    def __init__(self, mean: _Optional[float] = ..., std: _Optional[float] = ..., a: _Optional[float] = ..., b: _Optional[float] = ..., bounds: _Optional[_Union[BoundsUnit, str]] = ...) -> None: ...

class Xavier(_message.Message):
    __slots__ = ("gain",)
    GAIN_FIELD_NUMBER: _ClassVar[int]
    gain: float
    def __init__(self, gain: _Optional[float] = ...) -> None: ...

class Kaiming(_message.Message):
    __slots__ = ("a", "mode", "nonlinearity", "gain")
    A_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    NONLINEARITY_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    a: float
    mode: FanMode
    nonlinearity: Nonlinearity
    gain: float
    def __init__(self, a: _Optional[float] = ..., mode: _Optional[_Union[FanMode, str]] = ..., nonlinearity: _Optional[_Union[Nonlinearity, str]] = ..., gain: _Optional[float] = ...) -> None: ...

class Orthogonal(_message.Message):
    __slots__ = ("gain", "axis")
    GAIN_FIELD_NUMBER: _ClassVar[int]
    AXIS_FIELD_NUMBER: _ClassVar[int]
    gain: float
    axis: int
    def __init__(self, gain: _Optional[float] = ..., axis: _Optional[int] = ...) -> None: ...

class DeltaOrthogonal(_message.Message):
    __slots__ = ("gain", "out_axis", "in_axis")
    GAIN_FIELD_NUMBER: _ClassVar[int]
    OUT_AXIS_FIELD_NUMBER: _ClassVar[int]
    IN_AXIS_FIELD_NUMBER: _ClassVar[int]
    gain: float
    out_axis: int
    in_axis: int
    def __init__(self, gain: _Optional[float] = ..., out_axis: _Optional[int] = ..., in_axis: _Optional[int] = ...) -> None: ...

class Disk(_message.Message):
    __slots__ = ("radius", "std")
    RADIUS_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    radius: float
    std: float
    def __init__(self, radius: _Optional[float] = ..., std: _Optional[float] = ...) -> None: ...

class Sparse(_message.Message):
    __slots__ = ("sparsity", "std")
    SPARSITY_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    sparsity: float
    std: float
    def __init__(self, sparsity: _Optional[float] = ..., std: _Optional[float] = ...) -> None: ...

class Axes(_message.Message):
    __slots__ = ("axes",)
    AXES_FIELD_NUMBER: _ClassVar[int]
    axes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, axes: _Optional[_Iterable[int]] = ...) -> None: ...

class VarianceScaling(_message.Message):
    __slots__ = ("scale", "mode", "distribution", "in_axis", "out_axis", "batch_axis", "gain")
    SCALE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    IN_AXIS_FIELD_NUMBER: _ClassVar[int]
    OUT_AXIS_FIELD_NUMBER: _ClassVar[int]
    BATCH_AXIS_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    scale: float
    mode: FanMode
    distribution: Distribution
    in_axis: Axes
    out_axis: Axes
    batch_axis: Axes
    gain: float
    def __init__(self, scale: _Optional[float] = ..., mode: _Optional[_Union[FanMode, str]] = ..., distribution: _Optional[_Union[Distribution, str]] = ..., in_axis: _Optional[_Union[Axes, _Mapping]] = ..., out_axis: _Optional[_Union[Axes, _Mapping]] = ..., batch_axis: _Optional[_Union[Axes, _Mapping]] = ..., gain: _Optional[float] = ...) -> None: ...

class Permutation(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Region(_message.Message):
    __slots__ = ("start", "stop")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    start: _containers.RepeatedScalarFieldContainer[int]
    stop: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, start: _Optional[_Iterable[int]] = ..., stop: _Optional[_Iterable[int]] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("shape", "strides", "offset")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STRIDES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    strides: _containers.RepeatedScalarFieldContainer[int]
    offset: int
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., strides: _Optional[_Iterable[int]] = ..., offset: _Optional[int] = ...) -> None: ...

class Recipe(_message.Message):
    __slots__ = ("stream", "shape", "dtype", "ones", "zeros", "constant", "eye", "dirac", "uniform", "normal", "trunc_normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal", "sparse", "variance_scaling", "permutation", "parts", "literal", "expression", "delta_orthogonal", "disk")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    ONES_FIELD_NUMBER: _ClassVar[int]
    ZEROS_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    EYE_FIELD_NUMBER: _ClassVar[int]
    DIRAC_FIELD_NUMBER: _ClassVar[int]
    UNIFORM_FIELD_NUMBER: _ClassVar[int]
    NORMAL_FIELD_NUMBER: _ClassVar[int]
    TRUNC_NORMAL_FIELD_NUMBER: _ClassVar[int]
    XAVIER_UNIFORM_FIELD_NUMBER: _ClassVar[int]
    XAVIER_NORMAL_FIELD_NUMBER: _ClassVar[int]
    KAIMING_UNIFORM_FIELD_NUMBER: _ClassVar[int]
    KAIMING_NORMAL_FIELD_NUMBER: _ClassVar[int]
    ORTHOGONAL_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_SCALING_FIELD_NUMBER: _ClassVar[int]
    PERMUTATION_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    LITERAL_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    DELTA_ORTHOGONAL_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    stream: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: DataType
    ones: Ones
    zeros: Zeros
    constant: Constant
    eye: Eye
    dirac: Dirac
    uniform: Uniform
    normal: Normal
    trunc_normal: TruncNormal
    xavier_uniform: Xavier
    xavier_normal: Xavier
    kaiming_uniform: Kaiming
    kaiming_normal: Kaiming
    orthogonal: Orthogonal
    sparse: Sparse
    variance_scaling: VarianceScaling
    permutation: Permutation
    parts: Parts
    literal: Literal
    expression: Expression
    delta_orthogonal: DeltaOrthogonal
    disk: Disk
    def __init__(self, stream: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., ones: _Optional[_Union[Ones, _Mapping]] = ..., zeros: _Optional[_Union[Zeros, _Mapping]] = ..., constant: _Optional[_Union[Constant, _Mapping]] = ..., eye: _Optional[_Union[Eye, _Mapping]] = ..., dirac: _Optional[_Union[Dirac, _Mapping]] = ..., uniform: _Optional[_Union[Uniform, _Mapping]] = ..., normal: _Optional[_Union[Normal, _Mapping]] = ..., trunc_normal: _Optional[_Union[TruncNormal, _Mapping]] = ..., xavier_uniform: _Optional[_Union[Xavier, _Mapping]] = ..., xavier_normal: _Optional[_Union[Xavier, _Mapping]] = ..., kaiming_uniform: _Optional[_Union[Kaiming, _Mapping]] = ..., kaiming_normal: _Optional[_Union[Kaiming, _Mapping]] = ..., orthogonal: _Optional[_Union[Orthogonal, _Mapping]] = ..., sparse: _Optional[_Union[Sparse, _Mapping]] = ..., variance_scaling: _Optional[_Union[VarianceScaling, _Mapping]] = ..., permutation: _Optional[_Union[Permutation, _Mapping]] = ..., parts: _Optional[_Union[Parts, _Mapping]] = ..., literal: _Optional[_Union[Literal, _Mapping]] = ..., expression: _Optional[_Union[Expression, _Mapping]] = ..., delta_orthogonal: _Optional[_Union[DeltaOrthogonal, _Mapping]] = ..., disk: _Optional[_Union[Disk, _Mapping]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("region", "view", "recipe")
    REGION_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    region: Region
    view: View
    recipe: Recipe
    def __init__(self, region: _Optional[_Union[Region, _Mapping]] = ..., view: _Optional[_Union[View, _Mapping]] = ..., recipe: _Optional[_Union[Recipe, _Mapping]] = ...) -> None: ...

class Parts(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    def __init__(self, parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ...) -> None: ...

class Literal(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class Reduction(_message.Message):
    __slots__ = ("reducer", "axes", "p")
    REDUCER_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    P_FIELD_NUMBER: _ClassVar[int]
    reducer: Reducer
    axes: _containers.RepeatedScalarFieldContainer[int]
    p: float
    def __init__(self, reducer: _Optional[_Union[Reducer, str]] = ..., axes: _Optional[_Iterable[int]] = ..., p: _Optional[float] = ...) -> None: ...

class Assembly(_message.Message):
    __slots__ = ("shape", "boxes")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    boxes: _containers.RepeatedCompositeFieldContainer[View]
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., boxes: _Optional[_Iterable[_Union[View, _Mapping]]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("recipe", "constant", "function", "view", "assembly", "reduction", "cast", "arguments")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    ASSEMBLY_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    CAST_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    recipe: Recipe
    constant: float
    function: Function
    view: View
    assembly: Assembly
    reduction: Reduction
    cast: DataType
    arguments: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, recipe: _Optional[_Union[Recipe, _Mapping]] = ..., constant: _Optional[float] = ..., function: _Optional[_Union[Function, str]] = ..., view: _Optional[_Union[View, _Mapping]] = ..., assembly: _Optional[_Union[Assembly, _Mapping]] = ..., reduction: _Optional[_Union[Reduction, _Mapping]] = ..., cast: _Optional[_Union[DataType, str]] = ..., arguments: _Optional[_Iterable[int]] = ...) -> None: ...

class Expression(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    def __init__(self, steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "shape", "dtype", "seed", "algorithm_version", "stream", "ones", "zeros", "constant", "eye", "dirac", "uniform", "normal", "trunc_normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal", "sparse", "variance_scaling", "permutation", "parts", "literal", "expression", "delta_orthogonal", "disk")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_VERSION_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    ONES_FIELD_NUMBER: _ClassVar[int]
    ZEROS_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    EYE_FIELD_NUMBER: _ClassVar[int]
    DIRAC_FIELD_NUMBER: _ClassVar[int]
    UNIFORM_FIELD_NUMBER: _ClassVar[int]
    NORMAL_FIELD_NUMBER: _ClassVar[int]
    TRUNC_NORMAL_FIELD_NUMBER: _ClassVar[int]
    XAVIER_UNIFORM_FIELD_NUMBER: _ClassVar[int]
    XAVIER_NORMAL_FIELD_NUMBER: _ClassVar[int]
    KAIMING_UNIFORM_FIELD_NUMBER: _ClassVar[int]
    KAIMING_NORMAL_FIELD_NUMBER: _ClassVar[int]
    ORTHOGONAL_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_SCALING_FIELD_NUMBER: _ClassVar[int]
    PERMUTATION_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    LITERAL_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    DELTA_ORTHOGONAL_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: DataType
    seed: int
    algorithm_version: int
    stream: str
    ones: Ones
    zeros: Zeros
    constant: Constant
    eye: Eye
    dirac: Dirac
    uniform: Uniform
    normal: Normal
    trunc_normal: TruncNormal
    xavier_uniform: Xavier
    xavier_normal: Xavier
    kaiming_uniform: Kaiming
    kaiming_normal: Kaiming
    orthogonal: Orthogonal
    sparse: Sparse
    variance_scaling: VarianceScaling
    permutation: Permutation
    parts: Parts
    literal: Literal
    expression: Expression
    delta_orthogonal: DeltaOrthogonal
    disk: Disk
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., seed: _Optional[int] = ..., algorithm_version: _Optional[int] = ..., stream: _Optional[str] = ..., ones: _Optional[_Union[Ones, _Mapping]] = ..., zeros: _Optional[_Union[Zeros, _Mapping]] = ..., constant: _Optional[_Union[Constant, _Mapping]] = ..., eye: _Optional[_Union[Eye, _Mapping]] = ..., dirac: _Optional[_Union[Dirac, _Mapping]] = ..., uniform: _Optional[_Union[Uniform, _Mapping]] = ..., normal: _Optional[_Union[Normal, _Mapping]] = ..., trunc_normal: _Optional[_Union[TruncNormal, _Mapping]] = ..., xavier_uniform: _Optional[_Union[Xavier, _Mapping]] = ..., xavier_normal: _Optional[_Union[Xavier, _Mapping]] = ..., kaiming_uniform: _Optional[_Union[Kaiming, _Mapping]] = ..., kaiming_normal: _Optional[_Union[Kaiming, _Mapping]] = ..., orthogonal: _Optional[_Union[Orthogonal, _Mapping]] = ..., sparse: _Optional[_Union[Sparse, _Mapping]] = ..., variance_scaling: _Optional[_Union[VarianceScaling, _Mapping]] = ..., permutation: _Optional[_Union[Permutation, _Mapping]] = ..., parts: _Optional[_Union[Parts, _Mapping]] = ..., literal: _Optional[_Union[Literal, _Mapping]] = ..., expression: _Optional[_Union[Expression, _Mapping]] = ..., delta_orthogonal: _Optional[_Union[DeltaOrthogonal, _Mapping]] = ..., disk: _Optional[_Union[Disk, _Mapping]] = ...) -> None: ...

class TensorSlice(_message.Message):
    __slots__ = ("spec", "region")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    spec: TensorSpec
    region: Region
    def __init__(self, spec: _Optional[_Union[TensorSpec, _Mapping]] = ..., region: _Optional[_Union[Region, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "tensors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, name: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class Law(_message.Message):
    __slots__ = ("constant", "eye", "dirac", "uniform", "normal", "trunc_normal", "orthogonal", "sparse", "permutation", "parts", "literal", "expression", "disk")
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    EYE_FIELD_NUMBER: _ClassVar[int]
    DIRAC_FIELD_NUMBER: _ClassVar[int]
    UNIFORM_FIELD_NUMBER: _ClassVar[int]
    NORMAL_FIELD_NUMBER: _ClassVar[int]
    TRUNC_NORMAL_FIELD_NUMBER: _ClassVar[int]
    ORTHOGONAL_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    PERMUTATION_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    LITERAL_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    constant: Constant
    eye: Eye
    dirac: Dirac
    uniform: Uniform
    normal: Normal
    trunc_normal: TruncNormal
    orthogonal: Orthogonal
    sparse: Sparse
    permutation: Permutation
    parts: Parts
    literal: Literal
    expression: Expression
    disk: Disk
    def __init__(self, constant: _Optional[_Union[Constant, _Mapping]] = ..., eye: _Optional[_Union[Eye, _Mapping]] = ..., dirac: _Optional[_Union[Dirac, _Mapping]] = ..., uniform: _Optional[_Union[Uniform, _Mapping]] = ..., normal: _Optional[_Union[Normal, _Mapping]] = ..., trunc_normal: _Optional[_Union[TruncNormal, _Mapping]] = ..., orthogonal: _Optional[_Union[Orthogonal, _Mapping]] = ..., sparse: _Optional[_Union[Sparse, _Mapping]] = ..., permutation: _Optional[_Union[Permutation, _Mapping]] = ..., parts: _Optional[_Union[Parts, _Mapping]] = ..., literal: _Optional[_Union[Literal, _Mapping]] = ..., expression: _Optional[_Union[Expression, _Mapping]] = ..., disk: _Optional[_Union[Disk, _Mapping]] = ...) -> None: ...

class TensorDescription(_message.Message):
    __slots__ = ("spec", "region", "law", "fan_in", "fan_out", "gain", "stream", "element_count", "byte_count")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    LAW_FIELD_NUMBER: _ClassVar[int]
    FAN_IN_FIELD_NUMBER: _ClassVar[int]
    FAN_OUT_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    spec: TensorSpec
    region: Region
    law: Law
    fan_in: int
    fan_out: int
    gain: float
    stream: int
    element_count: int
    byte_count: int
    def __init__(self, spec: _Optional[_Union[TensorSpec, _Mapping]] = ..., region: _Optional[_Union[Region, _Mapping]] = ..., law: _Optional[_Union[Law, _Mapping]] = ..., fan_in: _Optional[int] = ..., fan_out: _Optional[int] = ..., gain: _Optional[float] = ..., stream: _Optional[int] = ..., element_count: _Optional[int] = ..., byte_count: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("element_offset", "crc32c", "payload")
    ELEMENT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    element_offset: int
    crc32c: int
    payload: bytes
    def __init__(self, element_offset: _Optional[int] = ..., crc32c: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class InitTensorRequest(_message.Message):
    __slots__ = ("spec", "region", "first_element")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    FIRST_ELEMENT_FIELD_NUMBER: _ClassVar[int]
    spec: TensorSpec
    region: Region
    first_element: int
    def __init__(self, spec: _Optional[_Union[TensorSpec, _Mapping]] = ..., region: _Optional[_Union[Region, _Mapping]] = ..., first_element: _Optional[int] = ...) -> None: ...

class InitTensorResponse(_message.Message):
    __slots__ = ("description", "chunk")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    description: TensorDescription
    chunk: Chunk
    def __init__(self, description: _Optional[_Union[TensorDescription, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ...) -> None: ...

class ResumePoint(_message.Message):
    __slots__ = ("tensor_index", "first_element")
    TENSOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_ELEMENT_FIELD_NUMBER: _ClassVar[int]
    tensor_index: int
    first_element: int
    def __init__(self, tensor_index: _Optional[int] = ..., first_element: _Optional[int] = ...) -> None: ...

class InitModelRequest(_message.Message):
    __slots__ = ("tensors", "resume")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSlice]
    resume: ResumePoint
    def __init__(self, tensors: _Optional[_Iterable[_Union[TensorSlice, _Mapping]]] = ..., resume: _Optional[_Union[ResumePoint, _Mapping]] = ...) -> None: ...

class InitModelResponse(_message.Message):
    __slots__ = ("tensor_index", "description", "chunk")
    TENSOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    tensor_index: int
    description: TensorDescription
    chunk: Chunk
    def __init__(self, tensor_index: _Optional[int] = ..., description: _Optional[_Union[TensorDescription, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ...) -> None: ...

class DescribeTensorRequest(_message.Message):
    __slots__ = ("spec", "region")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    spec: TensorSpec
    region: Region
    def __init__(self, spec: _Optional[_Union[TensorSpec, _Mapping]] = ..., region: _Optional[_Union[Region, _Mapping]] = ...) -> None: ...

class DescribeTensorResponse(_message.Message):
    __slots__ = ("description",)
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    description: TensorDescription
    def __init__(self, description: _Optional[_Union[TensorDescription, _Mapping]] = ...) -> None: ...

class CalculateGainRequest(_message.Message):
    __slots__ = ("nonlinearity", "param")
    NONLINEARITY_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    nonlinearity: Nonlinearity
    param: float
    def __init__(self, nonlinearity: _Optional[_Union[Nonlinearity, str]] = ..., param: _Optional[float] = ...) -> None: ...

class CalculateGainResponse(_message.Message):
    __slots__ = ("gain",)
    GAIN_FIELD_NUMBER: _ClassVar[int]
    gain: float
    def __init__(self, gain: _Optional[float] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_dimensions", "max_orthogonal_elements", "max_request_bytes", "chunk_bytes", "max_response_bytes", "max_tensors", "max_streams", "max_streams_per_client", "stall_timeout_seconds", "max_connection_age_seconds", "max_connections", "max_literal_bytes")
    MAX_DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_ORTHOGONAL_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TENSORS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_PER_CLIENT_FIELD_NUMBER: _ClassVar[int]
    STALL_TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_LITERAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_dimensions: int
    max_orthogonal_elements: int
    max_request_bytes: int
    chunk_bytes: int
    max_response_bytes: int
    max_tensors: int
    max_streams: int
    max_streams_per_client: int
    stall_timeout_seconds: float
    max_connection_age_seconds: float
    max_connections: int
    max_literal_bytes: int
    def __init__(self, max_dimensions: _Optional[int] = ..., max_orthogonal_elements: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., max_response_bytes: _Optional[int] = ..., max_tensors: _Optional[int] = ..., max_streams: _Optional[int] = ..., max_streams_per_client: _Optional[int] = ..., stall_timeout_seconds: _Optional[float] = ..., max_connection_age_seconds: _Optional[float] = ..., max_connections: _Optional[int] = ..., max_literal_bytes: _Optional[int] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "algorithm_versions", "backend", "device", "threads", "limits", "backend_reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_REASON_FIELD_NUMBER: _ClassVar[int]
    version: str
    algorithm_versions: _containers.RepeatedScalarFieldContainer[int]
    backend: str
    device: str
    threads: int
    limits: Limits
    backend_reason: str
    def __init__(self, version: _Optional[str] = ..., algorithm_versions: _Optional[_Iterable[int]] = ..., backend: _Optional[str] = ..., device: _Optional[str] = ..., threads: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., backend_reason: _Optional[str] = ...) -> None: ...

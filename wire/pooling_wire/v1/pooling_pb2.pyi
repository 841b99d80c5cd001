from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_MAX: _ClassVar[Mode]
    MODE_MIN: _ClassVar[Mode]
    MODE_AVERAGE: _ClassVar[Mode]
    MODE_SUM: _ClassVar[Mode]
    MODE_LP: _ClassVar[Mode]

class Layout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAYOUT_UNSPECIFIED: _ClassVar[Layout]
    LAYOUT_CHANNELS_FIRST: _ClassVar[Layout]
    LAYOUT_CHANNELS_LAST: _ClassVar[Layout]

class NamedPadding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAMED_PADDING_UNSPECIFIED: _ClassVar[NamedPadding]
    NAMED_PADDING_VALID: _ClassVar[NamedPadding]
    NAMED_PADDING_SAME_UPPER: _ClassVar[NamedPadding]
    NAMED_PADDING_SAME_LOWER: _ClassVar[NamedPadding]

class TiePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIE_POLICY_UNSPECIFIED: _ClassVar[TiePolicy]
    TIE_POLICY_FIRST: _ClassVar[TiePolicy]
    TIE_POLICY_ALL: _ClassVar[TiePolicy]
    TIE_POLICY_SPLIT: _ClassVar[TiePolicy]

class NanPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAN_POLICY_UNSPECIFIED: _ClassVar[NanPolicy]
    NAN_POLICY_PROPAGATE: _ClassVar[NanPolicy]
    NAN_POLICY_IGNORE: _ClassVar[NanPolicy]
    NAN_POLICY_ERROR: _ClassVar[NanPolicy]

class IndexFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INDEX_FORMAT_UNSPECIFIED: _ClassVar[IndexFormat]
    INDEX_FORMAT_WINDOW: _ClassVar[IndexFormat]
    INDEX_FORMAT_PLANE: _ClassVar[IndexFormat]
    INDEX_FORMAT_TENSOR: _ClassVar[IndexFormat]

class DivisorRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIVISOR_RULE_UNSPECIFIED: _ClassVar[DivisorRule]
    DIVISOR_RULE_VALID_TAPS: _ClassVar[DivisorRule]
    DIVISOR_RULE_PADDED_TAPS: _ClassVar[DivisorRule]
    DIVISOR_RULE_OVERRIDE: _ClassVar[DivisorRule]

class ElementType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ELEMENT_TYPE_UNSPECIFIED: _ClassVar[ElementType]
    ELEMENT_TYPE_FLOAT16: _ClassVar[ElementType]
    ELEMENT_TYPE_BFLOAT16: _ClassVar[ElementType]
    ELEMENT_TYPE_FLOAT32: _ClassVar[ElementType]
    ELEMENT_TYPE_FLOAT64: _ClassVar[ElementType]
    ELEMENT_TYPE_INT8: _ClassVar[ElementType]
    ELEMENT_TYPE_UINT8: _ClassVar[ElementType]
    ELEMENT_TYPE_INT16: _ClassVar[ElementType]
    ELEMENT_TYPE_UINT16: _ClassVar[ElementType]
    ELEMENT_TYPE_INT32: _ClassVar[ElementType]
    ELEMENT_TYPE_UINT32: _ClassVar[ElementType]
    ELEMENT_TYPE_INT64: _ClassVar[ElementType]
MODE_UNSPECIFIED: Mode
MODE_MAX: Mode
MODE_MIN: Mode
MODE_AVERAGE: Mode
MODE_SUM: Mode
MODE_LP: Mode
LAYOUT_UNSPECIFIED: Layout
LAYOUT_CHANNELS_FIRST: Layout
LAYOUT_CHANNELS_LAST: Layout
NAMED_PADDING_UNSPECIFIED: NamedPadding
NAMED_PADDING_VALID: NamedPadding
NAMED_PADDING_SAME_UPPER: NamedPadding
NAMED_PADDING_SAME_LOWER: NamedPadding
TIE_POLICY_UNSPECIFIED: TiePolicy
TIE_POLICY_FIRST: TiePolicy
TIE_POLICY_ALL: TiePolicy
TIE_POLICY_SPLIT: TiePolicy
NAN_POLICY_UNSPECIFIED: NanPolicy
NAN_POLICY_PROPAGATE: NanPolicy
NAN_POLICY_IGNORE: NanPolicy
NAN_POLICY_ERROR: NanPolicy
INDEX_FORMAT_UNSPECIFIED: IndexFormat
INDEX_FORMAT_WINDOW: IndexFormat
INDEX_FORMAT_PLANE: IndexFormat
INDEX_FORMAT_TENSOR: IndexFormat
DIVISOR_RULE_UNSPECIFIED: DivisorRule
DIVISOR_RULE_VALID_TAPS: DivisorRule
DIVISOR_RULE_PADDED_TAPS: DivisorRule
DIVISOR_RULE_OVERRIDE: DivisorRule
ELEMENT_TYPE_UNSPECIFIED: ElementType
ELEMENT_TYPE_FLOAT16: ElementType
ELEMENT_TYPE_BFLOAT16: ElementType
ELEMENT_TYPE_FLOAT32: ElementType
ELEMENT_TYPE_FLOAT64: ElementType
ELEMENT_TYPE_INT8: ElementType
ELEMENT_TYPE_UINT8: ElementType
ELEMENT_TYPE_INT16: ElementType
ELEMENT_TYPE_UINT16: ElementType
ELEMENT_TYPE_INT32: ElementType
ELEMENT_TYPE_UINT32: ElementType
ELEMENT_TYPE_INT64: ElementType

class ForwardRequest(_message.Message):
    __slots__ = ("spec", "return_indices", "index_format", "output_place", "indices_place", "more", "input")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    RETURN_INDICES_FIELD_NUMBER: _ClassVar[int]
    INDEX_FORMAT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_PLACE_FIELD_NUMBER: _ClassVar[int]
    INDICES_PLACE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    spec: PoolSpec
    return_indices: bool
    index_format: IndexFormat
    output_place: SharedMemory
    indices_place: SharedMemory
    more: _containers.RepeatedCompositeFieldContainer[ForwardLayer]
    input: Tensor
    def __init__(self, spec: _Optional[_Union[PoolSpec, _Mapping]] = ..., return_indices: bool = ..., index_format: _Optional[_Union[IndexFormat, str]] = ..., output_place: _Optional[_Union[SharedMemory, _Mapping]] = ..., indices_place: _Optional[_Union[SharedMemory, _Mapping]] = ..., more: _Optional[_Iterable[_Union[ForwardLayer, _Mapping]]] = ..., input: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class ForwardLayer(_message.Message):
    __slots__ = ("spec", "return_indices", "index_format")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    RETURN_INDICES_FIELD_NUMBER: _ClassVar[int]
    INDEX_FORMAT_FIELD_NUMBER: _ClassVar[int]
    spec: PoolSpec
    return_indices: bool
    index_format: IndexFormat
    def __init__(self, spec: _Optional[_Union[PoolSpec, _Mapping]] = ..., return_indices: bool = ..., index_format: _Optional[_Union[IndexFormat, str]] = ...) -> None: ...

class ForwardLayerResult(_message.Message):
    __slots__ = ("indices", "output")
    INDICES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    indices: Tensor
    output: Tensor
    def __init__(self, indices: _Optional[_Union[Tensor, _Mapping]] = ..., output: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class ForwardResponse(_message.Message):
    __slots__ = ("more", "indices", "output")
    MORE_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    more: _containers.RepeatedCompositeFieldContainer[ForwardLayerResult]
    indices: Tensor
    output: Tensor
    def __init__(self, more: _Optional[_Iterable[_Union[ForwardLayerResult, _Mapping]]] = ..., indices: _Optional[_Union[Tensor, _Mapping]] = ..., output: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class BackwardRequest(_message.Message):
    __slots__ = ("spec", "input_shape", "index_format", "input_gradient_place", "indices", "input", "output_gradient")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INPUT_GRADIENT_PLACE_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_GRADIENT_FIELD_NUMBER: _ClassVar[int]
    spec: PoolSpec
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    index_format: IndexFormat
    input_gradient_place: SharedMemory
    indices: Tensor
    input: Tensor
    output_gradient: Tensor
    def __init__(self, spec: _Optional[_Union[PoolSpec, _Mapping]] = ..., input_shape: _Optional[_Iterable[int]] = ..., index_format: _Optional[_Union[IndexFormat, str]] = ..., input_gradient_place: _Optional[_Union[SharedMemory, _Mapping]] = ..., indices: _Optional[_Union[Tensor, _Mapping]] = ..., input: _Optional[_Union[Tensor, _Mapping]] = ..., output_gradient: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class BackwardResponse(_message.Message):
    __slots__ = ("input_gradient",)
    INPUT_GRADIENT_FIELD_NUMBER: _ClassVar[int]
    input_gradient: Tensor
    def __init__(self, input_gradient: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class ForwardStreamRequest(_message.Message):
    __slots__ = ("id", "timeout_us", "request")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    id: int
    timeout_us: int
    request: ForwardRequest
    def __init__(self, id: _Optional[int] = ..., timeout_us: _Optional[int] = ..., request: _Optional[_Union[ForwardRequest, _Mapping]] = ...) -> None: ...

class ForwardStreamResponse(_message.Message):
    __slots__ = ("id", "error", "response")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: StreamError
    response: ForwardResponse
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ..., response: _Optional[_Union[ForwardResponse, _Mapping]] = ...) -> None: ...

class BackwardStreamRequest(_message.Message):
    __slots__ = ("id", "timeout_us", "request")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    id: int
    timeout_us: int
    request: BackwardRequest
    def __init__(self, id: _Optional[int] = ..., timeout_us: _Optional[int] = ..., request: _Optional[_Union[BackwardRequest, _Mapping]] = ...) -> None: ...

class BackwardStreamResponse(_message.Message):
    __slots__ = ("id", "error", "response")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: StreamError
    response: BackwardResponse
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ..., response: _Optional[_Union[BackwardResponse, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPlanRequest(_message.Message):
    __slots__ = ("spec", "input_shape", "element_type")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    spec: PoolSpec
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    element_type: ElementType
    def __init__(self, spec: _Optional[_Union[PoolSpec, _Mapping]] = ..., input_shape: _Optional[_Iterable[int]] = ..., element_type: _Optional[_Union[ElementType, str]] = ...) -> None: ...

class GetPlanResponse(_message.Message):
    __slots__ = ("output_shape", "output_element_type", "axes", "window_taps", "index_element_type", "divisor_rule")
    OUTPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_TAPS_FIELD_NUMBER: _ClassVar[int]
    INDEX_ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    DIVISOR_RULE_FIELD_NUMBER: _ClassVar[int]
    output_shape: _containers.RepeatedScalarFieldContainer[int]
    output_element_type: ElementType
    axes: _containers.RepeatedCompositeFieldContainer[PlannedAxis]
    window_taps: int
    index_element_type: ElementType
    divisor_rule: DivisorRule
    def __init__(self, output_shape: _Optional[_Iterable[int]] = ..., output_element_type: _Optional[_Union[ElementType, str]] = ..., axes: _Optional[_Iterable[_Union[PlannedAxis, _Mapping]]] = ..., window_taps: _Optional[int] = ..., index_element_type: _Optional[_Union[ElementType, str]] = ..., divisor_rule: _Optional[_Union[DivisorRule, str]] = ...) -> None: ...

class PlannedAxis(_message.Message):
    __slots__ = ("size", "outputs", "kernel", "stride", "dilation", "padding_before", "padding_after")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    DILATION_FIELD_NUMBER: _ClassVar[int]
    PADDING_BEFORE_FIELD_NUMBER: _ClassVar[int]
    PADDING_AFTER_FIELD_NUMBER: _ClassVar[int]
    size: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    padding_before: int
    padding_after: int
    def __init__(self, size: _Optional[int] = ..., outputs: _Optional[int] = ..., kernel: _Optional[int] = ..., stride: _Optional[int] = ..., dilation: _Optional[int] = ..., padding_before: _Optional[int] = ..., padding_after: _Optional[int] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "backends", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    backends: _containers.RepeatedCompositeFieldContainer[Backend]
    limits: Limits
    def __init__(self, version: _Optional[str] = ..., backends: _Optional[_Iterable[_Union[Backend, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Backend(_message.Message):
    __slots__ = ("name", "devices", "modes", "element_types", "index_formats")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_TYPES_FIELD_NUMBER: _ClassVar[int]
    INDEX_FORMATS_FIELD_NUMBER: _ClassVar[int]
    name: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    modes: _containers.RepeatedScalarFieldContainer[Mode]
    element_types: _containers.RepeatedScalarFieldContainer[ElementType]
    index_formats: _containers.RepeatedScalarFieldContainer[IndexFormat]
    def __init__(self, name: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., modes: _Optional[_Iterable[_Union[Mode, str]]] = ..., element_types: _Optional[_Iterable[_Union[ElementType, str]]] = ..., index_formats: _Optional[_Iterable[_Union[IndexFormat, str]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_tensor_bytes", "max_taps", "max_in_flight", "max_in_flight_bytes", "max_connection_streams", "max_connection_age_s", "max_connection_idle_s", "stream_idle_s")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TENSOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TAPS_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_AGE_S_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_IDLE_S_FIELD_NUMBER: _ClassVar[int]
    STREAM_IDLE_S_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_tensor_bytes: int
    max_taps: int
    max_in_flight: int
    max_in_flight_bytes: int
    max_connection_streams: int
    max_connection_age_s: float
    max_connection_idle_s: float
    stream_idle_s: float
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_tensor_bytes: _Optional[int] = ..., max_taps: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., max_in_flight_bytes: _Optional[int] = ..., max_connection_streams: _Optional[int] = ..., max_connection_age_s: _Optional[float] = ..., max_connection_idle_s: _Optional[float] = ..., stream_idle_s: _Optional[float] = ...) -> None: ...

class PoolSpec(_message.Message):
    __slots__ = ("mode", "layout", "sliding_windows", "adaptive_windows", "global_window", "count_include_pad", "divisor_override", "norm_p", "tie_policy", "nan_policy")
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    SLIDING_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_WINDOW_FIELD_NUMBER: _ClassVar[int]
    COUNT_INCLUDE_PAD_FIELD_NUMBER: _ClassVar[int]
    DIVISOR_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    NORM_P_FIELD_NUMBER: _ClassVar[int]
    TIE_POLICY_FIELD_NUMBER: _ClassVar[int]
    NAN_POLICY_FIELD_NUMBER: _ClassVar[int]
    mode: Mode
    layout: Layout
    sliding_windows: SlidingWindows
    adaptive_windows: AdaptiveWindows
    global_window: GlobalWindow
    count_include_pad: bool
    divisor_override: float
    norm_p: float
    tie_policy: TiePolicy
    nan_policy: NanPolicy
    def __init__(self, mode: _Optional[_Union[Mode, str]] = ..., layout: _Optional[_Union[Layout, str]] = ..., sliding_windows: _Optional[_Union[SlidingWindows, _Mapping]] = ..., adaptive_windows: _Optional[_Union[AdaptiveWindows, _Mapping]] = ..., global_window: _Optional[_Union[GlobalWindow, _Mapping]] = ..., count_include_pad: bool = ..., divisor_override: _Optional[float] = ..., norm_p: _Optional[float] = ..., tie_policy: _Optional[_Union[TiePolicy, str]] = ..., nan_policy: _Optional[_Union[NanPolicy, str]] = ...) -> None: ...

class SlidingWindows(_message.Message):
    __slots__ = ("axes", "named_padding", "ceil_mode")
    AXES_FIELD_NUMBER: _ClassVar[int]
    NAMED_PADDING_FIELD_NUMBER: _ClassVar[int]
    CEIL_MODE_FIELD_NUMBER: _ClassVar[int]
    axes: _containers.RepeatedCompositeFieldContainer[Window]
    named_padding: NamedPadding
    ceil_mode: bool
    def __init__(self, axes: _Optional[_Iterable[_Union[Window, _Mapping]]] = ..., named_padding: _Optional[_Union[NamedPadding, str]] = ..., ceil_mode: bool = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("kernel", "stride", "dilation", "padding_before", "padding_after")
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    DILATION_FIELD_NUMBER: _ClassVar[int]
    PADDING_BEFORE_FIELD_NUMBER: _ClassVar[int]
    PADDING_AFTER_FIELD_NUMBER: _ClassVar[int]
    kernel: int
    stride: int
    dilation: int
    padding_before: int
    padding_after: int
    def __init__(self, kernel: _Optional[int] = ..., stride: _Optional[int] = ..., dilation: _Optional[int] = ..., padding_before: _Optional[int] = ..., padding_after: _Optional[int] = ...) -> None: ...

class AdaptiveWindows(_message.Message):
    __slots__ = ("output_sizes",)
    OUTPUT_SIZES_FIELD_NUMBER: _ClassVar[int]
    output_sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, output_sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class GlobalWindow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("element_type", "shape", "shared", "data")
    ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    element_type: ElementType
    shape: _containers.RepeatedScalarFieldContainer[int]
    shared: SharedMemory
    data: bytes
    def __init__(self, element_type: _Optional[_Union[ElementType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., shared: _Optional[_Union[SharedMemory, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("handle", "offset")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    handle: bytes
    offset: int
    def __init__(self, handle: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("code", "message", "reason", "field", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    field: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

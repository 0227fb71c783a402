"""Which ops a SavedModel may hold: a model is a program, so its file is read before it is loaded.

TensorFlow has ops that read and write files, load libraries, call Python and talk to other
machines, and a model that is loaded may run any of them. Those listed here compute on tensors, or
hold what an export holds: variables, tables, lists and the datasets that decode content. Saving and
restoring variables takes ops that touch files, which may stand there and nowhere else.

Nothing here imports TensorFlow's runtime: a SavedModel is parsed, never loaded.
"""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from mmrec_tf.errors import ExportError

_FLOW = """
    Assert Case Const EnsureShape FakeParam Identity IdentityN If NoOp PartitionedCall Placeholder
    PlaceholderWithDefault PreventGradient StatefulPartitionedCall StatelessCase StatelessIf
    StatelessWhile StopGradient ToBool While
"""
_STATE = """
    AssignAddVariableOp AssignSubVariableOp AssignVariableOp DisableCopyOnRead HashTableV2
    LookupTableExportV2 LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2
    MutableHashTableV2 ReadVariableOp ResourceGather ResourceGatherNd VarHandleOp
    VarIsInitializedOp VariableShape
"""
_LISTS = """
    EmptyTensorList TensorListConcatV2 TensorListElementShape TensorListFromTensor
    TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
    TensorListReserve TensorListResize TensorListScatterV2 TensorListSetItem TensorListSplit
    TensorListStack
"""
# Of tensors in memory alone; none reads a file.
_DATASETS = """
    BatchDatasetV2 ConcatenateDataset DatasetToSingleElement IgnoreErrorsDataset MapDataset
    ParallelMapDatasetV2 TensorDataset TensorSliceDataset
"""
_ARITHMETIC = """
    Abs Acos Acosh Add AddN AddV2 All Any ArgMax ArgMin Asin Asinh Atan Atan2 Atanh BatchMatMul
    BatchMatMulV2 BatchMatMulV3 Bincount BitwiseAnd BitwiseOr BitwiseXor Bucketize Cast Ceil
    ClipByValue Complex ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum CumulativeLogsumexp
    DenseBincount Digamma Div DivNoNan Einsum Equal Erf Erfc Erfinv EuclideanNorm Exp Expm1 FFT
    Floor FloorDiv FloorMod Greater GreaterEqual IFFT IRFFT Imag Inv Invert InvertPermutation
    IsFinite IsInf IsNan L2Loss LeftShift Less LessEqual Lgamma LinSpace Log Log1p LogicalAnd
    LogicalNot LogicalOr LowerBound MatMul Max Maximum Mean Min Minimum Mod Mul MulNoNan Ndtri Neg
    NextAfter NotEqual Polygamma Pow Prod RFFT Range Real RealDiv Reciprocal RightShift Rint Round
    Rsqrt SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2 Sigmoid Sign Sin
    Sinh SparseSegmentMean SparseSegmentSqrtN SparseSegmentSum SparseTensorDenseMatMul Sqrt Square
    SquaredDifference Sub Sum Tan Tanh TruncateDiv TruncateMod UnsortedSegmentMax
    UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum UpperBound Xdivy Xlog1py Xlogy
"""
_SHAPES = """
    BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastTo Concat ConcatOffset ConcatV2
    DepthToSpace Diag DiagPart DynamicPartition DynamicStitch ExpandDims Fill Gather GatherNd
    GatherV2 ListDiff MatrixBandPart MatrixDiagPartV3 MatrixDiagV3 MatrixSetDiagV3 MirrorPad OneHot
    OnesLike Pack Pad PadV2 ParallelDynamicStitch RaggedGather RaggedRange RaggedTensorToSparse
    RaggedTensorToTensor Rank Reshape Reverse ReverseSequence ReverseV2 Roll ScatterNd Shape ShapeN
    Size Slice SpaceToBatch SpaceToBatchND SpaceToDepth SparseFillEmptyRows SparseReorder
    SparseReshape SparseToDense Split SplitV Squeeze StridedSlice TensorScatterAdd TensorScatterMax
    TensorScatterMin TensorScatterSub TensorScatterUpdate Tile TopKV2 Transpose Unique UniqueV2
    UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex Where ZerosLike
"""
_NETWORKS = """
    AvgPool AvgPool3D BiasAdd BiasAddV1 Conv2D Conv2DBackpropInput Conv3D DepthwiseConv2dNative
    Dilation2D Elu ExtractImagePatches FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 InTopKV2 LRN
    LeakyRelu LogSoftmax MaxPool MaxPool3D MaxPoolV2 NthElement Relu Relu6 Selu Softmax Softplus
    Softsign
"""
_CONTENT = """
    AdjustContrastv2 AdjustHue AdjustSaturation AsString AudioSpectrogram CropAndResize DecodeBase64
    DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePaddedRaw DecodePng DecodeRaw DecodeWav
    EncodeBase64
    ExtractJpegShape HSVToRGB ImageProjectiveTransformV3 Mfcc RGBToHSV ReduceJoin RegexFullMatch
    RegexReplace ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate
    StaticRegexFullMatch StaticRegexReplace StringFormat StringJoin StringLength StringLower
    StringNGrams StringSplitV2 StringStrip StringToHashBucket StringToHashBucketFast
    StringToHashBucketStrong StringToNumber StringUpper Substr UnicodeDecode
    UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode UnsortedSegmentJoin
"""
ALLOWED = frozenset(
    " ".join((_FLOW, _STATE, _LISTS, _DATASETS, _ARITHMETIC, _SHAPES, _NETWORKS, _CONTENT)).split()
)
# By the parts of a graph that may hold them: nobody who serves runs what writes variables, and what
# reads them back runs when a model is loaded.
_SAVING = frozenset(("MergeV2Checkpoints", "SaveV2", "ShardedFilename"))
_RESTORING = frozenset(("RestoreV2",))
# Read in place of saved_model.pb, or beside it, by TensorFlow.
_OTHER_FORMS = ("saved_model.cpb", "saved_model.pbtxt")


def read_saved_model(folder: str | pathlib.Path) -> Any:
    """Parses a SavedModel without loading it.

    Returns:
      A `SavedModel` message.

    Raises:
      ExportError: when it is missing or damaged, or stands there in another form as well.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    folder = pathlib.Path(folder)
    path = folder / "saved_model.pb"
    others = [name for name in _OTHER_FORMS if (folder / name).exists()]
    if others:
        raise ExportError(
            f"{folder}: wanted saved_model.pb alone; got {others[0]} as well, which TensorFlow "
            'may load in its place. Export again with "mmrec-tf export".'
        )
    try:
        saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise ExportError(
            f'{path}: wanted a SavedModel; {error}. Export again with "mmrec-tf export".'
        ) from error
    if not saved.meta_graphs:
        raise ExportError(f"{path}: wanted a graph; it holds none.")
    return saved


def read_ops(folder: str | pathlib.Path) -> set[str]:
    """The names of all ops in a SavedModel's graphs and functions.

    Raises:
      ExportError: as of `read_saved_model`.
    """
    return _ops_of(read_saved_model(folder))


def other_ops(folder: str | pathlib.Path) -> list[str]:
    """The ops of a SavedModel that no export needs, or that stand where none has them.

    Raises:
      ExportError: as of `read_saved_model`.
    """
    saved = read_saved_model(folder)
    found = _ops_of(saved) - ALLOWED - _SAVING - _RESTORING
    for graph in saved.meta_graphs:
        served, restored = _Parts(graph).run_by_servers()
        found |= served & (_SAVING | _RESTORING) | restored & _SAVING
    return sorted(found)


def require_allowed_ops(folder: str | pathlib.Path) -> None:
    """Refuses a SavedModel that may do more than compute, before it is loaded.

    Raises:
      ExportError: naming its ops, or as of `read_saved_model`.
    """
    if others := other_ops(folder):
        raise ExportError(
            f"{folder}: wanted the ops of an export, which only compute; got {', '.join(others)}. "
            "Do not load a model of others that has such (SECURITY.md)."
        )


def _ops_of(saved: Any) -> set[str]:
    ops: set[str] = set()
    for graph in saved.meta_graphs:
        parts = _Parts(graph)
        ops |= {node.op for node in parts.all_nodes()} - parts.functions.keys()
    return ops


class _Parts:
    """What of a graph runs when."""

    def __init__(self, graph: Any):
        self._graph = graph
        self._nodes = {node.name: node for node in graph.graph_def.node}
        self.functions = {one.signature.name: one for one in graph.graph_def.library.function}

    def all_nodes(self) -> Iterator[Any]:
        """The nodes of the graph and of its functions."""
        yield from self._graph.graph_def.node
        for function in self.functions.values():
            yield from function.node_def

    def run_by_servers(self) -> tuple[set[str], set[str]]:
        """The ops that answering, or being loaded, may run; and those that restore variables."""
        graph = self._graph
        named = [
            tensor.name
            for signature in graph.signature_def.values()
            for tensor in (*signature.inputs.values(), *signature.outputs.values())
        ]
        # Ops that are run at the load are listed in collections.
        for collection in graph.collection_def.values():
            named += list(collection.node_list.value)
        # Called by who loads the model as an object, some of them at once.
        objects = graph.object_graph_def
        called = set(objects.concrete_functions)
        for node in objects.nodes:
            called |= set(node.function.concrete_functions)
            called.add(node.bare_concrete_function.concrete_function_name)
        served = self._reached(named, called)
        saver = graph.saver_def
        return served, self._reached([saver.restore_op_name, saver.filename_tensor_name], ())

    def _reached(self, tensors: Iterable[str], functions: Iterable[str]) -> set[str]:
        """The ops that these tensors of the graph and these functions need."""
        ops: set[str] = set()
        waiting = [_node_of(name) for name in tensors]
        met = set(waiting)
        called = {name for name in functions if name in self.functions}
        while waiting:
            node = self._nodes.get(waiting.pop())
            if node is None:
                continue
            ops.add(node.op)
            called |= self._calls(node)
            new = {_node_of(name) for name in node.input} - met
            met |= new
            waiting += new
        pending = list(called)
        while pending:
            for node in self.functions[pending.pop()].node_def:
                ops.add(node.op)
                new = self._calls(node) - called
                called |= new
                pending += new
        return ops

    def _calls(self, node: Any) -> set[str]:
        return ({node.op} | set(_functions_in(node.attr))) & self.functions.keys()


def _functions_in(attributes: Any) -> Iterator[str]:
    """Functions that attributes name, and those among the attributes of these."""
    for value in attributes.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
                yield from _functions_in(function.attr)


def _node_of(tensor: str) -> str:
    """The node of a tensor, such as "add" of "add:0" or "^add"."""
    return tensor.removeprefix("^").partition(":")[0]

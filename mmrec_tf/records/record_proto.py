"""What stands in one record: a `tf.train.Example` and its parts.

The message is declared here once more, field for field as in TensorFlow's `example.proto` and
`feature.proto`, so that writing needs no TensorFlow: preparation writes in many processes, and
TensorFlow takes seconds and hundreds of megabytes in each.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from mmrec_tf.errors import DatasetError

_PACKAGE = "mmrec_tf.records"

# One value of a modality: text, bytes of a picture or sound, or <float32>[dim]; and what an item
# has of a modality: one value, or several in order.
Value = str | bytes | np.ndarray
Content = Value | Sequence[Value]


def _declare() -> tuple[Any, Any]:
    """The classes `Example` and `Feature`, in a pool of their own beside TensorFlow's."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="mmrec_tf/records/example.proto", package=_PACKAGE, syntax="proto3"
    )

    def message(name: str) -> Any:
        return file.message_type.add(name=name)

    def field(
        parent: Any,
        name: str,
        number: int,
        *,
        type_: Any,
        of: str = "",
        many: bool = False,
        **options: Any,
    ) -> None:
        label = kind.LABEL_REPEATED if many else kind.LABEL_OPTIONAL
        type_name = f".{_PACKAGE}.{of}" if of else None
        parent.field.add(
            name=name, number=number, type=type_, type_name=type_name, label=label, **options
        )

    lists = (
        ("BytesList", kind.TYPE_BYTES),
        ("FloatList", kind.TYPE_FLOAT),
        ("Int64List", kind.TYPE_INT64),
    )
    for name, type_ in lists:
        field(message(name), "value", 1, type_=type_, many=True)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, field_name) in enumerate(
        (("BytesList", "bytes_list"), ("FloatList", "float_list"), ("Int64List", "int64_list")), 1
    ):
        field(feature, field_name, number, type_=kind.TYPE_MESSAGE, of=name, oneof_index=0)
    features = message("Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, type_=kind.TYPE_STRING)
    field(entry, "value", 2, type_=kind.TYPE_MESSAGE, of="Feature")
    of = "Features.FeatureEntry"
    field(features, "feature", 1, type_=kind.TYPE_MESSAGE, of=of, many=True)
    field(message("Example"), "features", 1, type_=kind.TYPE_MESSAGE, of="Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    example, feature_class = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in ("Example", "Feature")
    )
    return example, feature_class


_Example, _Feature = _declare()


def bytes_feature(*values: str | bytes) -> Any:
    """Strings, as UTF-8, or runs of bytes."""
    data = [value.encode("utf-8") if isinstance(value, str) else value for value in values]
    return _Feature(bytes_list={"value": data})


def integers_feature(values: Sequence[int] | np.ndarray) -> Any:
    """Integers, <int64>[value]."""
    return _Feature(int64_list={"value": np.asarray(values, np.int64).tolist()})


def floats_feature(values: Sequence[float] | np.ndarray) -> Any:
    """Numbers, <float32>[value]."""
    return _Feature(float_list={"value": np.asarray(values, np.float32).tolist()})


def side_features(features: Mapping[str, Sequence[int] | float | None] | None) -> dict[str, Any]:
    """Side features as parts of a record; a missing number is left out."""
    parts = {}
    for name, value in (features or {}).items():
        if isinstance(value, (int, float, np.floating)):
            parts[f"feature/{name}"] = floats_feature([value])
        elif value is not None:
            parts[f"feature/{name}"] = integers_feature(value)
    return parts


def list_values(content: Content) -> list[Value]:
    """The values of a modality that one item has, in order; one alone is the only one."""
    if isinstance(content, str | bytes) or (isinstance(content, np.ndarray) and content.ndim == 1):
        return [content]
    return list(content)


def item_record(
    number: int,
    item_id: str,
    *,
    content: Mapping[str, Content] | None = None,
    features: Mapping[str, Sequence[int] | float | None] | None = None,
) -> bytes:
    """One item as a record.

    Args:
      number: the item's number, 0 to the number of items - 1.
      item_id: unique.
      content: by modality: text as a string, picture or sound as bytes, or <float32>[dim]; or a
        list of such. Modalities that the item lacks are left out, or have an empty list.
      features: by name: numbers of categories (1 and up for those out of vocabulary, then
        `FeatureSpec.vocabulary`), or one standardised number; None where missing.
    """
    parts = {"item": integers_feature([number]), "item_id": bytes_feature(item_id)}
    for name, given in (content or {}).items():
        values = list_values(given)
        if values and isinstance(values[0], np.ndarray):
            parts[name] = floats_feature(_join_vectors(values, f"item {item_id!r}: {name}"))
        elif values:
            parts[name] = bytes_feature(*cast("list[str | bytes]", values))
    return serialize(parts | side_features(features))


def _join_vectors(values: Sequence[Any], where: str) -> np.ndarray:
    if len({np.shape(value) for value in values}) > 1:
        raise DatasetError(
            f"{where}: wanted vectors of one length; got {[len(value) for value in values]}. Give "
            "each of its vectors as many numbers."
        )
    return np.concatenate(values)


def serialize(parts: Mapping[str, Any]) -> bytes:
    """A record's bytes; equal parts give equal bytes."""
    example = _Example()
    for name, value in parts.items():
        example.features.feature[name].CopyFrom(value)
    # Maps serialize in any order unless told otherwise.
    return example.SerializeToString(deterministic=True)


def parse(record: bytes) -> Any:
    """The inverse of `serialize`: a message like `tf.train.Example`.

    Raises:
      ValueError: for bytes that are no such message.
    """
    try:
        return _Example.FromString(record)
    except DecodeError as error:
        raise ValueError(str(error)) from error

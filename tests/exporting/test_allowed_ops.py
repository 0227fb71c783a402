"""A SavedModel is judged by its file, before anything of it is loaded."""

import os
import pathlib

import pytest
import tensorflow as tf
from support import toy_export
from tensorflow.core.protobuf import saved_model_pb2

from mmrec_tf.errors import ExportError, ServingError
from mmrec_tf.exporting.allowed_ops import other_ops, require_allowed_ops
from mmrec_tf.exporting.checksums import CHECKSUMS_FILE, compare_checksums, write_checksums
from mmrec_tf.exporting.verify import verify
from serving.check.__main__ import main as check_command
from serving.local_server import LocalServer

NUMBERS = [tf.TensorSpec([None], tf.float32, name="x")]


def saved(folder: pathlib.Path, function, *, signature="serving_default") -> pathlib.Path:
    """A SavedModel of one function of x, which holds a variable."""
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    module.call = tf.function(lambda x: {"y": function(x) * module.weight}, input_signature=NUMBERS)
    tf.saved_model.save(module, str(folder), signatures={signature: module.call})
    return folder


def writing(path):
    def function(x):
        with tf.control_dependencies([tf.io.write_file(str(path), "written")]):
            return tf.identity(x)

    return function


def saving(path):
    """By the op with which every export saves its variables."""

    def function(x):
        done = tf.raw_ops.SaveV2(
            prefix=str(path), tensor_names=["x"], shape_and_slices=[""], tensors=[x]
        )
        with tf.control_dependencies([done]):
            return tf.identity(x)

    return function


def test_exports_have_allowed_ops_only(exported):
    for name in ("recommender", "encoder"):
        assert other_ops(exported / name / "1") == []


def test_a_plain_model_may_save_and_restore_its_variables(tmp_path):
    require_allowed_ops(saved(tmp_path / "1", lambda x: x))


@pytest.mark.parametrize(("function", "op"), [(writing, "WriteFile"), (saving, "SaveV2")])
def test_a_model_that_writes_files_is_refused_unread(tmp_path, function, op):
    out = tmp_path / "out"
    folder = saved(tmp_path / "model" / "1", function(out))
    with pytest.raises(ExportError, match=f"which only compute; got .*{op}"):
        verify(folder)
    with pytest.raises(ServingError, match=f"PERMISSION_DENIED: .*{op}"):
        LocalServer(tmp_path, rest_port=None).start()
    assert not list(tmp_path.glob("out*"))


def test_it_may_be_loaded_by_who_trusts_it(tmp_path):
    saved(tmp_path / "model" / "1", writing(tmp_path / "out"))
    with LocalServer(tmp_path, rest_port=None, allow_other_ops=True) as server:
        assert server.models == ["model/1"]


def test_a_function_that_is_called_through_others_is_found(tmp_path):
    inner = tf.function(writing(tmp_path / "out"))

    def branch(x):
        return tf.cond(tf.size(x) > 10_000, lambda: inner(x), lambda: x)

    assert other_ops(saved(tmp_path / "1", tf.function(branch))) == ["WriteFile"]


def edited(folder: pathlib.Path, change) -> pathlib.Path:
    path = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(message.meta_graphs[0])
    path.write_bytes(message.SerializeToString())
    return folder


def test_saving_may_not_hide_behind_an_answer(tmp_path):
    """The function that saves is there in every export; here an output waits for it."""

    def change(graph):
        saver = graph.saver_def.save_tensor_name.partition(":")[0]
        (output,) = graph.signature_def["serving_default"].outputs.values()
        name = output.name.partition(":")[0]
        (node,) = (node for node in graph.graph_def.node if node.name == name)
        node.input.append(f"^{saver}")

    folder = edited(saved(tmp_path / "1", lambda x: x), change)
    assert "SaveV2" in other_ops(folder)


def test_saving_may_not_hide_behind_restoring(tmp_path):
    def change(graph):
        graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.partition(":")[0]

    folder = edited(saved(tmp_path / "1", lambda x: x), change)
    assert "SaveV2" in other_ops(folder)


def test_restoring_may_not_be_part_of_an_answer(tmp_path):
    def function(x):
        return (
            x
            + tf.raw_ops.RestoreV2(
                prefix="/etc/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
            )[0]
        )

    assert other_ops(saved(tmp_path / "1", function)) == ["RestoreV2"]


def test_a_second_graph_and_another_form_are_looked_at(tmp_path):
    folder = saved(tmp_path / "1", lambda x: x)
    path = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    message.meta_graphs.add().graph_def.node.add(name="read", op="ReadFile")
    path.write_bytes(message.SerializeToString())
    assert other_ops(folder) == ["ReadFile"]
    (folder / "saved_model.cpb").write_bytes(b"")
    with pytest.raises(ExportError, match="got saved_model.cpb as well"):
        other_ops(folder)


def test_the_check_tells_of_it_and_loads_nothing(tmp_path, capsys):
    class Writes(toy_export.Encoder):
        @tf.function(
            input_signature=[
                toy_export.spec(toy_export.STRINGS, "text"),
                toy_export.spec(toy_export.STRINGS, "image"),
            ]
        )
        def embed_item(self, text, image):
            with tf.control_dependencies([tf.io.write_file(str(tmp_path / "out"), "x")]):
                return toy_export.Encoder.embed_item.python_function(self, text, image)

    toy_export.export(tmp_path / "export", "encoder", 1, Writes())
    (tmp_path / "out").unlink()  # What wrote the examples has run it.
    assert check_command([str(tmp_path / "export")]) == 1
    out = capsys.readouterr().out
    assert "FAIL  encoder/1 has ops of an export only: " in out and "others: WriteFile" in out
    assert not (tmp_path / "out").exists()


# Hashes


def test_an_export_lists_the_hashes_of_its_files(exported):
    for name in ("recommender", "encoder"):
        folder = exported / name / "1"
        lines = (folder / CHECKSUMS_FILE).read_text().splitlines()
        files = {path for path in folder.rglob("*") if path.is_file()}
        assert {folder / line[66:] for line in lines} == files - {folder / CHECKSUMS_FILE}
        assert compare_checksums(folder) == []
        assert os.system(f"cd '{folder}' && sha256sum --check --quiet {CHECKSUMS_FILE}") == 0


def test_what_was_changed_left_out_or_added_is_named(tmp_path):
    for name in ("a", "b", "sub/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path)
    (tmp_path / f"{CHECKSUMS_FILE}.sig").write_text("a signature")
    assert compare_checksums(tmp_path) == []
    (tmp_path / "a").write_text("other")
    (tmp_path / "b").unlink()
    (tmp_path / "sub/d").symlink_to("c")
    assert compare_checksums(tmp_path) == [
        "a: has changed",
        "b: is missing",
        "sub/d: is not of this export",
    ]
    (tmp_path / CHECKSUMS_FILE).write_text("hello\n")
    with pytest.raises(ExportError, match="wanted lines as of sha256sum; got 'hello'"):
        compare_checksums(tmp_path)


def test_the_check_compares_the_hashes_where_there_are_any(tmp_path, capsys):
    folder = toy_export.export(tmp_path, "encoder", 1, toy_export.Encoder())
    write_checksums(folder)
    (folder / "assets.extra/notes.txt").write_text("hello")
    assert check_command([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  encoder/1 has the files that were published, by SHA256SUMS: " in out
    assert "assets.extra/notes.txt: is not of this export" in out

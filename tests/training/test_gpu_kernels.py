"""A step's ops all have a GPU kernel, so that no tensor travels to the CPU and back in it."""

import tensorflow as tf
from support import small_world
from tensorflow.python.framework import kernels

from mmrec_tf import RetrievalModel


def without_gpu_kernel(definition):
    """The ops of a graph and of its functions, with their types, that run on the CPU alone."""
    functions = definition.library.function
    nodes = [*definition.node, *(node for function in functions for node in function.node_def)]
    found = set()
    for node in nodes:
        listed = kernels.get_registered_kernels_for_op(node.op).kernel
        # What has no kernel at all, such as a call, is taken apart before it runs.
        if listed and not any(fits_gpu(kernel, node) for kernel in listed):
            types = sorted(tf.dtypes.as_dtype(a.type).name for a in node.attr.values() if a.type)
            found.add(f"{node.op}({', '.join(types)})")
    return found


def fits_gpu(kernel, node):
    return kernel.device_type in ("GPU", "DEFAULT") and all(
        node.attr[one.name].type in one.allowed_values.list.type
        for one in kernel.constraint
        if one.allowed_values.list.type
    )


def test_what_runs_on_the_cpu_alone_is_found():
    @tf.function(input_signature=[tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.string)])
    def both(number, text):
        return number + 1, tf.strings.length(text)

    found = without_gpu_kernel(both.get_concrete_function().graph.as_graph_def())
    assert found == {"StringLength()"}


def test_a_step_of_retrieval_stays_on_the_gpu(dataset):
    more = {"retrieval__sampling_correction": "streaming", "retrieval__memory_size": 40}
    config = small_world.config(**small_world.VECTORS, **more)
    model = RetrievalModel(config, dataset, cache=None)
    model.compile()
    model.optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step, autograph=False)
    traced = step.get_concrete_function(model.batches("train").element_spec)
    assert without_gpu_kernel(traced.graph.as_graph_def()) == set()

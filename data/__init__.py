"""The programs that make dataset directories; the command is `python -m data.prepare`."""

from mmrec_tf.errors import answer_interrupts

answer_interrupts("data")

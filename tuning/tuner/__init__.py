"""KerasTuner's loop over trials, in one process or in a chief and workers.

`tuner` is the Tuner and the HyperModel, `search` a tuner over a dataset with its folder, and
`chief` KerasTuner's server of trials, and the processes of `--workers`.
"""

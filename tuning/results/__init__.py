"""What a search found, for programs and for people.

`table` are the files, `importance` that of each setting, `board` is for TensorBoard, `report` a
page, and `retrain` the best config on its own.
"""

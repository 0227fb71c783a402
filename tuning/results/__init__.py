"""What a search found, for programs and for people.

`table` are the files, `importance` that of each setting, `board` is for TensorBoard, and `report` a
page.
"""

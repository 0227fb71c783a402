"""The first stage: two towers under a softmax over items, and the index that searches them."""

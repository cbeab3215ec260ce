"""A suite of two rows, quickly trained on the store of `write_small_store`."""

SUITE = """
title = "Two | ways"
source = "Nobody & sons"
columns = ["acc1", ">10.map"]
groups = "5,10"
[settings]
epochs = 3
batch_size = 8
learning_rate = 1e-3
head = "nonlinear:hidden=16"
[[rows]]
name = "plain_1"
published.toy = [0.5, -1]
[[rows]]
name = "balanced"
balance = "balanced-softmax"
"""

"""The layers of networks: each written once, on Secret, forward and backward side by side."""

from masque.ml.layers.activations import Relu, Sigmoid, Tanh
from masque.ml.layers.base import Batch, Layer, Parameter, Tape
from masque.ml.layers.convolution import Conv2d
from masque.ml.layers.dense import Dense
from masque.ml.layers.normalization import BatchNorm
from masque.ml.layers.pooling import AveragePool, MaxPool
from masque.ml.layers.shaping import Dropout, Flatten

__all__ = [
    "AveragePool",
    "Batch",
    "BatchNorm",
    "Conv2d",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "MaxPool",
    "Parameter",
    "Relu",
    "Sigmoid",
    "Tanh",
    "Tape",
]

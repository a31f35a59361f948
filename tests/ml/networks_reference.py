"""Training of networks in float64 numpy: what training on shares is held against.

Public choices are the same: how parameters start, which rows a mini-batch has, what dropout keeps.
Everything else is written anew, without limits, scales or rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from masque.ml import rows
from masque.ml.layers import Dropout
from masque.ml.learning import kept
from masque.ml.network import Adam, Network, Sgd
from masque.ml.task import Task

from . import reference
from .layers_reference import Pass, Reals, backward, forward

Parameters = dict[str, Reals]
RUNNING = ("mean", "variance")
ADAM_CLIP = 1.0


def initial(task: Task) -> Parameters:
    """As the public seed has them."""
    return dict(network_of(task).initial(task.seed))


def network_of(task: Task) -> Network:
    """The network of a task that has one."""
    assert task.network is not None
    return task.network


def passes(
    network: Network, parameters: Mapping[str, Reals], x: Reals, keeps: Mapping[int, Reals] | None
) -> tuple[Reals, list[Pass]]:
    """Scores of flat rows; `keeps`: what dropout layers multiply by, None outside of training."""
    x = x.reshape(len(x), *network.input_shape)
    found = []
    for index, layer in enumerate(network.layers):
        prefix = f"{index}."
        own = {k.removeprefix(prefix): v for k, v in parameters.items() if k.startswith(prefix)}
        found.append(Pass(own, keeps is not None, (keeps or {}).get(index)))
        x = forward(layer, x, found[-1])
    return x, found


def scores(network: Network, parameters: Mapping[str, Reals], x: Reals) -> Reals:
    """Of flat rows, after training."""
    return passes(network, parameters, x, None)[0]


def gradients(
    task: Task, parameters: Parameters, x: Reals, y: Reals, keeps: Mapping[int, Reals]
) -> tuple[Parameters, Parameters]:
    """Of the mean loss of a mini-batch by trained parameters, and the running ones after it."""
    network = network_of(task)
    z, tapes = passes(network, parameters, x, keeps)
    dz = (reference.predictions(task, z) - y) / len(x)
    found: Parameters = {}
    for index in reversed(range(len(network.layers))):
        dz, by_name = backward(network.layers[index], dz, tapes[index])
        for name in by_name.keys() & tapes[index].parameters.keys():
            shrunk = task.l2 * tapes[index].parameters[name] if name == "weight" else 0.0
            found[f"{index}.{name}"] = by_name[name] + shrunk
    running = {f"{i}.{k}": v for i, tape in enumerate(tapes) for k, v in tape.updates.items()}
    return found, running


def loss(
    task: Task, parameters: Parameters, x: Reals, y: Reals, keeps: Mapping[int, Reals]
) -> float:
    """What `gradients` is the gradient of: half the mean squared error, or the mean log-loss."""
    z, _ = passes(network_of(task), parameters, x, keeps)
    value = data_loss(task, z, y) / (2 if task.kind == "linear" else 1)
    weights = [w for name, w in parameters.items() if name.endswith(".weight")]
    return value + task.l2 / 2 * sum(float((w**2).sum()) for w in weights)


def data_loss(task: Task, z: Reals, y: Reals) -> float:
    """Mean squared error or mean log-loss of scores."""
    p = reference.predictions(task, z)
    if task.kind == "linear":
        return float(np.mean((p - y) ** 2))
    right = (p * y).sum(axis=1) if task.kind == "softmax" else np.where(y > 0.5, p, 1 - p)
    return float(-np.mean(np.log(np.maximum(right, 1e-30))))


def keeps_of(task: Task, step: int, batch: int) -> dict[int, Reals]:
    """What dropout layers multiply by in a step, counted from 0 over all epochs."""
    network = network_of(task)
    shapes = network.shapes()
    return {
        index: kept(task.seed, step, index, (batch, *shapes[index]), layer.rate) / (1 - layer.rate)
        for index, layer in enumerate(network.layers)
        if isinstance(layer, Dropout)
    }


# -- optimisers --------------------------------------------------------------------------------


@dataclass
class State:
    """What an optimiser remembers of every parameter."""

    velocity: Parameters = field(default_factory=dict)
    mean: Parameters = field(default_factory=dict)
    square: Parameters = field(default_factory=dict)


def moved(
    task: Task, w: Parameters, found: Parameters, state: State, rate: float, t: int
) -> Parameters:
    """Parameters after step t = 1, 2, ... with these gradients."""
    rule = task.optimizer or Sgd()
    step = adam if isinstance(rule, Adam) else sgd
    return {name: w[name] + step(task, name, found[name], w, state, rate, t) for name in found}


def limited(task: Task, name: str, gradient: Reals, w: Parameters, limit: float | None) -> Reals:
    """Clipping is of the gradient of the data alone: l2 is added after it."""
    shrinking = task.l2 * w[name] if name.endswith(".weight") else 0.0
    data = gradient - shrinking
    return np.asarray((data if limit is None else np.clip(data, -limit, limit)) + shrinking)


def sgd(
    task: Task, name: str, gradient: Reals, w: Parameters, state: State, rate: float, t: int
) -> Reals:
    """v <- momentum v - rate gradient."""
    del t
    assert isinstance(task.optimizer, Sgd | None)
    momentum = task.optimizer.momentum if task.optimizer else 0.0
    gradient = limited(task, name, gradient, w, task.gradient_clip)
    state.velocity[name] = momentum * state.velocity.get(name, 0.0) - rate * gradient
    return state.velocity[name]


def adam(
    task: Task, name: str, gradient: Reals, w: Parameters, state: State, rate: float, t: int
) -> Reals:
    """Kingma and Ba, algorithm 1 in the order of section 2, epsilon inside of the root."""
    assert isinstance(task.optimizer, Adam)
    b1, b2, epsilon = task.optimizer.beta1, task.optimizer.beta2, task.optimizer.epsilon
    g = limited(task, name, gradient, w, task.gradient_clip or ADAM_CLIP)
    m = state.mean[name] = b1 * state.mean.get(name, 0.0) + (1 - b1) * g
    v = state.square[name] = b2 * state.square.get(name, 0.0) + (1 - b2) * g**2
    corrected = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
    return np.asarray(-corrected * m / np.sqrt(v + epsilon**2))


# -- training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Twin:
    """A float64 training: data as the network reads them, and parameters after every epoch."""

    x: Reals
    y: Reals
    epochs: list[Parameters]

    def losses(self, task: Task, part: int) -> list[float]:
        """After every epoch, on rows (0: held out, 1: validation, 2: training)."""
        chosen = rows.split(task)[part]
        return [
            data_loss(task, scores(network_of(task), w, self.x[chosen]), self.y[chosen])
            for w in self.epochs
        ]


def data(task: Task, table: Reals) -> tuple[Reals, Reals]:
    """Features as the network reads them, and labels."""
    x, y = table[:, : task.features], table[:, task.features :]
    if task.standardize:
        measured = np.delete(x, rows.split(task)[0], axis=0)
        x = (x - measured.mean(axis=0)) / np.maximum(measured.std(axis=0), 2.0**-10)
    return x, y


def fit(task: Task, table: Reals) -> Twin:
    """Train; early stopping as the linear models' twin has it."""
    x, y = data(task, table)
    twin = Twin(x, y, [])
    best, since = np.inf, 0
    for w in _epochs(task, x, y):
        twin.epochs.append(w)
        if task.early_stop:
            value = twin.losses(task, 1)[-1]
            improved = value < best - task.early_stop.min_delta
            best, since = (value, 0) if improved else (best, since + 1)
            if since >= task.early_stop.patience:
                break
    return twin


def _epochs(task: Task, x: Reals, y: Reals) -> Iterator[Parameters]:
    w, state, step = initial(task), State(), 0
    for epoch, rate in enumerate(task.learning_rates):
        for batch in rows.batches(task, epoch):
            keeps = keeps_of(task, step, batch.size)
            found, running = gradients(task, w, x[batch], y[batch], keeps)
            step += 1
            w = moved(task, w, found, state, rate, step) | running
        yield w

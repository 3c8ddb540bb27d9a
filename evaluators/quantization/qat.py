"""Fine-tune weights and ranges of an int8 graph with its own Q/DQ operators (quantization-aware training).

The student is the int8 graph itself, replayed in torch; the teacher is the same network in fp32 (self-distillation,
Hinton et al. 2015; fake quantization: Jacob et al. 2018). The result is the same plan with other weights and ranges,
so that the graph has the operators that were timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from onnx import ModelProto
from torch import nn

from evaluators.quantization.qdq import WEIGHTED, QuantizationPlan, initializers, list_quantized
from evaluators.quantization.torch_graph import TorchGraph
from evaluators.training.batches import Batch, BatchSource, device
from evaluators.training.jobs import LadderConfig, TrainingRecipe
from evaluators.training.trainer import distillation, train
from remote.device import Int8Recipe
from spaces.operations.sparse import hold_zeros, is_sparse

# Adam changes every parameter by about the learning rate, whatever its gradient: weights by a small fraction of their
# value, and the logarithm of a range's end by this factor more.
RANGE_PACE = 100.0


class TrainableGraph(nn.Module):
    """Represent an int8 graph whose weights, biases and activation ranges are parameters."""

    def __init__(self, plan: QuantizationPlan) -> None:
        super().__init__()
        nodes = [node for node in plan.plain.graph.node if node.op_type in WEIGHTED]
        values = initializers(plan.plain, [name for node in nodes for name in node.input[1:]])
        self.names = list(values)
        self.values = nn.ParameterList(torch.from_numpy(values[name].copy()) for name in self.names)
        graph = plan.graph()
        for weight in filter(is_sparse, self.values):
            hold_zeros(weight)
        self.replay = TorchGraph(graph, device(), steps=largest_step(plan.recipe))
        self.cut = [name for name in list_quantized(graph) if name in plan.ranges]
        self.register_buffer("whole", torch.tensor([plan.ranges[name] for name in self.cut]).reshape(-1, 2))
        self.paces = nn.Parameter(torch.zeros(len(self.cut), 2))
        self.to(device())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of normalised images, float32 (N, 3, H, W)."""
        self.replay.free = dict(zip(self.names, self.values, strict=True))
        self.replay.ends = {name: (low, high) for name, (low, high) in zip(self.cut, self.ends(), strict=True)}
        return self.replay(images)

    def ends(self) -> torch.Tensor:
        """Return the least and the greatest value of every range, (tensors, 2)."""
        return self.get_buffer("whole") * torch.exp(RANGE_PACE * self.paces)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the current weights and biases, by initializer."""
        return {name: value.detach().cpu().numpy() for name, value in zip(self.names, self.values, strict=True)}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the current ranges, by tensor."""
        return {name: (low, high) for name, (low, high) in zip(self.cut, self.ends().tolist(), strict=True)}


def largest_step(recipe: Int8Recipe) -> int:
    """Return the integer to which the largest weight of a channel is quantized."""
    return 64 if recipe.weight_bits == 7 else 127


def tune(
    plan: QuantizationPlan,
    plain: ModelProto,
    feed: BatchSource,
    ladder: LadderConfig,
    progress: Callable[[int, int, float], None] | None = None,
) -> QuantizationPlan:
    """Tune the weights and ranges of a plan by quantization-aware training.

    Args:
        plan: Int8 plan.
        plain: Float32 ModelProto of the same network, the teacher.
        feed: Training images.
        ladder: Configuration with epochs and learning rate.
        progress: Called with epoch, step and loss after each step.

    Returns:
        The plan with tuned weights and ranges.

    Raises:
        UnknownOperatorError: The graph can't be replayed in torch.
        TrainingFailedError: The training diverged.
    """
    recipe: TrainingRecipe = replace(
        feed.recipe, weight_decay=0.0
    )  # weight decay would shrink weights, and batch norm is folded and no longer undoes that
    teacher, student = TorchGraph(plain, device()), TrainableGraph(plan)

    def loss_of(out: torch.Tensor, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            taught = teacher(batch.pixels)
        # train against fp32 logits only: with labels, a few hundred images would be memorised
        return distillation(out, taught, recipe.temperature)

    random = np.random.default_rng([recipe.seed, 2])
    train(
        student,
        replace(feed, recipe=recipe),
        loss_of=loss_of,
        epochs=ladder.qat_epochs,
        lr=ladder.qat_lr,
        random=random,
        progress=progress or (lambda epoch, step, loss: None),
    )
    learned = replace(plan, ranges={**plan.ranges, **student.ranges()})
    return learned.with_weights(student.weights())

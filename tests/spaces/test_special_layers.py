"""Layers of a kind of their own are left as they are, and networks in branches are deployed folded."""

import copy

import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from evaluators.stages.structure import measure
from spaces.candidate import Candidate, UnbuildableError
from spaces.folding import fold, fold_for_export, in_branches
from spaces.network import apply_steps, build, head_name
from spaces.operations import lowrank, sparse
from spaces.plain_layers import is_plain
from tests.lightest import every_family

CLASSES = 7
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
TIMM = [
    *((name, 160) for name in ("test_vit",)),
    *((name, 64) for name in ("test_nfnet", "test_efficientnet", "test_convnext", "test_mambaout", "test_byobnet")),
    *((name, 32) for name in ("ghostnet_050", "mobilevitv2_050", "mobilenetv4_conv_small_035")),
]
SMALL, LARGE = 10_000, 100_000  # weights of a layer that is taken apart in a moment, and of one that takes long


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small layers take many times as long where threads wait for a core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Standardised(nn.Conv2d):
    """A convolution that computes with other weights than it has."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def hooked():
    layer = nn.Conv2d(16, 16, 1)
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def overridden():
    layer = nn.Linear(16, 16)
    layer.forward = lambda x: x + 1
    return layer


SPECIAL = {
    "standardised": lambda: Standardised(16, 16, 1),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(16, 16, 1)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(16, 16)),
    "old weight norm": lambda: nn.utils.weight_norm(nn.Linear(16, 16)),
    "hooked": hooked,
    "another forward": overridden,
    "grouped": lambda: nn.Conv2d(16, 16, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(16, 16, 3),
}
KEPT = {
    "dilated": lambda: nn.Conv2d(16, 16, 3, dilation=2),
    "reflecting": lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
    "same": lambda: nn.Conv2d(16, 16, 3, padding="same"),
    "padded 1x1": lambda: nn.Conv2d(16, 16, 1, padding=1),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", [*SPECIAL, *KEPT])
def test_full_rank_computes_the_same_whatever_the_layer(kind):
    torch.manual_seed(0)
    layer = (SPECIAL | KEPT)[kind]().eval()
    x = torch.randn(2, 16) if "Linear" in type(layer).__name__ else torch.randn(2, 16, 9, 9)
    with torch.no_grad():
        wanted = layer(x)
        assert torch.allclose(lowrank.decompose(layer, (16, 16))(x), wanted, atol=1e-4)
    assert is_plain(layer) == (kind in KEPT or kind == "grouped")


def decompose_whole(net, px):
    """Take apart the small layers, and the smallest of each geometry, at full rank; how many there were."""
    layers = {name: net.get_submodule(name) for name in lowrank.eligible(net, torch.zeros(1, 3, px, px))}
    layers = {name: layer for name, layer in layers.items() if layer.weight.numel() <= LARGE}
    smallest = {}
    for name in sorted(layers, key=lambda name: -layers[name].weight.numel()):
        smallest[str(layers[name]).partition("kernel")[2], layers[name].weight.dim()] = name
    chosen = [name for name, layer in layers.items() if layer.weight.numel() <= SMALL or name in smallest.values()]
    for name in chosen:
        net.set_submodule(name, lowrank.decompose(layers[name], lowrank.ranks_of(layers[name], 0.0, 1)))
    return len(chosen)


def check_full_rank(family, variant, px):
    torch.manual_seed(0)
    net, x = build(family, variant, CLASSES, px).eval(), torch.randn(1, 3, px, px)
    with torch.no_grad():
        before = net(x)
        assert decompose_whole(net, px) or variant == "test_nfnet"  # all its convolutions are standardised
        after = net(x)
    assert (after - before).norm() <= 1e-3 * before.norm().clamp(min=1e-6)


@pytest.mark.parametrize("family, variant", every_family())
def test_every_familys_function_is_kept_at_full_rank(family, variant):
    check_full_rank(family, variant, 32)


@pytest.mark.parametrize("variant, px", TIMM)
def test_timms_networks_functions_are_kept_at_full_rank(variant, px):
    pytest.importorskip("timm", reason="the extra timm is not installed")
    check_full_rank("timm", variant, px)


def test_a_transformer_is_taken_apart_and_cheaper():
    pytest.importorskip("timm", reason="the extra timm is not installed")
    net = apply_steps(build("timm", "test_vit", CLASSES, 160), [("lowrank", 0.5)], 160, CLASSES)
    assert net.eval()(torch.zeros(1, 3, 160, 160)).shape == (1, CLASSES)


def test_a_network_that_looks_into_its_layers_is_this_candidates_failure():
    class Curious(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mid = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 1)
            self.fc = nn.Linear(64, CLASSES)

        def forward(self, x):
            return self.fc(self.mid(self.conv(x)).mean((2, 3)) * self.mid.weight.mean())

    with pytest.raises(UnbuildableError, match=r"lowrank 0\.9: AttributeError") as caught:
        apply_steps(Curious(), [("lowrank", 0.9)], 32, CLASSES)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_only_plain_layers_become_sparse():
    layers = [make() for kind, make in SPECIAL.items()]
    net = nn.Sequential(*layers, plain := nn.Conv2d(16, 16, 1), nn.Linear(16, CLASSES))
    assert sparse.eligible(net) == [plain]


class Branches(nn.Module):
    """Two convolutions side by side, which are one at deployment; `wrong` makes them another."""

    def __init__(self, wrong=False):
        super().__init__()
        self.three, self.one, self.wrong = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), wrong

    def forward(self, x):
        return self.three(x) + self.one(x)

    def fuse(self):
        made = nn.Conv2d(8, 8, 3, padding=1)
        made.load_state_dict(self.three.state_dict())
        made.weight.data[:, :, 1:2, 1:2] += self.one.weight.data
        made.bias.data += 0 if self.wrong else self.one.bias.data
        return made


def in_parts(wrong=False):
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, 3)
    return nn.Sequential(stem, Branches(wrong), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)).eval()


def test_blocks_fold_and_the_network_is_left_as_it_was():
    net = in_parts()
    before = copy.deepcopy(net.state_dict())
    made, x = fold(net, 32), torch.randn(2, 3, 32, 32)
    assert type(made[1]) is nn.Conv2d and isinstance(net[1], Branches)
    assert torch.allclose(made(x), net(x), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert in_branches(net) == set(net[1].modules())
    assert lowrank.eligible(net, torch.zeros(1, 3, 32, 32)) == ["0"] and head_name(net) == "4"


def test_a_fold_that_computes_something_else_is_not_used_and_it_is_told():
    net = in_parts(wrong=True)
    kept, why = fold_for_export(net, 32, is_cut=False)
    assert kept is net and why.startswith("its branches can't be folded: the folded network is off by")
    assert "\n" not in why and fold_for_export(in_parts(), 32, is_cut=False)[1] == ""
    with pytest.raises(UnbuildableError, match=r"can't be folded: .* off by"):
        fold_for_export(net, 32, is_cut=True)


def test_deployed_without_memory_is_not_the_branches_fault(monkeypatch):
    """Else the same network would be timed folded or not, as memory has it."""

    def fuse(block):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Branches, "fuse", fuse)
    with pytest.raises(UnbuildableError, match="can't allocate memory"):
        fold_for_export(in_parts(), 32, is_cut=False)


def restless(net):
    """`net` with statistics and scales that no fold may take for granted."""
    torch.manual_seed(1)
    for layer in net.modules():
        if isinstance(layer, NORMS):
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    return net.eval()


def convolutions_and_norms(net):
    layers = list(net.modules())
    return tuple(
        sum(isinstance(layer, kind) for layer in layers) for kind in (nn.Conv2d, nn.modules.batchnorm._BatchNorm)
    )


# What is left are norms right behind a convolution, which any exporter takes into it.
REPARAMETRIZED = {
    "repvit_m0_9": ((126, 108), (103, 0)),
    "fastvit_t8": ((68, 70), (52, 10)),
    "efficientvit_m0": ((116, 113), (116, 0)),
    "mobileone_s0": ((191, 226), (43, 0)),
    "repghostnet_050": ((95, 112), (95, 48)),
    "repvgg_a0": ((44, 61), (22, 0)),
}


@pytest.mark.parametrize("variant", REPARAMETRIZED)
def test_timms_networks_of_branches_fold_and_compute_the_same(variant):
    pytest.importorskip("timm", reason="the extra timm is not installed")
    net = restless(build("timm", variant, CLASSES, 32))
    made, why = fold_for_export(net, 32, is_cut=False)
    assert why == "" and (convolutions_and_norms(net), convolutions_and_norms(made)) == REPARAMETRIZED[variant]
    with torch.no_grad():
        x = torch.randn(2, 3, 32, 32)
        wanted = net(x)
        assert (made(x) - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def block_of(kind):
    byobnet = pytest.importorskip("timm.models.byobnet", reason="the extra timm is not installed")
    ghost = pytest.importorskip("timm.models.repghost")
    vit = pytest.importorskip("timm.models.repvit")
    return {
        "RepVGG": lambda: byobnet.RepVggBlock(24, 24, layers=byobnet.LayerFn()),
        "MobileOne": lambda: byobnet.MobileOneBlock(24, 24, num_conv_branches=2, layers=byobnet.LayerFn()),
        "MobileOne depthwise": lambda: byobnet.MobileOneBlock(24, 24, group_size=1, layers=byobnet.LayerFn()),
        "RepGhost": lambda: ghost.RepGhostModule(24, 24),
        "RepVit": lambda: vit.RepVggDw(24, 3),
    }[kind]()


@pytest.mark.parametrize("kind", ["RepVGG", "MobileOne", "MobileOne depthwise", "RepGhost", "RepVit"])
def test_blocks_of_branches_fold_after_pruning(kind):
    """A block may count on the channels it was made with."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 24, 3), block_of(kind), nn.Conv2d(24, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    net = nn.Sequential(*net, nn.Linear(24, CLASSES))
    cut = restless(apply_steps(net, [("prune", 0.5)], 32, CLASSES))
    assert cut[0].out_channels < 24
    made, why = fold_for_export(cut, 32, is_cut=True)
    assert why == "" and convolutions_and_norms(made)[1] < convolutions_and_norms(cut)[1]


def test_a_network_without_branches_is_deployed_as_it_is():
    net = build("tiny_resnet", "res8_w4_s2", CLASSES, 32)
    assert fold(net, 32) is net


def test_the_graph_that_is_timed_is_folded(tmp_path):
    """What is timed has the convolutions of the folded network, fewer than it is trained with."""
    pytest.importorskip("timm", reason="the extra timm is not installed")
    structure, path = measure(
        Candidate(family="timm", variant="repvgg_a0", image_px=64), CLASSES, None, tmp_path, opset_max=13, seed=0
    )
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    net = build("timm", "repvgg_a0", CLASSES, 64)
    assert kinds.count("Conv") < sum(isinstance(layer, nn.Conv2d) for layer in net.modules())
    assert kinds.count("BatchNormalization") == 0 and structure.parameters < sum(p.numel() for p in net.parameters())

"""Any network of timm as a family of its own; without the package, one line says how to get it."""

import importlib.util

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evaluators.stages.structure import PARITY_MAX_ABS, measure
from remote.device import Int8Recipe
from spaces import network, weights
from spaces import space as spaces
from spaces.candidate import Candidate, UnbuildableError
from spaces.space import SpaceError, load
from tests.spaces.test_weights import WEIGHTS, needs_weights

timm = pytest.importorskip("timm", reason="the extra timm is not installed: pip install 'edgefront[timm]'")

CLASSES = 7
CPU = Int8Recipe("uint8", symmetric=False, weight_bits=7)
OTHERS = ("resnet18", "resnet18.a1_in1k", "lcnet_050", "regnetx_002")  # named by a user, listed nowhere


@pytest.mark.parametrize("variant", OTHERS)
def test_any_name_is_a_network(tmp_path, variant):
    candidate = Candidate(family="timm", variant=variant, image_px=32)
    structure, _ = measure(candidate, CLASSES, CPU, tmp_path, opset_max=13, seed=0)
    assert structure.opset == 13 and structure.parity_max_abs < PARITY_MAX_ABS


def test_it_says_what_pretrained_weights_expect():
    assert network.normalisation("timm", "tf_efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert network.normalisation("timm", "resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_name_that_timm_lacks_says_what_comes_near():
    with pytest.raises(
        UnbuildableError, match=r"no variant 'mobilnetv3_small_100'; it has .*mobilenetv3_small_100"
    ) as caught:
        network.build("timm", "mobilnetv3_small_100", CLASSES, 32)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_network_of_one_size_is_refused_at_another():
    """A vision transformer's positions are made for 224 px."""
    with pytest.raises(UnbuildableError, match="vit_tiny_patch16_224 at 96 px: Input height") as caught:
        network.build("timm", "vit_tiny_patch16_224", CLASSES, 96)
    assert "\n" not in str(caught.value)


def test_weights_from_a_file_named_like_the_network(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("mobilenetv3_small_100", num_classes=1000)
    save_file(whole.state_dict(), tmp_path / "mobilenetv3_small_100.safetensors")
    net = network.build("timm", "mobilenetv3_small_100", CLASSES, 96)
    told = weights.start(net, "timm", "mobilenetv3_small_100", tmp_path, download=False)
    assert told == "mobilenetv3_small_100.safetensors" and weights.is_trained(told)
    assert torch.equal(net.conv_stem.weight, whole.conv_stem.weight)
    assert net.classifier.weight.shape == (CLASSES, 1024)


@needs_weights
@pytest.mark.parametrize("variant", ["tf_mobilenetv3_small_100", "tf_efficientnet_lite0", "tf_efficientnet_lite1"])
def test_the_files_at_hand_load_strictly(variant):
    assert weights.load(network.build("timm", variant, 1000, 224), WEIGHTS / f"{variant}.safetensors") == ()
    net = network.build("timm", variant, CLASSES, 64)
    assert weights.start(net, "timm", variant, WEIGHTS, download=False) == f"{variant}.safetensors"


def test_timms_own_weights_are_loaded_by_timm(tmp_path, monkeypatch):
    """From the file that its configuration names, as it would from the hub."""
    torch.manual_seed(0)
    whole = timm.create_model("lcnet_050", num_classes=1000)
    torch.save(whole.state_dict(), tmp_path / "lcnet.pth")
    wanted = timm.get_pretrained_cfg("lcnet_050")
    local = type(wanted)(
        **(wanted.to_dict(remove_source=True, remove_null=False) | {"file": str(tmp_path / "lcnet.pth")})
    )
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: local)
    net = network.build("timm", "lcnet_050", CLASSES, 64)
    told = weights.start(net, "timm", "lcnet_050", None, download=True)
    assert told.startswith("timm lcnet_050") and weights.is_trained(told)
    assert torch.equal(net.conv_stem.weight, whole.conv_stem.weight)


def test_a_download_that_fails_leaves_the_net_as_it_was(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    net = network.build("timm", "lcnet_050", CLASSES, 64)
    before = net.conv_stem.weight.clone()
    told = weights.start(net, "timm", "lcnet_050", None, download=True)
    assert told.startswith(f"{weights.SCRATCH} (download failed: ") and "\n" not in told
    assert torch.equal(net.conv_stem.weight, before)
    assert weights.start(net, "timm", "lcnet_050", None, download=False) == weights.SCRATCH


def test_tensorflows_padding_survives_the_export(tmp_path):
    """Stride 2 at an even size is padded right and below only; nothing is scripted."""
    torch.manual_seed(0)
    ours = network.build("timm", "tf_mobilenetv3_small_100", CLASSES, 96).eval()
    theirs = timm.create_model("tf_mobilenetv3_small_100", num_classes=CLASSES).eval()
    theirs.load_state_dict(ours.state_dict())
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 96, 96), dtype=np.float32))
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image), atol=1e-5)


SPACE = "[variants]\n{variants}\n[axes]\nimage_px = [32]\n"


def test_a_space_names_it(tmp_path):
    (tmp_path / "s.toml").write_text(SPACE.format(variants='timm = ["ghostnet_100", "resnet18"]'))
    assert [c.variant for c in load(str(tmp_path / "s.toml")).parents()] == ["ghostnet_100", "resnet18"]


def test_one_name_is_one_network(tmp_path):
    (tmp_path / "s.toml").write_text(SPACE.format(variants='timm = ["resnet18"]\nresnet = ["resnet18"]'))
    with pytest.raises(SpaceError, match="names resnet18 twice"):
        load(str(tmp_path / "s.toml"))


def test_without_the_package_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(spaces, "find_spec", lambda name: None if name == "timm" else found(name))
    assert "timm" not in network.family_names()
    with pytest.raises(UnbuildableError, match=r"'timm' needs the package timm, .*: pip install 'edgefront\[timm\]'"):
        network.build("timm", "resnet18", CLASSES, 32)
    (tmp_path / "s.toml").write_text(SPACE.format(variants='timm = ["resnet18"]'))
    with pytest.raises(SpaceError, match="pip install") as caught:
        load(str(tmp_path / "s.toml"))
    assert "\n" not in str(caught.value)

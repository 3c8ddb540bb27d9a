"""What is entered, what a board says it is, and what follows from both."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.device import ON_CPU, ON_GPU, Device, Facts, Gpu, Profile
from remote.errors import DeviceConfigError
from remote.inventory import resolve
from remote.inventory.device_files import DEVICE_KEYS, PROFILE_KEYS, device_files, entries
from remote.inventory.register import add
from remote.inventory.resolve import detect, load_device, place, profiles, settle, unreachable

SHIPPED = [device_files()[-1]]
NAMES = ["jetson-nano", "tx2", "xavier", "orin-nano", "orin", "rpi4", "rpi5", "nuc", "x86-cuda", "local"]
X86 = Facts(
    machine="x86_64",
    cpu="cpu",
    cpu_flags=(),
    cores=4,
    memory_mb=4096,
    python="3.11.7",
    boot_id="boot",
    kernel="6.1",
    runtimes={"onnxruntime": "1.31.1"},
)
ARM = replace(X86, machine="aarch64", python="3.6.9")
TENSORRT = {"tensorrt": "8.2.1.9", "trtexec": "8.2.1", "onnxruntime": "1.10.0"}

# What the boards' own device trees and firmware say.
NANO = replace(
    ARM,
    board="NVIDIA Jetson Nano Developer Kit",
    compatible=("nvidia,p3450-0000", "nvidia,p3448-0000", "nvidia,jetson-nano", "nvidia,tegra210"),
    gpu=Gpu("NVIDIA Tegra X1", "5.3", 3956, True),
    runtimes=TENSORRT,
)
TX2 = replace(
    ARM,
    board="quill",
    compatible=("nvidia,p2597-0000+p3310-1000", "nvidia,quill", "nvidia,tegra186"),
    runtimes=TENSORRT,
)
XAVIER = replace(ARM, board="Jetson-AGX", compatible=("nvidia,p2972-0000", "nvidia,tegra194"), runtimes=TENSORRT)
XAVIER_NX = replace(
    ARM,
    board="NVIDIA Jetson Xavier NX Developer Kit",
    compatible=("nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"),
    runtimes=TENSORRT,
)
ORIN_NANO = replace(
    ARM,
    board="NVIDIA Orin Nano Developer Kit",
    compatible=("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"),
    runtimes=TENSORRT,
)
ORIN_NANO_SUPER = replace(
    ORIN_NANO,
    board="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    compatible=("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
)
OWN_CARRIER = replace(
    ORIN_NANO, board="Acme Carrier", compatible=("acme,board+p3767-0003", "nvidia,p3767-0003", "nvidia,tegra234")
)
ORIN_NX = replace(
    ORIN_NANO, board="NVIDIA Orin NX Developer Kit", compatible=("nvidia,p3768-0000+p3767-0000", "nvidia,tegra234")
)
AGX_ORIN = replace(
    ORIN_NANO,
    board="Jetson AGX Orin",
    compatible=("nvidia,p3737-0000+p3701-0000", "nvidia,p3701-0000", "nvidia,tegra234"),
)
PI_5 = replace(ARM, board="Raspberry Pi 5 Model B Rev 1.0", compatible=("raspberrypi,5-model-b", "brcm,bcm2712"))
CM5 = replace(
    ARM, board="Raspberry Pi Compute Module 5 Rev 1.0", compatible=("raspberrypi,5-compute-module", "brcm,bcm2712d0")
)
PI_4 = replace(ARM, board="Raspberry Pi 4 Model B Rev 1.5", compatible=("raspberrypi,4-model-b", "brcm,bcm2711"))
PI_400 = replace(ARM, board="Raspberry Pi 400 Rev 1.0", compatible=("raspberrypi,400", "brcm,bcm2711"))
PI_3 = replace(
    ARM, board="Raspberry Pi 3 Model B Plus Rev 1.3", compatible=("raspberrypi,3-model-b-plus", "brcm,bcm2837")
)
NUC = replace(X86, board="Intel(R) Client Systems NUC11TNHi5")
ASUS = replace(X86, board="ASUSTeK COMPUTER INC. NUC14RVHi5")
H200 = replace(X86, board="Supermicro SYS-821GE", gpu=Gpu("NVIDIA H200", "9.0", 143771, False), runtimes=TENSORRT)
LAPTOP = replace(X86, board="LENOVO 20XW")
BOX = replace(X86, board="", cpu="AMD EPYC")


@pytest.fixture(autouse=True)
def own_files(tmp_path, monkeypatch):
    """No file of the one who runs the tests counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def entered(text: str) -> Path:
    Path("devices.toml").write_text(text)
    return Path("devices.toml")


# ---------------------------------------------------------------- files


def test_the_shipped_profiles():
    assert sorted(profile.name for profile in profiles(SHIPPED)) == sorted(NAMES)
    for profile in profiles(SHIPPED):
        assert profile.title and profile.install and set(profile.runtimes) <= {*ON_CPU, *ON_GPU}
        assert bool(profile.prepare) == bool(profile.restore)
        assert profile.python == ("/usr/bin/python3" if "Jetson" in profile.title else None)
        assert profile.workspace_mb == (256 if profile.name == "jetson-nano" else 1024)
        for command in (*profile.prepare, *profile.restore):
            assert command.count("sudo") == command.count("sudo -n")  # nobody is there to type a password


def test_local_is_shipped():
    device = load_device("local", SHIPPED)
    assert device == Device(name="local", profile="local", host=None, python=None, runtime=None)
    assert settle(device, BOX, SHIPPED)[0].runtime == "onnxruntime"


def test_the_first_file_wins(tmp_path):
    (tmp_path / "config" / "edgefront").mkdir(parents=True)
    theirs = tmp_path / "config" / "edgefront" / "devices.toml"
    theirs.write_text('[local]\npython = "theirs"\n[box]\npython = "p"\n[profiles.nuc]\nboard = "OWN"\n')
    assert load_device("local").python == "theirs" and place(load_device("local")) == theirs
    entered('[local]\npython = "here"\n')
    assert load_device("local").python == "here" and place(load_device("local")) == Path("devices.toml")
    assert load_device("box").profile is None
    assert detect(NUC) is None and detect(replace(X86, board="an OWN board")).name == "nuc"


def test_a_full_entry():
    entered(
        '[nano]\nhost = "me@10.0.0.5"\nprofile = "jetson-nano"\n'
        'python = "venv/bin/python"\nruntime = "onnxruntime:cuda"\n'
        'ssh_config = "keys/ssh"\nprepare = ["a b"]\nrestore = ["c"]\nworkspace_mb = 128\n'
    )
    assert load_device("nano") == Device(
        name="nano",
        profile="jetson-nano",
        host="me@10.0.0.5",
        python="venv/bin/python",
        runtime="onnxruntime:cuda",
        ssh_config=str(Path.cwd() / "keys" / "ssh"),
        prepare=("a b",),
        restore=("c",),
        workspace_mb=128,
    )


def test_the_python_of_the_profile_is_known_before_connecting():
    entered(
        '[a]\nhost = "a"\nprofile = "jetson-nano"\n[b]\nhost = "b"\nprofile = "nano"\n[c]\nhost = "c"\nprofile = "pi"\n'
    )
    assert [load_device(name).python for name in "abc"] == ["/usr/bin/python3", "/usr/bin/python3", None]


@pytest.mark.parametrize("name", ["nano", "user@10.0.0.5", "pi.local", "fe80::1%eth0", "locl"])
def test_any_other_name_is_a_host_that_ssh_is_asked_about(name):
    assert load_device(name) == Device(name=name, profile=None, host=name, python=None, runtime=None)


@pytest.mark.parametrize(
    "name", ["-oProxyCommand=id", "a b", "nano;id", "", "sim:", "nano:22", "$(id)", "a\nb", "x" * 300]
)
def test_a_name_that_can_be_nothing_lists_the_known(name):
    with pytest.raises(DeviceConfigError, match="known: local; and") as caught:
        load_device(name, SHIPPED)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_simulated_devices_are_never_entered():
    assert load_device("sim:nano,noise=0.1") == Device(
        name="sim:nano,noise=0.1", profile=None, host=None, python=None, runtime=None, simulated="nano,noise=0.1"
    )
    entered('["sim:nano"]\nhost = "x"\n')
    with pytest.raises(DeviceConfigError, match="'sim:nano' can't name a device"):
        load_device("sim:nano")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[box", "cannot be read"),
        ("box = 3", "must be a table with the keys host, profile"),
        ("[box]\nhots = 'a'", "[box] has no key 'hots'; accepted: host, profile, python, runtime, ssh_config"),
        ("[box]\nhost = 7", "host must be text"),
        ("[box]\npython = ''", "python must be text"),
        ("[box]\npython = 'a\\u001bb'\n[x]\n".replace("'", '"'), "python must be text"),
        ("[box]\nhost = '-oX=y'", "not a host for ssh"),
        ("[box]\nhost = 'box:22'", "a port goes into ~/.ssh/config"),
        ("[box]\nhost = 'a'\npython = 'python3; id'", "no accepted path of Python"),
        ("[box]\nprepare = 'sudo'", "prepare must be a list of texts"),
        ("[box]\nprepare = ['a', 3]", "prepare must be a list of texts"),
        ("[box]\nworkspace_mb = '1'", "workspace_mb must be a whole number from 16"),
        ("[box]\nworkspace_mb = true", "workspace_mb must be a whole number"),
        ("[box]\nworkspace_mb = 3", "workspace_mb must be a whole number"),
        ("[box]\nprofile = 'jetson-nana'", "profile 'jetson-nana' is unknown; accepted: jetson, jetson-nano"),
        ("[box]\nruntime = 'abacus'", "unknown runtime 'abacus'; accepted:"),
        ("[box]\nruntime = '../agent'", "unknown runtime"),
        ("profiles = 3", "profiles must be tables"),
        ("[box]\nprofile = 'own'\n[profiles.own]\ngpu = 1", "[own] gpu must be true or false"),
        ("[box]\nprofile = 'own'\n[profiles.own]\nhost = 'a'", "[own] has no key 'host'; accepted: title"),
    ],
)
def test_a_broken_file_says_so(text, words):
    entered(text)
    with pytest.raises(DeviceConfigError) as caught:
        load_device("box")
    assert (
        str(caught.value).startswith("./devices.toml") and words in str(caught.value) and "\n" not in str(caught.value)
    )


def test_one_wrong_entry_does_not_harm_the_others():
    entered("[box]\nhots = 'a'\n[other]\nhost = 'b'\n")
    assert load_device("other").host == "b"


def test_every_key_is_a_field():
    assert set(DEVICE_KEYS) == set(Device.__dataclass_fields__) - {"name", "simulated"}
    assert set(PROFILE_KEYS) == set(Profile.__dataclass_fields__) - {"name"}


# ---------------------------------------------------------------- detection


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        *((NANO, "jetson-nano"), (TX2, "tx2"), (XAVIER, "xavier"), (XAVIER_NX, "xavier"), (ORIN_NANO, "orin-nano")),
        *((ORIN_NANO_SUPER, "orin-nano"), (OWN_CARRIER, "orin-nano"), (ORIN_NX, "orin"), (AGX_ORIN, "orin")),
        *((PI_5, "rpi5"), (CM5, "rpi5"), (PI_4, "rpi4"), (PI_400, "rpi4"), (PI_3, None), (NUC, "nuc"), (ASUS, "nuc")),
        *((replace(NUC, gpu=H200.gpu), "x86-cuda"), (H200, "x86-cuda"), (LAPTOP, None), (BOX, None)),
        *((replace(NANO, compatible=(), board=""), None), (replace(PI_5, compatible=()), "rpi5")),
    ],
)  # fmt: skip
def test_a_board_is_what_it_says_it_is(facts, name):
    found = detect(facts, SHIPPED)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("profile", "facts", "settled"),
    [
        *(("nano", NANO, "jetson-nano"), ("nano", ORIN_NANO, "orin-nano"), ("orin", ORIN_NANO, "orin-nano")),
        *(("orin", AGX_ORIN, "orin"), ("jetson", TX2, "tx2"), ("pi", PI_4, "rpi4"), (None, NANO, "jetson-nano")),
        *(("local", NUC, "local"), ("local", NANO, "local"), (None, BOX, None)),
        *(("nuc", replace(NUC, gpu=H200.gpu), "nuc"), ("x86-cuda", H200, "x86-cuda")),
        ("jetson-nano", replace(NANO, compatible=(), board=""), "jetson-nano"),
    ],
)  # fmt: skip
def test_an_entry_and_its_board_agree(profile, facts, settled):
    device = Device(name="box", profile=profile, host="box", python=None, runtime=None)
    found, kind = settle(device, facts, SHIPPED)
    assert found.profile == settled and (kind and kind.name) == settled
    assert settle(found, facts, SHIPPED) == (found, kind)  # settled once is settled
    assert found.workspace_mb == {"jetson-nano": 256, None: 256}.get(settled, 1024)
    assert (found.prepare, found.restore) == ((), ())  # never a command that was not entered


def test_what_is_entered_wins_over_the_profile():
    device = Device(
        name="box", profile="nano", host="box", python=None, runtime="onnxruntime", prepare=("a",), workspace_mb=99
    )
    settled, _ = settle(device, NANO, SHIPPED)
    assert (settled.runtime, settled.prepare, settled.workspace_mb) == ("onnxruntime", ("a",), 99)


@pytest.mark.parametrize(
    ("profile", "facts", "words"),
    [
        (
            "jetson-nano",
            ORIN_NANO,
            "nano is entered as jetson-nano, but it reports 'NVIDIA Orin Nano Developer Kit' (orin-nano): correct "
            "profile in ./devices.toml or leave it out",
        ),
        ("orin-nano", AGX_ORIN, "it reports 'Jetson AGX Orin' (orin)"),
        ("nano", PI_4, "it reports 'Raspberry Pi 4 Model B Rev 1.5' (rpi4)"),
        ("rpi4", PI_3, "'Raspberry Pi 3 Model B Plus Rev 1.3', which is no profile"),
        ("x86-cuda", LAPTOP, "it reports 'LENOVO 20XW' without a CUDA GPU, which is no profile"),
        ("x86-cuda", BOX, "it reports x86_64, AMD EPYC without a CUDA GPU"),
        ("jetson-nano", BOX, "it reports x86_64, AMD EPYC, which is no profile"),
        (
            "nano",
            replace(NANO, compatible=(), board=""),
            "which means orin-nano or jetson-nano, and does not say which",
        ),
    ],
)
def test_a_mismatch_is_an_error_that_says_so(profile, facts, words):
    entered(f'[nano]\nhost = "nano"\nprofile = "{profile}"\n')
    with pytest.raises(DeviceConfigError) as caught:
        settle(load_device("nano"), facts)
    assert words in str(caught.value) and "./devices.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_forgotten_host_is_thought_of():
    entered('[nano]\nprofile = "jetson-nano"\n')
    with pytest.raises(DeviceConfigError, match="no host is entered, which means this machine"):
        settle(load_device("nano"), LAPTOP)


@pytest.mark.parametrize(
    ("facts", "runtimes", "chosen"),
    [
        (NANO, ["tensorrt", "trtexec", "onnxruntime"], "tensorrt"),
        (NANO, ["trtexec", "onnxruntime"], "trtexec"),
        (NANO, ["onnxruntime", "onnxruntime:cuda"], "onnxruntime:cuda"),
        (NANO, ["ncnn"], "ncnn"),  # not of its profile, but all there is
        (PI_5, ["openvino", "ncnn", "onnxruntime"], "onnxruntime"),
        (NUC, ["openvino", "onnxruntime"], "onnxruntime"),
        (NUC, ["openvino"], "openvino"),
        (H200, ["onnxruntime", "onnxruntime:cuda"], "onnxruntime:cuda"),
        (LAPTOP, ["tensorrt", "onnxruntime"], "onnxruntime"),  # of no use without a GPU
        (replace(LAPTOP, machine="aarch64", gpu=H200.gpu), ["tensorrt", "onnxruntime"], "tensorrt"),
    ],
)
def test_the_first_runtime_of_the_profile_that_is_there(facts, runtimes, chosen):
    device = Device(name="box", profile=None, host="box", python=None, runtime=None)
    assert settle(device, replace(facts, runtimes=dict.fromkeys(runtimes, "1.0")), SHIPPED)[0].runtime == chosen


def test_a_runtime_that_is_not_there():
    with pytest.raises(
        DeviceConfigError, match=r"box has no tensorrt .*3\.11\.7, but onnxruntime 1\.31\.1; .*pip install"
    ):
        settle(Device(name="box", profile=None, host="box", python=None, runtime="tensorrt"), NUC, SHIPPED)
    with pytest.raises(
        DeviceConfigError, match=r"box has no runtime for its Python 3\.6\.9: TensorRT comes with JetPack"
    ):
        settle(
            Device(name="box", profile=None, host="box", python=None, runtime=None), replace(NANO, runtimes={}), SHIPPED
        )
    with pytest.raises(DeviceConfigError, match="install onnxruntime"):
        settle(
            Device(name="box", profile=None, host="box", python=None, runtime=None), replace(BOX, runtimes={}), SHIPPED
        )


def test_who_cannot_be_reached():
    entered('[nano]\nhost = "me@there"\n')
    assert unreachable(load_device("nano"), "it is off") == "nano, by ssh me@there: it is off"
    said = unreachable(load_device("locl"), "no host has that name")
    assert said.startswith("unknown device locl (known: local, nano), and ssh locl fails: no host has that name")
    for way in ("remote.devices add locl --host", "--device sim:nano", "--device local"):
        assert way in said, "what a newcomer can do"
    assert "--device sim:rpi5" in unreachable(load_device("rpi5"), "no host has that name") and "\n" not in said
    assert "sim:" not in unreachable(load_device("10.0.0.5"), "no ssh server answers")
    assert unreachable(load_device("local"), "no Python") == "local can't be started: no Python"


def test_a_kind_of_board_of_ones_own():
    entered(
        '[profiles.acme]\ncompatible = ["acme,*"]\nruntimes = ["trtexec"]\nworkspace_mb = 64\n'
        '[profiles.any]\ntitle = "x"\n'
    )
    settled, kind = settle(
        Device(name="box", profile=None, host="box", python=None, runtime=None),
        replace(OWN_CARRIER, compatible=("acme,one",)),
    )
    assert (kind.name, settled.runtime, settled.workspace_mb) == ("acme", "trtexec", 64)
    assert detect(BOX) is None  # what fits anything is never found


# ---------------------------------------------------------------- adding

TABLE = {"host": "me@10.0.0.5", "profile": "nano", "prepare": ['echo "a"', "b \\ ü"], "workspace_mb": 512}


def test_an_entry_is_written_into_the_users_own_file(tmp_path):
    assert add("nano", TABLE) == tmp_path / "config" / "edgefront" / "devices.toml"
    assert load_device("nano").prepare == ('echo "a"', "b \\ ü") and load_device("nano").workspace_mb == 512
    assert not list((tmp_path / "config" / "edgefront").glob(".*"))


@pytest.mark.parametrize(
    "text", ["", "# mine\n", '[a]\nhost = "a" # remark', "[a]\r\nhost = 'a'\r\n", "x.y = 1\n\n\n", "#\t\x0b"]
)
def test_the_rest_of_the_file_stays(text):
    file = Path("devices.toml")
    file.write_bytes(text.encode())
    if "\x0b" in text:
        with pytest.raises(DeviceConfigError, match="cannot be read"):
            add("nano", TABLE, file)
        assert file.read_bytes() == text.encode()
        return
    add("nano", TABLE, file)
    added = file.read_bytes().decode()
    assert added.startswith(text) and tomllib.loads(added) == tomllib.loads(text) | {"nano": TABLE}
    assert ("\r\n" in text) == ("\r\n" in added) and added.count("\r\n") in (0, added.count("\n"))


FILE = """# boards of the lab
[nano]   # old
host = "old" # was here
prepare = [
  "echo [x]",
]

# the second
[pi]
host = "pi"
note."x" = '''
[nano]
'''
"""


def test_an_entry_is_replaced_only_when_asked():
    file = entered(FILE)
    with pytest.raises(DeviceConfigError, match=r"\./devices\.toml has \[nano\] already; give --replace"):
        add("nano", TABLE, file)
    assert file.read_text() == FILE
    add("nano", TABLE, file, replace=True)
    head, _, tail = FILE.partition("[nano]   # old")
    assert file.read_text().startswith(head + "[nano]\n") and file.read_text().endswith(tail[tail.index("\n# the") :])
    assert tomllib.loads(file.read_text()) == tomllib.loads(FILE) | {"nano": TABLE}


@pytest.mark.parametrize("text", ["nano = {host = 'x'}\n", "nano.host = 'x'\n"])
def test_what_cannot_be_replaced_safely_is_left(text):
    file = entered(text)
    with pytest.raises(DeviceConfigError, match="edit it by hand"):
        add("nano", TABLE, file, replace=True)
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("sim:nano", {"host": "a"}, "can't name a device"),
        ("profiles", {"host": "a"}, "can't name a device"),
        ("a b", {"host": "a"}, "can't name a device"),
        ("nano", {"host": "-x"}, "not a host for ssh"),
        ("nano", {"hots": "a"}, "no key 'hots'"),
        ("nano", {"host": "a", "prepare": ["a\nb"]}, "list of texts"),
    ],
)
def test_a_wrong_entry_is_not_written(name, table, words):
    with pytest.raises(DeviceConfigError, match=words):
        add(name, table, Path("devices.toml"))
    assert not Path("devices.toml").exists()


def test_links_and_modes_stay(tmp_path):
    real = tmp_path / "dotfiles.toml"
    real.write_text("")
    real.chmod(0o600)
    Path("devices.toml").symlink_to(real)
    add("nano", TABLE, Path("devices.toml"))
    assert Path("devices.toml").is_symlink() and "[nano]" in real.read_text() and real.stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written():
    Path("file").write_text("")
    with pytest.raises(DeviceConfigError, match="cannot be"):
        add("nano", TABLE, Path("file") / "devices.toml")


@given(
    name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,10}", fullmatch=True).filter(lambda name: name != "profiles"),
    prepare=st.lists(st.text(min_size=1, max_size=20), max_size=3),
    head=st.sampled_from(["", FILE, '["a.b"]\nhost = "x"\n']),
)
def test_what_is_added_is_what_is_read(tmp_path_factory, name, prepare, head):
    file = tmp_path_factory.mktemp("d") / "devices.toml"
    file.write_text(head)
    try:
        add(name, {"host": "h", "prepare": prepare}, file, replace=True)
    except DeviceConfigError as error:
        assert "list of texts" in str(error)
        assert not all(text.strip() and text.isprintable() for text in prepare)
        return
    found = resolve.to_device(entries([file])[0][name])
    assert (found.host, found.prepare) == ("h", tuple(prepare))


# ---------------------------------------------------------------- the page for users

PAGE = (Path(__file__).parents[3] / "docs" / "devices.md").read_text("utf-8")


def test_what_the_page_shows_can_be_entered():
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 2
    entered("".join(blocks))
    assert load_device("nano").profile == "jetson-nano" and load_device("pi").python == "edgefront/bin/python"
    assert detect(replace(ORIN_NX, compatible=("acme,inspector-2", "nvidia,tegra234"))).name == "inspector"


def test_the_page_tells_of_every_key_and_profile():
    keys = re.findall(r"^\| `(\w+)` \|", PAGE.partition("| key | meaning")[2].partition("\n\n")[0], re.M)
    assert set(keys) == set(DEVICE_KEYS)
    table = PAGE.partition("| profile | also")[2].partition("\n\n")[0]
    rows = [row for row in table.splitlines() if row.startswith("|")]
    assert set(NAMES) <= set(re.findall(r"`([\w-]+)`", table))
    for profile in profiles(SHIPPED):
        cells = next(row.split("|") for row in rows if f"`{profile.name}`" in row.split("|")[1])
        assert set(profile.aliases) == set(re.findall(r"`([\w-]+)`", cells[2]))


def test_the_commands_of_the_page_are_real():
    from remote.devices import parser

    lines = re.findall(r"^python -m remote\.devices (.+)$", PAGE, re.M)
    assert len(lines) == 5
    for line in lines:
        parser().parse_args(shlex.split(line.partition("#")[0]))

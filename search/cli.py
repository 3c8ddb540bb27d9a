"""Define the command line of a search: options, help texts, and their translation into Settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evaluators.data.resizing import RESIZES
from evaluators.training.augmentation import DEFAULT, NONE, PRESETS, SWITCHES
from search.settings import EXTENDABLE, TRIALS, Settings, SettingsError, from_table, from_toml

PROG = "python -m search.run"
EPILOG = """\
how it works:
  Every candidate (architecture x input size x pruning x precision) is built and timed on the device first. A candidate
  over the budget is not trained; the only exception is the greedy baseline, an uncompressed network. The finalists are
  timed again before one of them becomes the choice.

examples:
  python -m search.run --budget-ms 1 --out runs/demo
  python -m search.run --budget-ms 5 --data ./defects --weights ./weights --trials 60 --out runs/steel
  python -m search.run --config steel.toml --time-limit 1h
  python -m search.run --resume --out runs/steel --trials 100
  python -m search.run --budget-ms 12 --space nb201 --table ./bench --device table:raspi4 --data in16

data sets:
  digits                     embedded images for trials, made from scikit-learn's digits
  DIR                        folders train/ val/ [test/] of class folders, or class folders alone (split 70/15/15)
  cifar10:DIR cifar100:DIR   the files of the CIFAR sites in DIR
  Without a test folder, val/ is the test set and validation images are taken from train/. The search never uses the
  test images before the end.

exit codes:
  0 a choice keeps the budget    3 no candidate keeps it (the report names the nearest miss)
  2 invalid settings             4 the connection to the device was lost (run the same command to resume)
  1 a bug of edgefront           5 this machine has no disk space or memory left (run the same command to resume)
  130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 141 after the reader of the output has closed it: the board is
  restored and everything is closed first, and a second signal ends at once; run the same command to resume
"""


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Return the parser of a search.

    The defaults are those of Settings; an option that is not given stays None here.

    Args:
        prog: Program name as the user typed it.
    """
    p = argparse.ArgumentParser(
        prog=prog,
        description="Find the most accurate image model that keeps a latency budget on a device.",
        epilog=EPILOG.replace(PROG, prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_limits(p)
    _add_subject(p)
    _add_search(p)
    _add_training(p)
    _add_files(p)
    return p


def _add_limits(p: argparse.ArgumentParser) -> None:
    """Add the limits that the choice must keep."""
    default = Settings(budget_ms=1.0)
    limits = p.add_argument_group("limits")
    limits.add_argument("--budget-ms", type=float, metavar="MS", help="Latency limit in milliseconds (required)")
    limits.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help="Percentile of latency; its upper confidence bound must be within the limit "
        f"(default {default.percentile:g})",
    )
    limits.add_argument(
        "--budget-mb", type=float, metavar="MB", help="Peak memory limit of the process in MB (default: none)"
    )
    limits.add_argument(
        "--max-drop",
        type=float,
        metavar="FRACTION",
        help="Largest loss of --metric against the greedy baseline; 0.02 is two points (default: none)",
    )
    limits.add_argument(
        "--metric",
        metavar="NAME",
        help="Definition of accuracy: top1, the share of correct images; balanced, the mean recall of the classes; "
        f"macro-f1, the mean F1 of the classes (default {default.metric})",
    )


def _add_subject(p: argparse.ArgumentParser) -> None:
    """Add the options that select device, data and search space."""
    default = Settings(budget_ms=1.0)
    what = p.add_argument_group("device, data and space")
    what.add_argument(
        "--device",
        metavar="NAME",
        help=f"Name of devices.toml, host of ssh, or simulated board (default {default.device})",
    )
    what.add_argument("--data", metavar="SET", help=f"Data set, see below (default {default.data})")
    what.add_argument(
        "--space",
        metavar="NAME",
        help="Preset or TOML file; `edgefront show` lists the presets (default: tiny up to 64 px, edge above)",
    )
    what.add_argument(
        "--family",
        action="append",
        metavar="FILE",
        help="Python file with your own networks (VARIANTS and build, as in spaces/families/), searched beside those "
        "of --space; may be given several times",
    )
    what.add_argument(
        "--model",
        action="append",
        metavar="FILE",
        help="Your own ONNX classifier, or a folder with model.onnx, as a fixed candidate: timed, quantized and "
        "scored, never trained or pruned; a JSON file beside it has its preprocessing; may be given several times",
    )
    what.add_argument(
        "--table",
        metavar="DIR",
        help="Folder of a published table of measurements that replaces the device: --space names the table, "
        "--device table:COLUMN its latencies, --data its accuracies",
    )
    what.add_argument(
        "--weights",
        metavar="DIR",
        help="Folder of pretrained weights; `none` starts from random weights (default: torchvision's own loading)",
    )


def _add_search(p: argparse.ArgumentParser) -> None:
    """Add the options of the search itself."""
    default = Settings(budget_ms=1.0)
    how = p.add_argument_group("search")
    how.add_argument("--sampler", metavar="NAME", help=f"Module of search/samplers/ (default {default.sampler})")
    how.add_argument(
        "--warm-start",
        metavar="RUN",
        help="Folder of an earlier run, of any device or data, to use its measurements (--sampler budget alone)",
    )
    how.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help=f"Number of candidates to evaluate (default {TRIALS}; with --time-limit, as many as it allows)",
    )
    how.add_argument(
        "--time-limit",
        metavar="TIME",
        help="Total time, such as 90s, 15m, 1h30m; no trial starts if it could not finish in time (default: none)",
    )
    how.add_argument(
        "--rungs",
        metavar="EPOCHS",
        help=f"Fine-tuning epochs after which unpromising candidates end (default {','.join(map(str, default.rungs))})",
    )
    how.add_argument(
        "--probe-share",
        type=float,
        metavar="FRACTION",
        help="Largest share of the run's time for measuring, once per device, the latency steps at which pruned "
        f"channel counts end; with 0 they are multiples of 8 or fewer (default {default.probe_share:g})",
    )
    how.add_argument(
        "--polish-share",
        type=float,
        metavar="FRACTION",
        help="Share of the time limit reserved for training the leading candidates longer at the end; 0 trains none, "
        f"nor does a search without --time-limit (default {default.polish_share:g})",
    )
    how.add_argument(
        "--seed", type=int, metavar="N", help=f"Seed of splits, sampler and training (default {default.seed})"
    )
    how.add_argument(
        "--sampler-seed",
        type=int,
        metavar="N",
        help="Seed of the sampler alone, for comparing runs over the same data (default: --seed)",
    )


def _add_training(p: argparse.ArgumentParser) -> None:
    """Add the options of training and quantization."""
    default = Settings(budget_ms=1.0)
    training = p.add_argument_group("training and quantization")
    training.add_argument(
        "--parent-epochs", type=int, metavar="N", help="Epochs of a parent's training (default: by data)"
    )
    training.add_argument(
        "--augment",
        metavar="LIST",
        help=f"Variations of training images: {', '.join(SWITCHES)}; presets {', '.join(PRESETS)}; or {NONE}. Name "
        f"only those that do not change the class (default {','.join(DEFAULT)})",
    )
    training.add_argument(
        "--resize",
        metavar="HOW",
        help=f"Resizing to a square: {'; '.join(f'{name}, {what}' for name, what in RESIZES.items())} "
        f"(default {default.resize})",
    )
    training.add_argument(
        "--val-images",
        type=int,
        metavar="N",
        help="Number of validation images by which candidates are compared, if there are more; the test images are all "
        f"used (default {default.val_images})",
    )
    training.add_argument(
        "--int8-drop",
        type=float,
        metavar="FRACTION",
        help="Largest loss of top-1 accuracy of int8 against fp32 before stronger quantization methods are tried, a "
        f"fraction (default {default.int8_drop:g})",
    )
    training.add_argument(
        "--qat-epochs",
        type=int,
        metavar="N",
        help=f"Epochs of quantization-aware training, the last resort; 0 disables it (default {default.qat_epochs})",
    )
    training.add_argument(
        "--teacher",
        metavar="NAME",
        help="Teacher of the distillation: parent, a candidate's own; best, the most accurate parent; a network's "
        f"name; or an ONNX classifier with its preprocessing beside it (default {default.teacher})",
    )
    training.add_argument(
        "--distillation", type=float, metavar="SHARE", help="Weight of the teacher's logits in the loss, 0 to 1"
    )
    training.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="Distillation temperature applied to the logits of teacher and student",
    )


def _add_files(p: argparse.ArgumentParser) -> None:
    """Add the options for files and folders."""
    default = Settings(budget_ms=1.0)
    files = p.add_argument_group("files")
    files.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file of these settings; options on the command line take precedence",
    )
    files.add_argument(
        "--out", metavar="DIR", help=f"Run folder: report, measurements, chosen/ (default {default.out})"
    )
    files.add_argument(
        "--cache", metavar="DIR", help=f"Folder of trained parents and decoded images (default {default.cache})"
    )
    files.add_argument("--resume", action="store_true", help="Resume the run in --out with its recorded settings")


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings that a command line asks for.

    Args:
        args: Parsed arguments; None marks an option that was not given.

    Raises:
        SettingsError: An option is invalid, or --resume finds no recorded run.
    """
    given: dict[str, Any] = {
        name: value for name, value in vars(args).items() if value is not None and name not in ("config", "resume")
    }
    if "rungs" in given:
        try:
            given["rungs"] = [int(part) for part in given["rungs"].split(",")]
        except ValueError:
            raise SettingsError(f"--rungs {given['rungs']!r} is not a list of epochs such as 0,1,3") from None
    if args.resume:
        recorded = Path(given.get("out", Settings.out)) / "config.toml"
        if not recorded.is_file():
            raise SettingsError(f"nothing to resume: {recorded} does not exist; run once without --resume")
        wanted = {name: value for name, value in given.items() if name in (*EXTENDABLE, "time_limit")}
        if ignored := sorted(given.keys() - wanted.keys()):
            raise SettingsError(f"--resume keeps the recorded settings; leave out {', '.join(ignored)}")
        return from_toml(recorded, **wanted)
    if args.config:
        return from_toml(args.config, **given)
    return from_table(given, "command line")

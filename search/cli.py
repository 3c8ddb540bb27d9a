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
what happens:
  every candidate (architecture x input size x pruning x precision) is built and timed on the device first;
  what is over the budget is not trained, but for uncompressed networks, one of which is the baseline to compare
  with; the best candidate is timed again before it is chosen.

examples:
  python -m search.run --budget-ms 1 --out runs/demo
  python -m search.run --budget-ms 5 --data ./defects --weights ./weights --trials 60 --out runs/steel
  python -m search.run --config steel.toml --time-limit 1h
  python -m search.run --resume --out runs/steel --trials 100
  python -m search.run --budget-ms 12 --space nb201 --table ./bench --device table:raspi4 --data in16

a data set is
  digits                 embedded, made from scikit-learn's digits: for trying things out
  DIR                    folders train/ val/ [test/] of class folders, or class folders alone (then split 70/15/15)
  cifar10:DIR cifar100:DIR   the files of the CIFAR sites under DIR
without a test folder, val/ becomes the test set and validation is taken from train/: the search never sees what
is reported.

exit codes:
  0 a choice keeps the budget    3 nothing keeps it (the report says what comes nearest)
  2 invalid settings             4 the device was lost (run the same command to continue)
  1 a bug of ours                5 this machine has no disk or memory left (run the same command to continue)
  130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 141 when nobody reads the output any more: the board is
  restored and everything closed first, a second signal ends at once; run the same command to continue
"""


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Return the parser of a search.

    The defaults are those of Settings; an option that is not given stays None here.

    Args:
        prog: Program name as the user typed it.
    """
    p = argparse.ArgumentParser(
        prog=prog,
        description="The most accurate image model that keeps a latency budget on a device.",
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
    limits.add_argument("--budget-ms", type=float, metavar="MS", help="latency limit in milliseconds (needed)")
    limits.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help=f"percentile of latency whose upper confidence bound must keep it (default {default.percentile:g})",
    )
    limits.add_argument("--budget-mb", type=float, metavar="MB", help="peak memory limit of the process, in MB")
    limits.add_argument(
        "--max-drop",
        type=float,
        metavar="FRACTION",
        help="largest loss of --metric against the greedy baseline, 0.02 is two points",
    )
    limits.add_argument(
        "--metric",
        metavar="NAME",
        help="what accuracy is: top1, the share of images that are right; balanced, the mean recall of the classes; "
        f"macro-f1, the mean F1 of the classes (default {default.metric})",
    )


def _add_subject(p: argparse.ArgumentParser) -> None:
    """Add the options that select device, data and search space."""
    default = Settings(budget_ms=1.0)
    what = p.add_argument_group("what is searched, where")
    what.add_argument("--device", metavar="NAME", help=f"a device of devices.toml (default {default.device})")
    what.add_argument("--data", metavar="SET", help=f"data set, see below (default {default.data})")
    what.add_argument(
        "--space",
        metavar="NAME",
        help="preset or TOML file; `python -m spaces.show` lists them (default: tiny up to 64 px, edge above)",
    )
    what.add_argument(
        "--family",
        action="append",
        metavar="FILE",
        help="Python file with networks of your own, searched beside those of --space: VARIANTS and build, as in "
        "spaces/families/; may be given several times",
    )
    what.add_argument(
        "--model",
        action="append",
        metavar="FILE",
        help="ONNX classifier of your own, or a folder with model.onnx, as a fixed candidate: timed, quantized and "
        "scored, never trained or pruned; its preprocessing in a JSON file beside it; may be given several times",
    )
    what.add_argument(
        "--table",
        metavar="DIR",
        help="look up instead of measuring: --space names the table, --device table:COLUMN its latencies, --data its "
        "accuracies",
    )
    what.add_argument(
        "--weights",
        metavar="DIR",
        help="folder of pretrained weights; `none` starts from scratch (default: torchvision's own loading)",
    )


def _add_search(p: argparse.ArgumentParser) -> None:
    """Add the options of the search itself."""
    default = Settings(budget_ms=1.0)
    how = p.add_argument_group("search")
    how.add_argument("--sampler", metavar="NAME", help=f"a file of search/samplers/ (default {default.sampler})")
    how.add_argument(
        "--warm-start",
        metavar="RUN",
        help="folder of an earlier run to learn from, of whatever device or data (sampler budget)",
    )
    how.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help=f"candidates to evaluate (default {TRIALS}, or with --time-limit as many as it allows)",
    )
    how.add_argument("--time-limit", metavar="TIME", help="stop asking in time to end by then: 90s, 15m, 1h30m")
    how.add_argument(
        "--rungs",
        metavar="EPOCHS",
        help=f"fine-tuning epochs at which the unpromising are let go (default {','.join(map(str, default.rungs))})",
    )
    how.add_argument(
        "--probe-share",
        type=float,
        metavar="FRACTION",
        help="of the run's time that may go into finding, once a device, where latency steps over channel counts: "
        f"pruning then ends at those; 0: none, it ends at multiples of 8 or fewer (default {default.probe_share:g})",
    )
    how.add_argument("--seed", type=int, metavar="N", help=f"of splits, sampler and training (default {default.seed})")
    how.add_argument(
        "--sampler-seed",
        type=int,
        metavar="N",
        help="of the sampler alone, to compare runs over the same data (default: --seed)",
    )


def _add_training(p: argparse.ArgumentParser) -> None:
    """Add the options of training and quantization."""
    default = Settings(budget_ms=1.0)
    training = p.add_argument_group("training and quantization")
    training.add_argument(
        "--parent-epochs", type=int, metavar="N", help="epochs a parent is trained for (default: by data)"
    )
    training.add_argument(
        "--augment",
        metavar="LIST",
        help=f"how training images are varied: {', '.join(SWITCHES)}; presets {', '.join(PRESETS)}; or {NONE}. Name "
        f"only what leaves the class as it is (default {','.join(DEFAULT)})",
    )
    training.add_argument(
        "--resize",
        metavar="HOW",
        help=f"{'; '.join(f'{name}: {what}' for name, what in RESIZES.items())} (default {default.resize})",
    )
    training.add_argument(
        "--int8-drop",
        type=float,
        metavar="FRACTION",
        help=f"top-1 accuracy int8 may lose against fp32 before more is done for it (default {default.int8_drop:g})",
    )
    training.add_argument(
        "--qat-epochs",
        type=int,
        metavar="N",
        help=f"fine-tuning in int8 where nothing less does, 0 for none (default {default.qat_epochs})",
    )
    training.add_argument(
        "--teacher",
        metavar="NAME",
        help="whose logits candidates learn from: parent, their own; best, the most accurate parent; a network's name; "
        f"or an ONNX classifier with its preprocessing beside it (default {default.teacher})",
    )
    training.add_argument(
        "--distillation", type=float, metavar="SHARE", help="weight of those logits in the loss, 0 to 1"
    )
    training.add_argument("--temperature", type=float, metavar="T", help="that softens both sides' logits")


def _add_files(p: argparse.ArgumentParser) -> None:
    """Add the options for files and folders."""
    default = Settings(budget_ms=1.0)
    files = p.add_argument_group("files")
    files.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of these settings; options given here win"
    )
    files.add_argument(
        "--out", metavar="DIR", help=f"run folder: report, measurements, chosen/ (default {default.out})"
    )
    files.add_argument("--cache", metavar="DIR", help=f"trained parents and decoded images (default {default.cache})")
    files.add_argument(
        "--resume", action="store_true", help="go on with the run in --out with the settings recorded there"
    )


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
            raise SettingsError(f"nothing to resume: there is no {recorded}; run once without --resume")
        wanted = {name: value for name, value in given.items() if name in (*EXTENDABLE, "time_limit")}
        if ignored := sorted(given.keys() - wanted.keys()):
            raise SettingsError(f"--resume keeps the recorded settings; leave out {', '.join(ignored)}")
        return from_toml(recorded, **wanted)
    if args.config:
        return from_toml(args.config, **given)
    return from_table(given, "command line")

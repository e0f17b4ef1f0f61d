"""The command line: a verb, then overrides in Hydra's syntax.

This file reads the arguments and turns errors into exit codes; it imports nothing heavy, so `--help` is quick.
Exit codes: 0 done, 1 a target missed or a run failed, 2 configuration, 3 input data, 130 interrupted.
"""

import dataclasses
import os
import sys
import traceback
from collections.abc import Sequence

JOBS = {
    "twin": "scans, or a table (cancer=lung) -> posterior -> forecast -> schedule -> report",
    "simulate": "first scan -> the model forward at prior medians, under treatment=...",
    "calibrate": "scans or a table -> posterior",
    "forecast": "posterior of run=DIR -> fields and volumes with intervals",
    "recommend": "posterior of run=DIR -> schedule: decision= objective= risk= constraint= controller=",
    "train": "simulated tumors -> a surrogate with error bounds (surrogate=...)",
    "report": "files of run=DIR -> report.html",
    "reproduce": "NAME: one claim of experiments/, checked against its targets (alone: the list)",
}
QUESTIONS = {
    "doctor": "what this machine and this installation have",
    "runs": "the runs there are, with their results",
    "cite": "the references of a configuration (--bibtex)",
    "configs": "the configuration groups and their choices (GROUP: what is in one)",
    "data": "the public data: list, path NAME, verify [NAME], fetch NAME",
}
_NAMES = {"reproduce": 1, "configs": 1, "data": 2}  # how many words may follow the verb
OK, FAILED, BAD_CONFIG, BAD_INPUT, INTERRUPTED = 0, 1, 2, 3, 130
_WITH_VALUE = {"--cfg": "cfg", "-c": "cfg", "--config-dir": "config_dirs", "-cd": "config_dirs"}
_SWITCHES = {
    "-m": "multirun",
    "--multirun": "multirun",
    "--resolve": "resolve",
    "--bibtex": "bibtex",
    "-h": "help",
    "--help": "help",
    "--version": "version",
}


@dataclasses.dataclass
class Arguments:
    """The command line, sorted: flags may stand anywhere, what is left is the verb, a name, and overrides."""

    verb: str | None = None
    names: list[str] = dataclasses.field(default_factory=list)
    overrides: list[str] = dataclasses.field(default_factory=list)
    config_dirs: list[str] = dataclasses.field(default_factory=list)
    cfg: str | None = None
    multirun: bool = False
    resolve: bool = False
    bibtex: bool = False
    help: bool = False
    version: bool = False

    def command(self) -> str:
        """The command as it would be typed again."""
        import shlex

        flags = [*(["-m"] if self.multirun else []), *(w for d in self.config_dirs for w in ("--config-dir", d))]
        return shlex.join(["tumortwin", *flags, *([self.verb] if self.verb else []), *self.names, *self.overrides])


def _flag(found: Arguments, word: str, rest: list[str]) -> None:
    name, equals, value = word.partition("=")
    if name in _SWITCHES and not equals:
        setattr(found, _SWITCHES[name], True)
        return
    from tumortwin.config import ConfigError, unknown

    if name not in _WITH_VALUE:
        raise unknown("flag", word, [*_SWITCHES, *_WITH_VALUE])
    if not equals:
        if not rest:
            raise ConfigError(f"required: a value after {name}\nreceived: nothing\ntry:      {name}=VALUE")
        value = rest.pop(0)
    if _WITH_VALUE[name] == "config_dirs":
        found.config_dirs.append(value)
    else:
        found.cfg = value


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Sorts the words of the command line. Raises `ConfigError` for a flag, verb or word that it does not know."""
    found, rest = Arguments(), list(argv)
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and len(word) > 1:
            _flag(found, word, rest)
        elif "=" in word or word.startswith(("+", "~")):
            found.overrides.append(word)
        elif found.verb is None:
            found.verb = word
        else:
            found.names.append(word)
    known = {**JOBS, **QUESTIONS}
    allowed = _NAMES.get(found.verb or "", 0)
    if found.verb is not None and found.verb not in known:
        from tumortwin.config import unknown

        raise unknown("command", found.verb, known)
    if len(found.names) > allowed:
        from tumortwin.config import ConfigError

        raise ConfigError(
            f"required: overrides of the form key=value after {found.verb}\nreceived: {found.names[allowed]!r}\n"
            "try:      key=value; a value with spaces or parentheses is quoted twice: \"key='a value'\""
        )
    return found


def usage() -> str:
    """The text of `tumortwin --help`."""
    lines = [
        "usage: tumortwin [-m] VERB [key=value ...]",
        "",
        "A tumor-twin research framework. Research software, not a medical device.",
        "",
        *(f"  {verb:10} {text}" for verb, text in JOBS.items()),
        "",
        *(f"  {verb:10} {text}" for verb, text in QUESTIONS.items()),
        "",
        "flags (anywhere on the line):",
        "  -m, --multirun       every combination of seed=0,1,2 and the like; cluster=joblib spreads them",
        "  --cfg job|hydra|all  print the composed configuration and stop; --resolve fills in the references",
        "  --config-dir DIR     a folder of configurations of your own",
        "",
        "examples:",
        "  tumortwin twin cancer=glioma patient=atlas_glioma",
        "  tumortwin twin patient=folder patient.path=DIR",
        "  tumortwin twin cancer=lung table=own table.declaration=FILE.yaml",
        "  tumortwin forecast run=runs/twin/NAME/DIR horizon=90",
        "  tumortwin -m calibrate seed=0,1,2 cluster=joblib",
        "",
        "A value with commas, parentheses, spaces or = is quoted twice: \"patient.path='a (copy)'\".",
        "A run that was stopped is taken up again by the same command. Exit codes: 0 done, 1 failed or target missed,",
        "2 configuration, 3 input data, 130 interrupted.",
    ]
    return "\n".join(lines)


def _dispatch(arguments: Arguments) -> int:
    if arguments.version:
        from tumortwin import __version__

        print(__version__)
        return OK
    if arguments.help or arguments.verb is None:
        print(usage())
        return OK if arguments.help else BAD_CONFIG
    if arguments.verb in QUESTIONS:
        from tumortwin import cli_questions

        return cli_questions.answer(arguments)
    from tumortwin import cli_jobs

    return cli_jobs.start(arguments)


def _complain(kind: str, text: str) -> None:
    print(f"tumortwin: {kind}\n{text}", file=sys.stderr)


def _exit_code(error: BaseException, command: str) -> int:
    """Prints what went wrong and chooses the exit code."""
    from tumortwin._errors import InputError, NotConverged
    from tumortwin.config import ConfigError

    if isinstance(error, KeyboardInterrupt):
        _complain("interrupted", f"the same command resumes: {command}")
        return INTERRUPTED
    if isinstance(error, ConfigError):
        _complain("configuration error", str(error))
        return BAD_CONFIG
    if isinstance(error, InputError):
        _complain("input error", str(error))
        return BAD_INPUT
    if isinstance(error, NotConverged):
        _complain("not converged", str(error))
        return FAILED
    from tumortwin.runs import RunLocked, disk_full

    if (full := disk_full(error, "paths.runs")) is not None:
        _complain("input error", str(full))
        return BAD_INPUT
    if isinstance(error, RunLocked):
        _complain("run in use", str(error))
        return FAILED
    if type(error).__module__.startswith(("hydra.", "omegaconf.")):
        _complain("configuration error", str(error))
        return BAD_CONFIG
    traceback.print_exception(error)
    _complain("failed", f"{type(error).__name__}: {error}\nthe run's log.txt has the same; the same command resumes")
    return FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = Arguments(overrides=words)
    try:
        arguments = parse_arguments(words)
        return _dispatch(arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (Exception, KeyboardInterrupt) as error:
        return _exit_code(error, arguments.command())


def console() -> None:
    """`main` as a program of its own.

    After an interrupt a thread of XLA may still be compiling, and taking the interpreter down under it is a
    segmentation fault (exit code 139 in place of 130): every file is closed by then, so the process ends at once.
    """
    code = main()
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    console()
